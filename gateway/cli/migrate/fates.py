"""What becomes of a setting: the words of the report, and what a row of the table answers."""

from enum import StrEnum
from typing import Any

from msgspec import Struct, field

from gateway.cli.migrate.launch import Launch, LaunchSetting, Place, unresolved


class Fate(StrEnum):
    """What became of a source flag; from the best to the worst."""

    SAME = "same"
    MAPPED = "mapped"
    DEFAULT = "default written out"
    DROPPED = "dropped"
    LOST = "lost"
    BLOCKED = "blocked"


class Translated(Struct, frozen=True):
    """What a row of the table makes of a setting.

    `arguments` are vLLM's, `environment` its variables, `limits` keys of the gateway's configuration. `why` says what
    is different, `enforced_by` who holds to a limit that the engine has lost.
    """

    fate: Fate
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    limits: dict[str, Any] = {}
    why: str = ""
    enforced_by: str = ""


class ReportRow(Struct, frozen=True):
    """A line of the report: a source flag, or one that nobody has written, what became of it, and why."""

    fate: Fate
    source: str
    place: Place
    target: str = ""
    why: str = ""
    enforced_by: str = ""


class Facts(Struct):
    """What a row may look at: the launch, what is in force of it, and what is known of model, machine and version.

    `config` is the model's `config.json`, empty if it was not given; `gpu_memory` of one GPU, in bytes, 0 if unknown.
    """

    launch: Launch
    values: dict[str, LaunchSetting] = field(default_factory=dict)
    version: tuple[int, ...] = ()
    gpus: int | None = None
    gpu_memory: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    port: str = ""

    def value(self, name: str, default: str = "") -> str:
        """Return what is in force for a flag or a variable."""
        return self.values[name].value if name in self.values else default

    @property
    def model(self) -> str:
        """The model's name or path."""
        return self.value("--model-id", "bigscience/bloom-560m")

    @property
    def model_type(self) -> str:
        """The architecture as `config.json` names it; empty if that was not given."""
        return str(self.config.get("model_type") or "")


def number(value: str) -> float | None:
    """Return a setting's value as a number; None if it is not known yet."""
    if unresolved(value):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def on(value: str) -> bool:
    """Whether a switch's or a variable's value says yes; a switch on the command line has none."""
    return value.strip().lower() not in ("false", "0", "no", "off", "f", "n")


UNKNOWN = "the value is not known yet; give it by --env"


def blocked(why: str) -> Translated:
    """Return that somebody has to decide."""
    return Translated(Fate.BLOCKED, why=why)
