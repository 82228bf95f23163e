"""An event loop whose clock jumps over every wait: an hour of sleeping takes no time, and sockets work as ever.

What is in the same loop and process (gateway, simulators, clients) talks over real sockets. Only when none of them has
anything to read or write does the clock go on, at once, to the next time that somebody waits for. So all that such a
loop measures is what was slept, to the microsecond, whatever the machine does meanwhile.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
TURN = 1e-7  # seconds that a turn of the loop takes: who looks at the clock again has to see it go on


class JumpingSelector(selectors.DefaultSelector):
    """Never waits: where nothing is ready, the time that was to be waited is added to `slept`, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.slept += TURN
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:  # nobody waits for a time: somebody outside the loop has to come
            return super().select(None)
        self.slept += max(timeout, 0.0)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop: its clock is what has been slept."""

    def __init__(self) -> None:
        self._jumping = JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.slept


def run_in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
