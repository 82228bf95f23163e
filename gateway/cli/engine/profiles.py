"""The profiles: TOML files of deploy/profiles, each a way to run an engine, with its options and what it needs.

A table for each engine that the profile is for: `options` (by the names of the engine's own command line; true is a
flag without a value, a table is sent as JSON), `environment` (variables), and `checkpoint`, the kinds of checkpoint it
is for, as `Checkpoint.kind` says them; any, if there are none.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.cli.engine.options import Option
from gateway.cli.exit_status import CommandFailed, ExitStatus

HERE = Path(__file__).parent
# In an installed wheel, and in the project's own folder.
FOLDERS = (HERE / "profile_files", HERE.parents[2] / "deploy" / "profiles")


class EngineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile sets for one engine."""

    options: dict[str, bool | int | float | str | dict[str, Any]] = {}
    environment: dict[str, str] = {}
    checkpoint: tuple[str, ...] = ()

    def as_options(self) -> list[Option]:
        """Return the options as words of a command line."""
        return [Option(f"--{name}", _values(value)) for name, value in self.options.items() if value is not False]


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """A profile: what it is for, in two sentences, and the settings of each engine that it is for."""

    about: str
    vllm: EngineSettings | None = None
    tgi: EngineSettings | None = None

    def settings(self, engine: str) -> EngineSettings | None:
        """Return what it sets for an engine, or None if it is not for this one."""
        return {"vllm": self.vllm, "tgi": self.tgi}[engine]


def names() -> list[str]:
    """Return the names of all profiles."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def load(name: str) -> Profile:
    """Return a profile. Raises CommandFailed if there is none of this name."""
    if name not in names():
        raise CommandFailed(ExitStatus.USAGE, f'--profile: expected one of {", ".join(names())}, got "{name}"')
    return msgspec.convert(tomllib.loads((_folder() / f"{name}.toml").read_text()), Profile)


def _folder() -> Path:
    return next(folder for folder in FOLDERS if folder.is_dir())


def _values(value: bool | float | str | dict[str, Any]) -> tuple[str, ...]:
    if value is True:
        return ()
    return (json.dumps(value) if isinstance(value, dict) else str(value),)
