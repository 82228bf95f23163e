"""`pointsman compat`: recorded requests, and what becomes of each when the engine behind the gateway is another.

    records   a line to the request in it
    table     how an engine takes a request today, where no adapter can tell, with the sources
    facts     what a row of it is, and for which requests one holds
    judge     one request to its reasons, many to a count
    show      the table and the JSON document, and the exit status

The file is read line by line and the count is bounded, so it may have millions of lines.
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

__all__ = ["lines", "run"]

LONGEST = 2**26
EVERY = 500  # lines between two looks at the progress
WRONG = 2


def run(name: str, today: str, then: str, as_json: bool) -> int:
    """Judge all requests of a file ("-" is stdin), print the report, return the exit status."""
    if today == then:
        return _wrong(f"--from and --to are both {today}; expected the two engines")
    tally = Tally(today, then)
    try:
        with ExitStack() as stack:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
            _count(file, 0 if name == "-" else Path(name).stat().st_size, tally)
    except OSError as error:
        return _wrong(f"{name}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _wrong("stopped before the end")
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(tally))).decode() + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(tables(tally))
    return status(tally)


def _wrong(words: str) -> int:
    sys.stderr.write(f"pointsman: {words}\n")
    return WRONG


def _count(file: BinaryIO, size: int, tally: Tally) -> None:
    """Judge line by line, showing how far it is where somebody looks."""
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
            if number % EVERY == 0:
                progress.update(task, completed=read, done=number)


def lines(file: BinaryIO, longest: int = LONGEST) -> Iterator[tuple[int, bytes | None]]:
    """Yield the lines with their numbers; None in place of one that is too long to be held."""
    number = 0
    while line := file.readline(longest):
        number += 1
        if len(line) < longest or line.endswith(b"\n"):
            yield number, line
            continue
        yield number, None
        while (rest := file.readline(longest)) and not rest.endswith(b"\n"):
            pass
