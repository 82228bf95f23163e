"""`pointsman migrate`: from the way TGI is launched to vLLM's, with an account of every flag.

    readers        command lines, compose, Kubernetes, SageMaker -> `launch`, the model of a launch
    effective      flags and environment merged as TGI's launcher does it
    table          a row for each of TGI's flags; `translations` are those that need thought
    plan           a launch of vLLM, and what became of each setting (`fates`)
    writers        the new launch in the old one's form, and pointsman.toml
    dashboards     dashboards, rules and autoscalers by the gateway's names (`metric_names`)
    parser_check   the arguments before an installed vLLM's own parser
    report         the account, for people and for pipelines; `next_steps`, the commands that come after

Offline and without side effects, but for the files under `--out`.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console

from gateway.cli.exit_status import CommandFailed, ExitStatus, reason
from gateway.cli.migrate import dashboards, parser_check, plan, writers
from gateway.cli.migrate.dashboards import NewWorkload
from gateway.cli.migrate.launch import CannotRead, Note
from gateway.cli.migrate.next_steps import next_steps
from gateway.cli.migrate.parser_check import NoVllm
from gateway.cli.migrate.plan import Target
from gateway.cli.migrate.readers import ReadInput, read
from gateway.cli.migrate.readers.compose import environment_lines
from gateway.cli.migrate.readers.words import Variables
from gateway.cli.migrate.report import WIDTH, Migration, document, tables
from gateway.cli.migrate.table import CHECKED

__all__ = ["MigrateOptions", "run"]


class MigrateOptions(Struct, frozen=True):
    """What the command line says; `gpu_memory` in bytes."""

    files: tuple[str, ...]
    env_file: str | None = None
    version: tuple[int, ...] = CHECKED
    gpus: int | None = None
    gpu_memory: int = 0
    model_config: str | None = None
    out: str | None = None
    as_json: bool = False
    check: bool = False


def run(options: MigrateOptions) -> int:
    """Translate, write the files, print the account, return the exit status.

    Raises CommandFailed if an input cannot be read, a file would be overwritten, or no vLLM can be asked.
    """
    found = _read_all(options)
    try:
        migration, files = _translated(found, options)
    except CannotRead as error:
        raise CommandFailed(ExitStatus.USAGE, str(error)) from error
    if options.check:
        _check(migration)
    if options.out is not None:
        migration.files = _written(Path(options.out), files)
    migration.next = next_steps(migration, options.out)
    if options.as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(migration))).decode() + "\n")
    else:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        console.print(tables(migration))
        if options.out is None:
            _print_files(files)
    return migration.status


def _read_all(options: MigrateOptions) -> ReadInput:
    """Return what all inputs hold together."""
    together = ReadInput()
    known = _environment(options.env_file) if options.env_file else {}
    for name in options.files or ("-",):
        try:
            one = read(_text(name), name, Variables(known), partial(_beside, name))
        except CannotRead as error:
            raise CommandFailed(ExitStatus.USAGE, str(error)) from error
        together.launches += one.launches
        together.skipped += one.skipped
        together.metrics += one.metrics
    return together


def _text(name: str) -> str:
    try:
        return sys.stdin.buffer.read().decode() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(ExitStatus.USAGE, f"{name}: {reason(error)}") from error


def _beside(name: str, beside: str) -> str | None:
    """Return the text of a file that another one names, or None; what is read from stdin has nothing beside it."""
    path = Path(name).parent / beside
    return path.read_text(encoding="utf-8") if name != "-" and path.is_file() else None


def _environment(name: str) -> dict[str, str]:
    return {one.source: one.value for one in environment_lines(_text(name), name)}


def _model_config(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    try:
        config = json.loads(_text(name))
    except ValueError as error:
        raise CommandFailed(ExitStatus.USAGE, f"{name}: expected a model's config.json: {error}") from error
    if not isinstance(config, dict):
        raise CommandFailed(ExitStatus.USAGE, f"{name}: expected a model's config.json, an object")
    return config


def _translated(found: ReadInput, options: MigrateOptions) -> tuple[Migration, dict[str, str]]:
    """Return the account and the files by name."""
    target = Target(options.version, options.gpus, options.gpu_memory, _model_config(options.model_config))
    plans = plan.make_all(found.launches, target)
    workloads = {one.launch.name: NewWorkload(one.name, one.model) for one in plans}
    boards = dashboards.translate(found.metrics, workloads)
    notes: list[Note] = [*found.skipped, *(note for one in plans for note in plan.notes(one))]
    return Migration(options.version, plans, boards.rows, notes), writers.write(plans) | boards.files


def _check(migration: Migration) -> None:
    """Run the arguments through vLLM's parser; what it does not take is blocked. Raises CommandFailed without one."""
    with Console(stderr=True).status("asking vLLM's parser, which takes half a minute to load …"):
        try:
            verdict = parser_check.ask(parser_check.installed_python(), [one.arguments for one in migration.plans])
        except NoVllm as error:
            raise CommandFailed(ExitStatus.UNREACHABLE, str(error)) from error
    for one, wrong in zip(migration.plans, verdict.wrong, strict=True):
        one.add_verdict(f"vLLM {verdict.version}", wrong)


def _written(directory: Path, files: dict[str, str]) -> list[str]:
    """Write the files; return their names. Raises CommandFailed if one is there already: it may have been edited."""
    paths = {directory / name: text for name, text in files.items()}
    if there := [str(path) for path in paths if path.exists()]:
        raise CommandFailed(ExitStatus.USAGE, *(f"{path}: it is there already; choose another --out" for path in there))
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in paths.items():
        path.write_text(text, encoding="utf-8")
    return [str(path) for path in paths]


def _print_files(files: dict[str, str]) -> None:
    for name, text in files.items():
        sys.stdout.write(f"\n--- {name}\n{text}")


def version_of(text: str) -> tuple[int, ...]:
    """Return a version such as "0.32" or "v0.32.1" by its first two numbers. Raises ValueError for other texts."""
    parts: Sequence[str] = text.strip().removeprefix("v").split(".")
    if not 2 <= len(parts) <= 4 or not all(part.isdecimal() for part in parts[:2]):
        raise ValueError(text)
    return tuple(map(int, parts[:2]))
