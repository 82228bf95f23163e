"""Step 4: one call, from the parsed request to the last byte of its answer. Reads straight down."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from backends import functions
from backends.base import Call, Completion
from backends.extras import laid
from backends.merge import merged
from gateway.access.auth import allow
from gateway.access.principal import Tier
from gateway.cache.middleware import played, shared
from gateway.cache.policy import Asked
from gateway.http.context import Exchange
from gateway.http.errors import PointsmanError
from gateway.http.respond import Send, respond
from gateway.http.sse import ClientStream
from gateway.proxy.detokenize import as_text
from gateway.proxy.dispatch import first_good
from gateway.proxy.engine_client import Asker, MergedSource, Older
from gateway.proxy.sources import Ready, Source
from gateway.routing import plan
from gateway.services import Services
from gateway.upstream.models import Entry, Offer

PIN = b"x-pointsman-engine"
FLEX = b'"flex"'

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


async def serve(call: Call, exchange: Exchange, send: Send, services: Services) -> None:
    """Answer a call. Raises PointsmanError as long as nothing has been sent."""
    entry = services.catalog.find(call.model)
    call = msgspec.structs.replace(call, model=call.model or entry.name, beside_tgi=entry.beside_tgi)
    exchange.model = entry.name
    allow(exchange.principal, entry.name)
    exchange.stream = call.stream
    if exchange.trace.notes is not None:
        exchange.trace.notes.call = call
    exchange.tier = tier(call.body.get("service_tier"), exchange)
    asked = await _cached(call, entry, exchange, send, services)
    if exchange.cache == "hit":
        return
    if pin(exchange) == "tgi":
        call = await as_text(call, entry, exchange, services)
    offers = plan(call, entry, pin(exchange), services.clock(), services.random)
    exchange.passed("route", services.clock())
    if call.stream:
        exchange.hedge_after = entry.settings.hedge_after
        await _stream(call, offers, asked, exchange, send, services)
    else:
        await _whole(call, offers, asked, exchange, send, services)


async def _cached(call: Call, entry: Entry, exchange: Exchange, send: Send, services: Services) -> Asked | None:
    """Answer with what is kept, if there is anything; return what else the call asks of the cache."""
    cache = services.cache
    if cache is None:
        return None
    asked = cache.asked(call, exchange.headers, exchange.principal.tenant, entry, pin(exchange) or "")
    exchange.cache = "miss" if asked is not None and asked.words.look else "bypass"
    kept = await cache.get(asked) if asked is not None else None
    now = services.clock()
    exchange.passed("cache", now)
    if kept is not None:
        await played(kept, call, exchange, send, cache, services)
    if exchange.trace.notes is not None:
        exchange.trace.notes.mark("cache", now, result=exchange.cache)
    return asked


def pin(exchange: Exchange) -> str | None:
    """Return the engine that the client pinned."""
    value = exchange.headers.get(PIN)
    return None if value is None else value.decode("latin-1").strip()


def tier(asked: Raw | None, exchange: Exchange) -> Tier:
    """Return the tier that a request waits in: what it asks for, and no better than its key's."""
    return "flex" if asked is not None and bytes(asked) == FLEX else exchange.principal.tier


async def _source(
    call: Call, offers: list[Offer], asked: Asked | None, exchange: Exchange, services: Services
) -> Source:
    """Return the source of the answer, its beginning read: the engines', or that of an identical request in flight."""
    open_ = partial(_opened if call.stream else _answered, call, offers, services)
    if asked is None or services.cache is None:
        return await open_(exchange)
    return await shared(asked, call, exchange, open_, services.cache, services)


async def _whole(
    call: Call, offers: list[Offer], asked: Asked | None, exchange: Exchange, send: Send, services: Services
) -> None:
    source = await _source(call, offers, asked, exchange, services)
    try:
        (answer,) = await source.read()
    finally:
        source.close()
    exchange.usage = source.usage
    if exchange.trace.notes is not None:
        exchange.trace.notes.hear([answer])
    await respond(exchange, send, services.clock(), 200, _encode(answer))


async def _answered(call: Call, offers: list[Offer], services: Services, exchange: Exchange) -> Source:
    completion = await first_good(
        offers, lambda attempt: _complete(Asker(call, attempt, exchange, services)), exchange, services
    )
    if call.older:
        functions.answer(completion.answer)
    return Ready([laid(completion)], completion.answer.usage)


async def _complete(asker: Asker) -> Completion:
    requests = asker.encoded()
    completions = await _together([asker.whole(request) for request in requests])
    return merged(completions, requests)


async def _stream(
    call: Call, offers: list[Offer], asked: Asked | None, exchange: Exchange, send: Send, services: Services
) -> None:
    client = ClientStream(exchange, send, services.clock)
    try:
        await _relay(call, await _source(call, offers, asked, exchange, services), exchange, client, services)
    except (Exception, asyncio.CancelledError) as error:
        failure = exchange.failure = exchange.ended_by(error)
        if not client.begun or not isinstance(failure, PointsmanError):
            client.close()
            raise failure from error
        await client.fail(failure)


async def _relay(call: Call, source: Source, exchange: Exchange, client: ClientStream, services: Services) -> None:
    exchange.first = exchange.heard
    notes = exchange.trace.notes
    try:
        exchange.patience = services.config.timeouts.between_events
        while events := await source.read():
            if notes is not None:
                notes.hear(events)
            if source.ended:
                break
            await client.write(events)
    finally:
        source.close()
    exchange.usage = source.usage
    await client.finish(call, source.usage, events)


async def _opened(call: Call, offers: list[Offer], services: Services, exchange: Exchange) -> Source:
    source = await first_good(
        offers,
        lambda attempt: _open(Asker(call, attempt, exchange, services)),
        exchange,
        services,
        services.config.timeouts.first_event,
    )
    return Older(source) if call.older else source


async def _open(asker: Asker) -> Source:
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
