"""A clock that a test sets: however busy the machine is, no more time passes than the test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.support.harness import settled


class Clock:
    """Seconds of a monotonic clock. It stands still, until a test adds to `now`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def running(clock: Clock, step: float = 0.005) -> AsyncIterator[None]:
    """Let time pass with the turns of the event loop: what runs in it sees less of it on a busy machine, not more."""

    async def run() -> None:
        while True:
            await asyncio.sleep(step)
            clock.now += step

    task = asyncio.ensure_future(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def pass_until(clock: Clock, holds: Callable[[], Any], step: float = 10.0) -> None:
    """Let time pass, `step` seconds at a time, until a condition holds; what is under way arrives in between."""
    await settled()
    for _ in range(100):
        if holds():
            return
        clock.now += step
        await settled()
    raise AssertionError(f"it did not come to that within {100 * step:g} s")
