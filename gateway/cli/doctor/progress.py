"""Shows how far the questions are: a bar on a terminal, elsewhere a line now and then. It goes to stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import Progress

INTERVAL = 10.0  # seconds between two lines

Tick = Callable[[], object]


@contextmanager
def shown(total: int) -> Iterator[Tick]:
    """Show the progress of so many questions; give what is to be called after each."""
    if not sys.stderr.isatty():
        yield Lines(total, sys.stderr, time.monotonic).advance
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Asking the engines", total=total)
        yield lambda: progress.advance(task)


class Lines:
    """Progress in lines, for a log. Work that is done soon says nothing. `clock` is monotonic, in seconds."""

    def __init__(self, total: int, out: TextIO, clock: Callable[[], float]) -> None:
        self._total = total
        self._out = out
        self._clock = clock
        self._done = 0
        self._next = clock() + INTERVAL

    def advance(self) -> None:
        """Note that one more is done."""
        self._done += 1
        if self._clock() >= self._next:
            self._next = self._clock() + INTERVAL
            print(f"Asking the engines: {self._done} of {self._total} questions", file=self._out, flush=True)
