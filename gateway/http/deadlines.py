"""Ends every open request whose time is over, and keeps silent streams alive.

One coarse sweep over the open requests serves all deadlines, idle time-outs and keep-alives; a timer of the event loop
set anew for every event would cost more than the event.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from gateway.config import TimeoutsConfig
from gateway.http.errors import EngineTimeout, PointsmanError

if TYPE_CHECKING:
    from gateway.http.context import OpenStream, RequestContext

MAX_INTERVAL = 0.5  # seconds between two looks


Silence = Callable[[float], PointsmanError]
GiveUp = Callable[[], PointsmanError | None]


def never() -> None:
    """Give no wait up before its time."""


class IdleTimer:
    """How long one side may be silent while it is waited for: an engine, for one of its answers, or the client's body.

    `with timer:` around each wait. When a wait takes longer than `limit` seconds the sweep ends it, and it raises what
    `silence` returns for the limit. What goes on between two waits, such as writing to a slow client, does not count.
    `give_up` may end a wait before its time, by an error that it returns.
    """

    __slots__ = ("_clock", "_error", "_give_up", "_silence", "_task", "limit", "since")

    def __init__(self, limit: float, clock: Callable[[], float], silence: Silence, give_up: GiveUp = never) -> None:
        self.limit = limit
        self._clock = clock
        self._silence = silence
        self._give_up = give_up
        self.since = 0.0
        self._task: asyncio.Task[object] | None = None  # that waits
        self._error: PointsmanError | None = None  # by which its wait is ended

    def __enter__(self) -> None:
        self.since = self._clock()
        self._task = asyncio.current_task()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        task, self._task = self._task, None
        ended, self._error = self._error, None
        if task is None or ended is None:
            return
        others = task.uncancel()  # who else wants the task cancelled goes first
        if kind is asyncio.CancelledError and not others:
            raise ended from error

    def check(self, now: float) -> None:
        """End the wait, if it has taken too long, or is given up."""
        if self._task is None or self._error is not None:
            return
        self._error = self._silence(self.limit) if now - self.since > self.limit else self._give_up()
        if self._error is not None:
            self._task.cancel()


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
            await asyncio.sleep(min(MAX_INTERVAL, self.keep_alive / 4))
            self.look(self._clock())

    def look(self, now: float) -> None:
        """Look over the open requests once."""
        for context in list(self.open):
            if now > context.timing.deadline:
                context.scope.cancel(EngineTimeout("The answer was not complete in time."))
            for timer in context.idle_timers:
                timer.check(now)
            stream = context.open_stream
            if stream is not None and now - _silent_since(context, stream) >= self.keep_alive:
                stream.wrote_at = now
                self._spawn(stream.comment())

    def _spawn(self, comment: Awaitable[None]) -> None:
        """Write in a task of its own: a client that does not read must not hold up the others."""
        task = asyncio.ensure_future(comment)
        self._comments.add(task)
        task.add_done_callback(self._comments.discard)


def _silent_since(context: "RequestContext", stream: "OpenStream") -> float:
    """Return since when a client waits for a sign of life, by the monotonic clock.

    Before its stream has begun that is only while an engine is at work, never in the queue: who finds no room is told
    so by a status.
    """
    if stream.begun:
        return stream.wrote_at
    attempts = context.attempts if context.leaders_attempts is None else context.leaders_attempts
    places_since = min((attempt.began for attempt in attempts if not attempt.ended), default=math.inf)
    return max(stream.wrote_at, places_since)
