"""The cache's steps: a kept answer is played again; one that another request waits for is shared; a new one is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from backends.base import Call, Event
from backends.schema import Usage
from gateway.cache import entry as kept_answer
from gateway.cache.coalesce import SharedUpstream, Subscriber
from gateway.cache.entry import CachedAnswer
from gateway.cache.policy import CacheLookup
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.sse import EVENTS, UNBUFFERED, RawEventStream
from gateway.proxy.sources import Source, Through
from gateway.services import Services
from gateway.upstream.models import ModelRoute


def look_up(
    call: Call | None, route: ModelRoute, pin: str | None, context: RequestContext, services: Services
) -> CacheLookup | None:
    """Return what a call asks of the cache; None if there is no cache, or nothing for it to do."""
    cache = services.cache
    if cache is None or call is None:
        return None
    arm = context.assignment.cache_arm if context.assignment is not None else ""
    lookup = cache.asked(call, context.headers, context.principal.tenant, route, pin or "", arm)
    context.cache = "miss" if lookup is not None and lookup.control.lookup else "bypass"
    return lookup


async def answer_from_cache(
    lookup: CacheLookup | None, call: Call | None, context: RequestContext, client: Client, services: Services
) -> bool:
    """Answer with what is kept; return whether there was anything in the form that the call wants."""
    cache = services.cache
    if cache is None or call is None:
        return False
    kept = await cache.get(lookup) if lookup is not None else None
    now = services.clock()
    context.timing.mark_stage("cache", now)
    played = kept is not None and await _replay(kept, call, context, client, services)
    if context.trace.notes is not None:
        context.trace.notes.mark("cache", now, result=context.cache)
    return played


async def _replay(kept: CachedAnswer, call: Call, context: RequestContext, client: Client, services: Services) -> bool:
    body = kept_answer.stream(kept, call) if call.stream else kept_answer.whole(kept, call)
    if body is None:
        return False
    context.cache, context.usage = "hit", kept.usage
    context.age = kept.label.age(services.wall())
    pace = services.config.cache.pace
    if not call.stream:
        await client.respond(200, body)
    elif pace:
        await _replay_paced(body, pace, client.raw_stream(EVENTS))
    else:
        await client.respond(200, body, EVENTS, UNBUFFERED)
    return True


async def _replay_paced(body: bytes, pace: float, stream: RawEventStream) -> None:
    """Play a stream event by event."""
    *events, last, _ = body.split(b"\n\n")
    for event in events:
        await stream.pass_on(event + b"\n\n")
        await asyncio.sleep(pace)
    await stream.finish(last + b"\n\n")


async def shared(
    lookup: CacheLookup | None,
    call: Call | None,
    context: RequestContext,
    ask_engines: Callable[[RequestContext], Awaitable[Any]],
    services: Services,
) -> Any:
    """Return the engines' answer, or that to an identical request in flight; where it may be kept, it is at its end.

    Identical in its tier, too, so that nobody waits for room in the queue of a lower one. Raises PointsmanError.
    """
    cache = services.cache
    if cache is None or call is None or lookup is None:
        return await ask_engines(context)
    if not lookup.control.coalesce:
        return Kept(await ask_engines(context), partial(cache.keep, lookup, call))
    context.cache = "coalesced"  # until it leads
    upstream = SharedUpstream(lookup, call, context, ask_engines, cache, services)
    key = lookup.digest + (b"\1" if call.stream else b"\0") + context.tier.encode()
    reader = await cache.flights.join(key, call, upstream, lambda joined: joined.serve(context))
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
