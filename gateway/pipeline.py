"""Step 4: one call, from the parsed request to the last byte of its answer. Reads straight down."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from backends import functions
from backends.base import Call, Completion
from backends.extras import lay
from backends.merge import merged
from gateway.catalog import Offer
from gateway.door import Send, respond
from gateway.engine import Asker, MergedSource, Source
from gateway.errors import PointsmanError
from gateway.exchange import Exchange
from gateway.routing import plan
from gateway.services import Services
from gateway.stream import ClientStream
from gateway.tokens import as_text
from gateway.upstream import Unreachable

PIN = b"x-pointsman-engine"

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode


async def serve(call: Call, exchange: Exchange, send: Send, services: Services) -> None:
    """Answer a call. Raises PointsmanError as long as nothing has been sent."""
    entry = services.catalog.find(call.model)
    call = msgspec.structs.replace(call, model=call.model or entry.name, beside_tgi=entry.beside_tgi)
    exchange.model = entry.name
    exchange.stream = call.stream
    if pin(exchange) == "tgi":
        call = await as_text(call, entry, exchange, services)
    offers = plan(call, entry, pin(exchange), services.random)
    if call.stream:
        await _stream(call, offers, exchange, send, services)
    else:
        await _whole(call, offers, exchange, send, services)


def pin(exchange: Exchange) -> str | None:
    """Return the engine that the client pinned."""
    value = exchange.headers.get(PIN)
    return None if value is None else value.decode("latin-1").strip()


async def _whole(call: Call, offers: list[Offer], exchange: Exchange, send: Send, services: Services) -> None:
    completion = await first_reachable(
        offers, lambda offer: _complete(_asker(call, offer, exchange, services), call, offer, exchange), exchange
    )
    answer = completion.answer
    exchange.usage = answer.usage
    if call.older:
        functions.answer(answer)
    body = _encode(lay(answer, completion.extra) if completion.extra else answer)
    await respond(exchange, send, services.clock(), 200, body)


async def _complete(asker: Asker, call: Call, offer: Offer, exchange: Exchange) -> Completion:
    requests = asker.backend.encode(call, offer.model)
    exchange.adapted = requests[0].adapted
    completions = await _together([asker.whole(request) for request in requests])
    return merged(completions, requests)


async def _stream(call: Call, offers: list[Offer], exchange: Exchange, send: Send, services: Services) -> None:
    client = ClientStream(exchange, send, services.clock)
    try:
        await _relay(call, offers, exchange, client, services)
    except (Exception, asyncio.CancelledError) as error:
        failure = exchange.ended_by(error)
        if not client.begun or not isinstance(failure, PointsmanError):
            client.close()
            raise failure from error
        await client.fail(failure)


async def _relay(call: Call, offers: list[Offer], exchange: Exchange, client: ClientStream, services: Services) -> None:
    timeouts = services.config.timeouts
    exchange.patience = timeouts.first_event
    source = await first_reachable(
        offers, lambda offer: _open(_asker(call, offer, exchange, services), call, offer, exchange), exchange
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


async def _open(asker: Asker, call: Call, offer: Offer, exchange: Exchange) -> Source:
    requests = asker.backend.encode(call, offer.model)
    exchange.adapted = requests[0].adapted
    sources = await _together([asker.stream(request) for request in requests])
    return sources[0] if len(sources) == 1 else MergedSource(sources, requests)


def _asker(call: Call, offer: Offer, exchange: Exchange, services: Services) -> Asker:
    exchange.target = offer.target
    return Asker(call, offer, exchange, services)


async def first_reachable(offers: list[Offer], attempt: Callable[[Offer], Awaitable[T]], exchange: Exchange) -> T:
    """Ask the first engine that can be reached: one that cannot has not seen the request.

    Once the client has its 200, whose headers name the engine, there is no other.
    """
    for offer in offers[:-1]:
        try:
            return await attempt(offer)
        except Unreachable:
            if exchange.status:
                raise
    return await attempt(offers[-1])


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
