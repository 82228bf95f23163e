"""`pointsman compat`: reads recorded requests; which change their meaning on the other engine, or are refused there?

    records   reads the request in a line
    table     what an engine does with a request today that no adapter knows, with the sources
    facts     what a row of the table is, and to which requests one applies
    judge     the reasons of one request, and the count over many
    show      the table, the JSON document and the exit status

The file is read line by line and the count is bounded, so that it may have millions of lines.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gateway.cli.compat.judge import Tally
from gateway.cli.compat.show import WIDTH, document, status, tables
from gateway.cli.exit_status import CommandFailed, ExitStatus, reason

__all__ = ["lines", "run"]

LONGEST = 2**26
PROGRESS_EVERY = 500  # lines between two updates of the progress bar


def run(name: str, today: str, then: str, as_json: bool) -> int:
    """Judge all requests of a file ("-" is stdin), print the report, return the exit status.

    Raises CommandFailed if the engines are the same, or the file cannot be read.
    """
    if today == then:
        raise CommandFailed(ExitStatus.USAGE, f"--from and --to are both {today}; expected two engines")
    tally = Tally(today, then)
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            _count(file, 0 if name == "-" else Path(name).stat().st_size, tally)
    except OSError as error:
        raise CommandFailed(ExitStatus.USAGE, f"{name}: {reason(error)}") from error
    except KeyboardInterrupt:
        raise CommandFailed(ExitStatus.USAGE, "interrupted before the end of the file") from None
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(tally))).decode() + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(tables(tally))
    return status(tally)


def _count(file: BinaryIO, size: int, tally: Tally) -> None:
    """Judge line by line; show the progress on a terminal."""
    columns = (TextColumn("{task.fields[done]:,} lines"), BarColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with shown as progress:
        task = progress.add_task("", total=size or None, done=0)
        read = 0
        for number, line in lines(file):
            read += len(line) if line is not None else LONGEST
            if line is None:
                tally.refuse(number, f"longer than {LONGEST >> 20} MiB")
            else:
                tally.add(number, line)
            if number % PROGRESS_EVERY == 0:
                progress.update(task, completed=read, done=number)


def lines(file: BinaryIO, longest: int = LONGEST) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines with their numbers; None in place of one that is too long for the memory."""
    number = 0
    while line := file.readline(longest):
        number += 1
        if len(line) < longest or line.endswith(b"\n"):
            yield number, line
            continue
        yield number, None
        while (rest := file.readline(longest)) and not rest.endswith(b"\n"):
            pass
