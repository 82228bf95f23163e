"""What one flight reads, and one request's part in it (`gateway.cache.single_flight`).

A flight goes on when the request that began it has left, as long as others read it. So it has an account of its own,
which holds the places at the engines and is watched for silence like any other, and is no request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from backends.base import Call, Event
from backends.extras import with_extra
from backends.schema import Usage
from gateway.cache import entry as kept_answer
from gateway.cache.entry import CachedAnswer
from gateway.cache.lease import Lease
from gateway.cache.policy import Cache, CacheLookup
from gateway.cache.single_flight import FlightReader
from gateway.http.context import NEVER, RequestContext
from gateway.http.errors import ClientDisconnected
from gateway.proxy.dispatch import finish
from gateway.proxy.sources import Ready, Source, Through
from gateway.services import Services

Open = Callable[[RequestContext], Awaitable[Source]]


class SharedUpstream(Through):
    """The engines' answer, or what another gateway has come to meanwhile: then `kept` is there.

    It is made for each request that may share an answer, and opened by the one that leads.
    """

    def __init__(
        self, asked: CacheLookup, call: Call, leader: RequestContext, open_: Open, cache: Cache, services: Services
    ) -> None:
        super().__init__(Ready([], None))  # until it is open
        self.own = leader
        self.kept: CachedAnswer | None = None
        self._lease: Lease | None = None
        self._asked = asked
        self._call = call
        self._leader = leader
        self._open = open_
        self._cache = cache
        self._services = services

    async def open(self) -> "SharedUpstream":
        """Ask the engines, on an account of the flight's own. Raises PointsmanError."""
        task = asyncio.current_task()
        assert task is not None, "a flight has a task of its own"
        leader, services = self._leader, self._services
        self.own = leader.fork(task, services.clock())
        leader.cache, leader.attempts = "miss", self.own.attempts
        services.sweep.open.add(self.own)
        try:
            await self._begin()
        except (Exception, asyncio.CancelledError) as error:
            failure = self._failed(error)
            leader.answering = self.own.answering
            self.close()
            raise failure from error
        return self

    async def _begin(self) -> None:
        turn = await self._cache.turn(self._asked, self._call.stream)
        if isinstance(turn, Lease):
            self._lease = turn
        elif turn is not None and (ready := _ready(turn, self._call)) is not None:
            self._source, self.kept = ready, turn
            return
        self.own.since = self._services.clock()
        self._source = await self._open(self.own)

    async def read(self) -> Sequence[Event]:
        """Return the next batch. Raises PointsmanError."""
        self.own.patience = self._services.config.timeouts.between_events
        try:
            return await super().read()
        except (Exception, asyncio.CancelledError) as error:
            raise self._failed(error) from error

    def _failed(self, error: BaseException) -> BaseException:
        """Note why the flight ended; a cancellation that is not the gateway's doing: its last reader has left."""
        failure = self.own.ended_by(error)
        self.own.failure = ClientDisconnected() if isinstance(failure, asyncio.CancelledError) else failure
        return failure

    def keep(self, events: Sequence[Event], usage: Usage | None) -> None:
        """Keep the answer, unless it is one that was kept: it would be younger than it is."""
        if self.kept is None:
            self._cache.keep(self._asked, self._call, events, usage)

    def close(self) -> None:
        """Stop the engines' work, and give back what the flight holds."""
        super().close()
        finish(self.own, self._services)
        self._services.sweep.open.discard(self.own)
        if self._lease is not None:
            self._lease.release()


def _ready(kept: CachedAnswer, call: Call) -> Ready | None:
    """Return the source of a kept answer, if it has the form that the call wants."""
    if call.stream:
        events = kept_answer.as_events(kept, call)
        return Ready(events, kept.usage) if events else None
    completion = kept_answer.as_completion(kept, call)
    return Ready([with_extra(completion)], kept.usage) if completion else None


class Subscriber:
    """One request's part in a flight. The one that leads is answered by the flight's engine; for others the cache is.

    `now` is of the monotonic clock, `wall` Unix time, both in seconds.
    """

    def __init__(self, reader: FlightReader[SharedUpstream], context: RequestContext, now: float, wall: float) -> None:
        self._reader = reader
        self._exchange = context
        flown = reader.source
        context.heard = now
        if not reader.is_leader:
            context.cache = "coalesced"
        elif flown.kept is not None:
            context.cache, context.age = "hit", flown.kept.label.age(wall)
        else:
            context.adopt_from(flown.own)

    @property
    def usage(self) -> Usage | None:
        """The flight's."""
        return self._reader.usage

    @property
    def ended(self) -> bool:
        """Whether the flight has, and all of it has been read."""
        return self._reader.ended

    async def read(self) -> Sequence[Event]:
        """Return the next batch. Raises PointsmanError."""
        context = self._exchange
        context.patience = NEVER  # it is the flight that the engine keeps waiting
        events = await self._reader.read()
        context.heard = self._reader.source.own.heard
        return events

    def close(self) -> None:
        """Read no more."""
        self._reader.close()
