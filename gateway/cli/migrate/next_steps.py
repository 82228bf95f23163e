"""What to do with the files: the commands that come after `pointsman migrate`, in their order."""

import shlex
from collections.abc import Iterator
from pathlib import PurePath

from gateway.cli.migrate.report import Migration
from gateway.cli.migrate.writers import command, compose, kubernetes

SHADOW = (
    "pointsman experiment start tgi-to-vllm   # with [models.experiment] in pointsman.toml: "
    'name = "tgi-to-vllm", control = "tgi", treatment = "vllm", shadow = 0.05'
)


def next_steps(migration: Migration, out: str | None) -> list[str]:
    """Return the commands; none where there is no launch. `out` is the directory of the files, if they are in one."""
    if not migration.plans:
        return []
    config = _beside(out, "pointsman.toml")
    return [
        *_start(migration, out),
        f"pointsman check --config {config}",
        f"pointsman serve --config {config}",
        f"pointsman doctor --config {config}",
        "pointsman compat --from tgi --to vllm requests.jsonl",
        SHADOW,
    ]


def _start(migration: Migration, out: str | None) -> Iterator[str]:
    """Yield how vLLM is started beside TGI."""
    forms = {one.launch.form for one in migration.plans}
    for one in migration.plans:
        if one.launch.form in ("command", "docker"):
            yield f"sh {_beside(out, command.script_name(one))}"
    if "compose" in forms:
        files = dict.fromkeys(one.launch.place.file for one in migration.plans if one.launch.form == "compose")
        old = " ".join(f"-f {shlex.quote(name)}" for name in files)
        yield f"docker compose {old} -f {_beside(out, compose.NAME)} up -d"
    if "kubernetes" in forms:
        yield f"kubectl apply -f {_beside(out, kubernetes.NAME)}"


def _beside(out: str | None, name: str) -> str:
    return shlex.quote(str(PurePath(out) / name)) if out else name
