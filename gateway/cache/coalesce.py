"""What identical requests in flight share, and one request's part in it (`gateway.cache.single_flight`).

What is shared goes on when the request that began it has left, as long as others read it. So it is a sub-request, with
a context of its own, which holds the permits at the engines, and whose deadline is that of its longest reader.
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
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import ClientDisconnected
from gateway.proxy.sources import Ready, Source, Through
from gateway.proxy.subrequest import SubRequest
from gateway.services import Services

AskEngines = Callable[[RequestContext], Awaitable[Source]]


class SharedUpstream(Through):
    """The engines' answer, or what another gateway has come to meanwhile: then `kept` is there.

    It is made for each request that may share an answer, and opened by the one that leads.
    """

    def __init__(
        self,
        lookup: CacheLookup,
        call: Call,
        leader: RequestContext,
        ask_engines: AskEngines,
        cache: Cache,
        services: Services,
    ) -> None:
        super().__init__(Ready([], None))  # until it is open
        self.kept: CachedAnswer | None = None
        self.closed = False
        self._after: list[Callable[[], None]] = []
        self._lease: Lease | None = None
        self._lookup = lookup
        self._call = call
        self._leader = leader
        self._ask_engines = ask_engines
        self._cache = cache
        self._services = services
        self._sub_request: SubRequest | None = None
        self._attempts: list[Attempt] = []
        self._deadline = 0.0  # of the reader that has the longest

    def serve(self, reader: RequestContext) -> None:
        """Take a request in that waits for the answer: it has a time of its own, and sees who is asked."""
        reader.leaders_attempts = self._attempts
        self._deadline = max(self._deadline, reader.timing.deadline)
        if self._sub_request is not None:
            self.context.timing.deadline = self._deadline

    @property
    def context(self) -> RequestContext:
        """What is shared has its own, once it is open."""
        assert self._sub_request is not None, "open() comes first"
        return self._sub_request.context

    async def open(self) -> None:
        """Ask the engines, in the task that this is called in. Raises PointsmanError."""
        self._sub_request = SubRequest(self._leader.path, self._leader, self._services)
        leader = self._leader
        self.context.timing.deadline = self._deadline
        self.context.attempts = leader.attempts = self._attempts
        leader.cache, leader.leads = "miss", self
        try:
            await self._begin()
        except (Exception, asyncio.CancelledError) as error:
            failure = await self._failed(error)
            self.close()
            raise failure from error

    async def _begin(self) -> None:
        turn = await self._cache.turn(self._lookup, self._call.stream)
        if isinstance(turn, Lease):
            self._lease = turn
        elif turn is not None and (ready := _ready(turn, self._call)) is not None:
            self._source, self.kept = ready, turn
            return
        self.context.timing.stage_started_at = self._services.clock()
        self._source = await self._ask_engines(self.context)

    async def read(self) -> Sequence[Event]:
        """Return the next batch. Raises PointsmanError."""
        try:
            return await super().read()
        except (Exception, asyncio.CancelledError) as error:
            raise await self._failed(error) from error

    async def _failed(self, error: BaseException) -> BaseException:
        """Note why it ended; a cancellation that is not the gateway's doing: its last reader has left."""
        failure = await self.context.scope.leave(error)
        self.context.failure = ClientDisconnected() if isinstance(failure, asyncio.CancelledError) else failure
        return failure

    def keep(self, events: Sequence[Event], usage: Usage | None) -> None:
        """Keep the answer, unless it is one that was kept: it would be younger than it is."""
        if self.kept is None:
            self._cache.keep(self._lookup, self._call, events, usage)

    def when_closed(self, then: Callable[[], None]) -> None:
        """Have this done once the work is over: the leader's account is settled then, if it has left."""
        self._after.append(then)

    def close(self) -> None:
        """Stop the engines' work, give back what is held, and note in the leader's account who worked, and what."""
        super().close()
        if self._sub_request is not None:
            self._sub_request.close(self.context.failure)
        if self._lease is not None:
            self._lease.release()
        leader = self._leader
        leader.answering = leader.answering or self.context.answering
        if self.kept is None:
            leader.usage = self.worked() or self.context.usage
        self.closed = True
        for then in self._after:
            then()
        self._after.clear()


def _ready(kept: CachedAnswer, call: Call) -> Ready | None:
    """Return the source of a kept answer, if it has the form that the call wants."""
    if call.stream:
        events = kept_answer.as_events(kept, call)
        return Ready(events, kept.usage) if events else None
    completion = kept_answer.as_completion(kept, call)
    return Ready([with_extra(completion)], kept.usage) if completion else None


class Subscriber:
    """One request's part in it. The one that leads is answered by the engine; for others the cache is.

    `now` is of the monotonic clock, `wall` Unix time, both in seconds.
    """

    def __init__(self, reader: FlightReader[SharedUpstream], context: RequestContext, now: float, wall: float) -> None:
        self._reader = reader
        self._context = context
        upstream = reader.source
        context.timing.received_at = now
        if not reader.is_leader:
            context.cache = "coalesced"
        elif upstream.kept is not None:
            context.cache, context.age = "hit", upstream.kept.label.age(wall)
        else:
            context.adopt_from(upstream.context)

    @property
    def usage(self) -> Usage | None:
        """What the engine has counted."""
        return self._reader.usage

    @property
    def ended(self) -> bool:
        """Whether the answer has, and all of it has been read."""
        return self._reader.ended

    async def read(self) -> Sequence[Event]:
        """Return the next batch. Raises PointsmanError."""
        events = await self._reader.read()
        self._context.timing.received_at = self._reader.source.context.timing.received_at
        return events

    def worked(self) -> Usage | None:
        """Return what has been worked: for the one that leads as far as it came, for others at the end.

        Those are answered with it, and do not pay for it.
        """
        return self._reader.source.worked() if self._reader.is_leader else self._reader.usage

    def close(self) -> None:
        """Read no more."""
        self._reader.close()
