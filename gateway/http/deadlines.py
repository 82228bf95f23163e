"""Ends every open request whose time is over, and keeps silent streams alive.

One coarse sweep over the open requests serves all deadlines and keep-alives; a timer set anew for every event
would cost more than the event.
"""

import asyncio
from collections.abc import Awaitable, Callable

from gateway.config import TimeoutsConfig
from gateway.http.context import RequestContext


class DeadlineSweeper:
    """The open requests. Each is ended when its time is over; each silent stream is kept alive."""

    def __init__(self, timeouts: TimeoutsConfig, clock: Callable[[], float]) -> None:
        self.keep_alive = timeouts.keep_alive
        self._clock = clock
        self._comments: set[asyncio.Task[None]] = set()
        self.open: set[RequestContext] = set()

    def follow(self, timeouts: TimeoutsConfig) -> None:
        """Take over changed time-outs. Of these it reads `keep_alive`; the others are each request's own."""
        self.keep_alive = timeouts.keep_alive

    async def run(self) -> None:
        """Look over the open requests several times in each keep-alive, at least twice a second."""
        while True:
            await asyncio.sleep(min(0.5, self.keep_alive / 4))
            self.look(self._clock())

    def look(self, now: float) -> None:
        """Look over the open requests once."""
        for context in list(self.open):
            context.check(now)
            if context.silence is not None and now - context.wrote >= self.keep_alive:
                context.wrote = now
                self._spawn(context.silence())

    def _spawn(self, comment: Awaitable[None]) -> None:
        """Write in a task of its own: a client that does not read must not hold up the others."""
        task = asyncio.ensure_future(comment)
        self._comments.add(task)
        task.add_done_callback(self._comments.discard)
