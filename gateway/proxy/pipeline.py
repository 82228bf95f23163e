"""Step 4: one call, from the parsed request to the last byte of its answer. Reads straight down."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from backends import functions
from backends.base import Call, Completion
from backends.extras import with_extra
from backends.merge import merged
from gateway.access.auth import allow
from gateway.access.principal import Tier
from gateway.cache.middleware import played, shared
from gateway.cache.policy import CacheLookup
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.http.respond import Send, respond
from gateway.http.sse import ClientStream
from gateway.proxy.detokenize import as_text
from gateway.proxy.dispatch import first_good
from gateway.proxy.engine_client import EngineClient, MergedSource, Older
from gateway.proxy.sources import Ready, Source
from gateway.routing import plan
from gateway.services import Services
from gateway.upstream.models import Candidate, ModelRoute

PIN = b"x-pointsman-engine"
FLEX = b'"flex"'

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


async def serve(call: Call, context: RequestContext, send: Send, services: Services) -> None:
    """Answer a call. Raises PointsmanError as long as nothing has been sent."""
    route = services.catalog.find(call.model)
    call = msgspec.structs.replace(call, model=call.model or route.name, beside_tgi=route.beside_tgi)
    context.model = route.name
    allow(context.principal, route.name)
    context.stream = call.stream
    if context.trace.notes is not None:
        context.trace.notes.call = call
    context.tier = tier(call.body.get("service_tier"), context)
    asked = await _cached(call, route, context, send, services)
    if context.cache == "hit":
        return
    if pin(context) == "tgi":
        call = await as_text(call, route, context, services)
    candidates = plan(call, route, pin(context), services.clock(), services.random)
    context.mark_stage("route", services.clock())
    if call.stream:
        context.hedge_after = route.settings.hedge_after
        await _stream(call, candidates, asked, context, send, services)
    else:
        await _whole(call, candidates, asked, context, send, services)


async def _cached(
    call: Call, route: ModelRoute, context: RequestContext, send: Send, services: Services
) -> CacheLookup | None:
    """Answer with what is kept, if there is anything; return what else the call asks of the cache."""
    cache = services.cache
    if cache is None:
        return None
    asked = cache.asked(call, context.headers, context.principal.tenant, route, pin(context) or "")
    context.cache = "miss" if asked is not None and asked.control.lookup else "bypass"
    kept = await cache.get(asked) if asked is not None else None
    now = services.clock()
    context.mark_stage("cache", now)
    if kept is not None:
        await played(kept, call, context, send, cache, services)
    if context.trace.notes is not None:
        context.trace.notes.mark("cache", now, result=context.cache)
    return asked


def pin(context: RequestContext) -> str | None:
    """Return the engine that the client pinned."""
    value = context.headers.get(PIN)
    return None if value is None else value.decode("latin-1").strip()


def tier(asked: Raw | None, context: RequestContext) -> Tier:
    """Return the tier that a request waits in: what it asks for, and no better than its key's."""
    return "flex" if asked is not None and bytes(asked) == FLEX else context.principal.tier


async def _source(
    call: Call, candidates: list[Candidate], asked: CacheLookup | None, context: RequestContext, services: Services
) -> Source:
    """Return the source of the answer, its beginning read: the engines', or that of an identical request in flight."""
    open_ = partial(_opened if call.stream else _answered, call, candidates, services)
    if asked is None or services.cache is None:
        return await open_(context)
    return await shared(asked, call, context, open_, services.cache, services)


async def _whole(
    call: Call,
    candidates: list[Candidate],
    asked: CacheLookup | None,
    context: RequestContext,
    send: Send,
    services: Services,
) -> None:
    source = await _source(call, candidates, asked, context, services)
    try:
        (answer,) = await source.read()
    finally:
        source.close()
    context.usage = source.usage
    if context.trace.notes is not None:
        context.trace.notes.hear([answer])
    await respond(context, send, services.clock(), 200, _encode(answer))


async def _answered(call: Call, candidates: list[Candidate], services: Services, context: RequestContext) -> Source:
    completion = await first_good(
        candidates, lambda attempt: _complete(EngineClient(call, attempt, context, services)), context, services
    )
    if call.older:
        functions.answer(completion.answer)
    return Ready([with_extra(completion)], completion.answer.usage)


async def _complete(asker: EngineClient) -> Completion:
    requests = asker.encoded()
    completions = await _together([asker.whole(request) for request in requests])
    return merged(completions, requests)


async def _stream(
    call: Call,
    candidates: list[Candidate],
    asked: CacheLookup | None,
    context: RequestContext,
    send: Send,
    services: Services,
) -> None:
    client = ClientStream(context, send, services.clock)
    try:
        await _relay(call, await _source(call, candidates, asked, context, services), context, client, services)
    except (Exception, asyncio.CancelledError) as error:
        failure = context.failure = context.ended_by(error)
        if not client.begun or not isinstance(failure, PointsmanError):
            client.close()
            raise failure from error
        await client.fail(failure)


async def _relay(call: Call, source: Source, context: RequestContext, client: ClientStream, services: Services) -> None:
    context.first = context.heard
    notes = context.trace.notes
    try:
        context.patience = services.config.timeouts.between_events
        while events := await source.read():
            if notes is not None:
                notes.hear(events)
            if source.ended:
                break
            await client.write(events)
    finally:
        source.close()
    context.usage = source.usage
    await client.finish(call, source.usage, events)


async def _opened(call: Call, candidates: list[Candidate], services: Services, context: RequestContext) -> Source:
    source = await first_good(
        candidates,
        lambda attempt: _open(EngineClient(call, attempt, context, services)),
        context,
        services,
        services.config.timeouts.first_event,
    )
    return Older(source) if call.older else source


async def _open(asker: EngineClient) -> Source:
    requests = asker.encoded()
    sources = await _together([asker.stream(request) for request in requests])
    return sources[0] if len(sources) == 1 else MergedSource(sources, requests)


async def _together(asked: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Ask for several things at once; if one fails, none of the others is kept."""
    if len(asked) == 1:
        return [await asked[0]]
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if hasattr(done, "close"):
                done.close()
        raise
