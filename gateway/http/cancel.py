"""Ends what a task waits for, from outside and for a reason: the client left, the time is over, the gateway ends.

A reason is told apart from any other cancellation where the scope ends, and nowhere else: a request's in `lifecycle`,
a sub-request's in `proxy.subrequest`. An idle time-out (`deadlines.IdleTimer`) is no such reason: it ends one wait, and
is raised there.
"""

import asyncio
from contextlib import suppress

from gateway.http.errors import ClientDisconnected, EngineTimeout, PointsmanError, ShuttingDown

Reason = PointsmanError | ClientDisconnected

# The later one wins: nobody needs an answer, or another attempt, once the client has left.
RANKS = (EngineTimeout, ShuttingDown, ClientDisconnected)


class CancelScope:
    """One task, and why it was cancelled, if it was by `cancel`."""

    __slots__ = ("reason", "task")

    def __init__(self, task: "asyncio.Task[object]") -> None:
        self.task = task
        self.reason: Reason | None = None

    def cancel(self, reason: Reason) -> None:
        """Cancel the task; of several reasons the one of the highest rank stays."""
        if self.reason is None:
            self.reason = reason
            self.task.cancel()
        elif _rank(reason) > _rank(self.reason):
            self.reason = reason

    def explain(self, error: BaseException) -> BaseException:
        """Return the reason if the error is the cancellation that `cancel` asked for, else the error itself."""
        return self.reason if self.reason is not None and isinstance(error, asyncio.CancelledError) else error

    async def leave(self, error: BaseException) -> BaseException:
        """Return what an error means at the scope's end: the reason, if there is one.

        The task is not cancelled any more then, unless an outer scope asks for it, too: a request's cancellation
        passes through the scope of a sub-request in the same task.
        """
        if self.reason is None:
            return error
        if not isinstance(error, asyncio.CancelledError):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # where the cancellation that was asked for arrives
        return asyncio.CancelledError() if self.task.uncancel() else self.reason


def _rank(reason: Reason) -> int:
    return next(rank for rank, kind in enumerate(RANKS) if isinstance(reason, kind))
