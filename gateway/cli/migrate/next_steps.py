"""What to do with the files: the commands that come after `pointsman migrate`, in their order."""

import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Protocol

from gateway.cli.migrate.report import Migration
from gateway.cli.migrate.writers import compose, kubernetes

SHADOW = (
    "pointsman experiment start tgi-to-vllm   # with [models.experiment] in pointsman.toml: "
    'name = "tgi-to-vllm", control = "tgi", treatment = "vllm", shadow = 0.05'
)


class NextOptions(Protocol):
    """What of the command line the next commands need."""

    @property
    def files(self) -> tuple[str, ...]:
        """The inputs."""

    @property
    def out(self) -> str | None:
        """Where the files are; None if they were only printed."""


def next_steps(migration: Migration, options: NextOptions) -> list[str]:
    """Return the commands, one a line; none where there is no launch."""
    if not migration.plans:
        return []
    config = _beside(options.out, "pointsman.toml")
    return [
        *_start(migration, options),
        f"pointsman check --config {config}",
        f"pointsman serve --config {config}",
        f"pointsman doctor --config {config}",
        "pointsman compat --from tgi --to vllm requests.jsonl",
        SHADOW,
    ]


def _start(migration: Migration, options: NextOptions) -> Iterator[str]:
    """Yield how vLLM is started beside TGI."""
    forms = {one.launch.form for one in migration.plans}
    for one in migration.plans:
        if one.launch.form in ("command", "docker"):
            yield f"sh {_beside(options.out, f'{one.name}.sh')}"
    if "compose" in forms:
        old = " ".join(f"-f {shlex.quote(name)}" for name in options.files if name != "-") or "-f compose.yaml"
        yield f"docker compose {old} -f {_beside(options.out, compose.NAME)} up -d"
    if "kubernetes" in forms:
        yield f"kubectl apply -f {_beside(options.out, kubernetes.NAME)}"


def _beside(out: str | None, name: str) -> str:
    return shlex.quote(str(PurePath(out) / name)) if out else name
