"""The model of a launch: how a TGI is started, whatever the file is that says so.

A reader makes a Launch of a command line, a compose service, a container of a pod or SageMaker's environment; the rest
of the command knows no files. Each setting keeps its place, so that the report can name it.
"""

import re
from itertools import pairwise
from typing import Any, Literal

from msgspec import Struct, field

Form = Literal["command", "docker", "compose", "kubernetes", "sagemaker"]

_SECRET = re.compile(r"^--(api-key|ngrok-authtoken)$|(TOKEN|KEY|PASSWD|CREDENTIALS?)$|SECRET|PASSWORD")
_REFERENCE = re.compile(r"\$\{[^}]*\}|\$\w+|\$\([^)]*\)|\{\{.*\}\}")


class Place(Struct, frozen=True, order=True):
    """Where something is written: a file ("-" is stdin) and a line, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class LaunchSetting(Struct, frozen=True):
    """One flag or environment variable of a launch.

    `source` is what the file calls it, `name` the launcher's flag that it sets, or the variable's own name where it is
    none of the launcher's. `fault` says why TGI's launcher itself would refuse it. `reference` is where a variable is
    taken from, such as Kubernetes' `valueFrom`; its value is then empty, unless the input has that place too.
    """

    source: str
    name: str
    value: str
    place: Place
    is_flag: bool = False
    fault: str = ""
    reference: Any = None

    @property
    def secret(self) -> bool:
        """Whether the value must not be shown."""
        return is_secret(self.name)

    @property
    def shown(self) -> str:
        """The setting as a person reads it; a secret's value is left out."""
        value = "…" if self.secret and self.value and not _REFERENCE.fullmatch(self.value) else self.value
        if self.reference is not None and self.value in ("", f"$({self.source})"):
            value = "(from elsewhere)"
        if self.is_flag:
            return f"{self.source} {value}".rstrip()
        return f"{self.source}={value}"


class Note(Struct, frozen=True):
    """What is to be known of a launch and is no setting. It `blocks` if flags may be behind it that nobody can see."""

    place: Place
    text: str
    blocks: bool = False


class Launch(Struct):
    """How one TGI is launched.

    `gpus` is how many it sees, or None where the file leaves that to the machine. `published` maps ports of the
    container to ports of the host. `address` is the host by which a gateway beside it reaches it, `service_port` the
    port there, if that is not the launcher's own; with `host_network` it has the host's ports. `source` is what a
    writer of the same form copies the rest from.
    """

    name: str
    form: Form
    place: Place
    image: str = ""
    settings: list[LaunchSetting] = field(default_factory=list)
    gpus: int | None = None
    published: dict[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"
    service_port: str = ""
    host_network: bool = False
    source: Any = None
    notes: list[Note] = field(default_factory=list)

    @property
    def variant(self) -> str:
        """What the image is built for: cuda, rocm, gaudi, intel-cpu, intel-xpu, neuron, trtllm or llamacpp."""
        image = self.image.lower()
        return next((word for word in VARIANTS if word in image), "cuda")


VARIANTS = ("rocm", "gaudi", "intel-cpu", "intel-xpu", "neuron", "trtllm", "llamacpp")


class CannotRead(Exception):
    """An input is not what it should be; the message names the place and what was expected."""


def unresolved(value: str) -> bool:
    """Whether a value holds a variable of a shell, of compose or of a template that nobody has filled in."""
    return "{{" in value or any(
        letter == "$" and following and (following in "{(_@*" or following.isalpha())
        for letter, following in pairwise(value)
    )


def is_secret(name: str) -> bool:
    """Whether a flag or a variable holds a secret, by its name."""
    return _SECRET.search(name) is not None


def masked(name: str, value: str) -> str:
    """Return a variable's value, or a reference to the variable in the place of a secret."""
    return f"${{{name}}}" if is_secret(name) and not _REFERENCE.fullmatch(value) else value
