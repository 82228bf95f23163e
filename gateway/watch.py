"""Keeps watch beside the requests: over the engines, and over everything that takes too long.

One coarse sweep over the open requests serves all deadlines and keep-alives; a timer set anew for every event
would cost more than the event.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from backends.base import BackendError
from gateway.catalog import Catalog, Target
from gateway.config import Timeouts
from gateway.errors import EngineFailed, PointsmanError
from gateway.exchange import Exchange
from gateway.upstream import Unreachable, Upstream

WHEN_UP = 5.0
WHEN_DOWN = 1.0
PATIENCE = 10.0

log = logging.getLogger("pointsman")


class Sweep:
    """The open requests. Each is ended when its time is over; each silent stream is kept alive."""

    def __init__(self, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self._keep_alive = timeouts.keep_alive
        self._clock = clock
        self._comments: set[asyncio.Task[None]] = set()
        self.open: set[Exchange] = set()

    async def run(self) -> None:
        """Look over the open requests several times in each keep-alive, at most twice a second."""
        while True:
            await asyncio.sleep(min(0.5, self._keep_alive / 4))
            self.look(self._clock())

    def look(self, now: float) -> None:
        """Look over the open requests once."""
        for exchange in list(self.open):
            exchange.check(now)
            if exchange.silence is not None and now - exchange.wrote >= self._keep_alive:
                exchange.wrote = now
                self._spawn(exchange.silence())

    def _spawn(self, comment: Awaitable[None]) -> None:
        """Write in a task of its own: a client that does not read must not hold up the others."""
        task = asyncio.ensure_future(comment)
        self._comments.add(task)
        task.add_done_callback(self._comments.discard)


class Prober:
    """Asks each engine what it serves: until it answers, and again and again after that."""

    def __init__(self, catalog: Catalog, upstream: Upstream) -> None:
        self._catalog = catalog
        self._upstream = upstream

    async def run(self, target: Target) -> None:
        """Ask one engine for ever."""
        while True:
            try:
                await self.ask(target)
            except Exception:  # whatever it is, the next engine and the next time must not suffer
                target.lost("it could not be asked: a fault of the gateway's")
                log.exception("asking %s failed", target.name)
            await asyncio.sleep(WHEN_UP if target.up else WHEN_DOWN)

    async def ask(self, target: Target) -> None:
        """Ask one engine once, and note what it says."""
        try:
            async with asyncio.timeout(PATIENCE):
                reply = await self._upstream.get(target, target.backend.facts_path)
                body = await reply.read()
            if reply.status != 200:
                failure = target.backend.failure(None, None, reply.status, reply.headers, body)
                raise EngineFailed(getattr(failure, "message", ""))
            served = target.backend.served(body)
        except Unreachable:
            return  # which has been noted
        except (PointsmanError, BackendError, TimeoutError) as error:
            target.lost(f"{target.url}{target.backend.facts_path} does not say what is served there: {_words(error)}")
            return
        if target.heard(served):
            self._catalog.refresh()


def _words(error: Exception) -> str:
    return error.message if isinstance(error, PointsmanError | BackendError) else f"no answer within {PATIENCE:.0f} s"
