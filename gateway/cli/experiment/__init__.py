"""`pointsman experiment report`, `status` and `export`: of a running gateway, or from the store of its configuration.

Each prints its result on stdout. Raises CommandFailed: wrong usage, no such experiment, or nobody who can be asked.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from gateway.cli.exit_status import CommandFailed, ExitStatus
from gateway.cli.experiment.ask import ReportPlace, place
from gateway.cli.experiment.parquet import write_parquet
from gateway.cli.experiment.show import shown, table

WIDTH = 120


def report(name: str, where: ReportPlace, as_json: bool) -> None:
    """Print the report of an experiment."""
    found = where.report(name)
    if as_json:
        _print_json(found)
    else:
        _console().print(shown(found))


def status(where: ReportPlace, as_json: bool) -> None:
    """Print a line for each experiment there is."""
    found = where.status()
    if as_json:
        _print_json({"experiments": found})
    elif found:
        _console().print(table(found))
    else:
        print("There are no experiments.", file=sys.stderr)


def export(name: str, where: ReportPlace, kind: str, out: str | None) -> None:
    """Write every number of an experiment: JSON lines on stdout or to a file, or a Parquet file."""
    rows = where.rows(name)
    if kind == "parquet":
        if not out:
            raise CommandFailed(ExitStatus.USAGE, "--out: required, the file to write as Parquet")
        write_parquet(rows, Path(out))
        return
    lines = msgspec.json.Encoder().encode_lines(rows)
    if out:
        Path(out).write_bytes(lines)
    else:
        sys.stdout.write(lines.decode())


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def _print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


__all__ = ["ReportPlace", "export", "place", "report", "status"]
