"""Step 6b: an answer that is kept is played again; one that another request waits for is shared; a new one is kept."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from backends.base import Call, Event
from backends.schema import Usage
from gateway.cache import entry as kept_answer
from gateway.cache.coalesce import Open, SharedUpstream, Subscriber
from gateway.cache.entry import CachedAnswer
from gateway.cache.policy import Cache, CacheLookup
from gateway.http.body import JSON
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.http.respond import Send, respond
from gateway.http.sse import EVENTS, UNBUFFERED, RawEventStream
from gateway.proxy.sources import Source, Through
from gateway.services import Services


async def played(
    kept: CachedAnswer, call: Call, context: RequestContext, send: Send, cache: Cache, services: Services
) -> bool:
    """Answer with what is kept; return False if it has not the form that the call wants."""
    body = kept_answer.stream(kept, call) if call.stream else kept_answer.whole(kept, call)
    if body is None:
        return False
    context.cache, context.usage = "hit", kept.usage
    context.age = kept.label.age(services.wall())
    pace = cache.settings.pace
    if not call.stream:
        await respond(context, send, services.clock(), 200, body, JSON)
    elif pace:
        await _paced(body, pace, context, RawEventStream(context, send, services.clock))
    else:
        await respond(context, send, services.clock(), 200, body, EVENTS, tuple(UNBUFFERED))
    return True


async def _paced(body: bytes, pace: float, context: RequestContext, client: RawEventStream) -> None:
    """Play a stream event by event."""
    *events, last, _ = body.split(b"\n\n")
    try:
        for event in events:
            await client.pass_on(event + b"\n\n")
            await asyncio.sleep(pace)
    except asyncio.CancelledError as error:
        failure = context.failure = context.ended_by(error)
        if not isinstance(failure, PointsmanError):
            raise failure from error
        await client.fail(failure)
    await client.finish(last + b"\n\n")


async def shared(
    asked: CacheLookup, call: Call, context: RequestContext, open_: Open, cache: Cache, services: Services
) -> Source:
    """Return the answer's source, which keeps it at its end. Raises PointsmanError.

    `open_` asks the engines; if an identical request is in flight, its answer is read along instead. Identical in its
    tier, too, so that nobody waits for room in the queue of a lower one.
    """
    if not asked.control.coalesce:
        return Kept(await open_(context), partial(cache.keep, asked, call))
    context.cache = "coalesced"  # until it leads
    flown = SharedUpstream(asked, call, context, open_, cache, services)
    key = asked.digest + (b"\1" if call.stream else b"\0") + context.tier.encode()
    reader = await cache.flights.join(key, call, flown.open, flown.keep)
    return Subscriber(reader, context, services.clock(), services.wall())


class Kept(Through):
    """A source that nobody shares, and whose answer is kept at its end."""

    def __init__(self, source: Source, keep: Callable[[Sequence[Event], Usage | None], None]) -> None:
        super().__init__(source)
        self._keep = keep
        self._log: list[Event] = []

    async def read(self) -> Sequence[Event]:
        """Return the next batch; behind the last, keep all of them."""
        events = await super().read()
        self._log += events
        if self._log and (self.ended or not events):
            self._keep(self._log, self.usage)
            self._log = []
        return events
