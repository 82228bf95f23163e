"""Step 4: one call, from the parsed request to the last byte of its answer. Reads straight down."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from backends import functions
from backends.base import Call, Completion
from backends.extras import lay
from backends.merge import merged
from gateway.attempts import first_good
from gateway.auth import allow
from gateway.catalog import Offer
from gateway.door import Send, respond
from gateway.engine import Asker, MergedSource, Source
from gateway.errors import PointsmanError
from gateway.exchange import Exchange
from gateway.principal import Tier
from gateway.routing import plan
from gateway.services import Services
from gateway.stream import ClientStream
from gateway.tokens import as_text

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
    exchange.tier = tier(call, exchange)
    if pin(exchange) == "tgi":
        call = await as_text(call, entry, exchange, services)
    offers = plan(call, entry, pin(exchange), services.clock(), services.random)
    if call.stream:
        exchange.hedge_after = entry.settings.hedge_after
        await _stream(call, offers, exchange, send, services)
    else:
        await _whole(call, offers, exchange, send, services)


def pin(exchange: Exchange) -> str | None:
    """Return the engine that the client pinned."""
    value = exchange.headers.get(PIN)
    return None if value is None else value.decode("latin-1").strip()


def tier(call: Call, exchange: Exchange) -> Tier:
    """Return the tier that a request waits in: what it asks for, and no better than its key's."""
    asked = call.body.get("service_tier")
    return "flex" if asked is not None and bytes(asked) == FLEX else exchange.principal.tier


async def _whole(call: Call, offers: list[Offer], exchange: Exchange, send: Send, services: Services) -> None:
    completion = await first_good(
        offers, lambda attempt: _complete(Asker(call, attempt, exchange, services)), exchange, services
    )
    answer = completion.answer
    exchange.usage = answer.usage
    if call.older:
        functions.answer(answer)
    body = _encode(lay(answer, completion.extra) if completion.extra else answer)
    await respond(exchange, send, services.clock(), 200, body)


async def _complete(asker: Asker) -> Completion:
    requests = asker.encoded()
    completions = await _together([asker.whole(request) for request in requests])
    return merged(completions, requests)


async def _stream(call: Call, offers: list[Offer], exchange: Exchange, send: Send, services: Services) -> None:
    client = ClientStream(exchange, send, services.clock)
    try:
        await _relay(call, offers, exchange, client, services)
    except (Exception, asyncio.CancelledError) as error:
        failure = exchange.failure = exchange.ended_by(error)
        if not client.begun or not isinstance(failure, PointsmanError):
            client.close()
            raise failure from error
        await client.fail(failure)


async def _relay(call: Call, offers: list[Offer], exchange: Exchange, client: ClientStream, services: Services) -> None:
    timeouts = services.config.timeouts
    source = await first_good(
        offers,
        lambda attempt: _open(Asker(call, attempt, exchange, services)),
        exchange,
        services,
        timeouts.first_event,
    )
    try:
        exchange.patience = timeouts.between_events
        while events := await source.read():
            events = functions.events(events) if call.older else events
            if source.ended:
                break
            await client.write(events)
    finally:
        source.close()
    exchange.usage = source.usage
    await client.finish(call, source.usage, events)


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
