"""Step 6b: an answer that is kept is played again; one that another request waits for is shared; a new one is kept.

A flight goes on when the request that began it has left, as long as others read it; so it has an account of its own,
which holds the places at the engines, and is no request.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from backends.base import Call, Event
from backends.extras import laid
from backends.schema import Usage
from gateway.attempts import finish
from gateway.cache import entry as kept_answer
from gateway.cache.entry import Entry
from gateway.cache.lease import Lease
from gateway.cache.names import name_of
from gateway.cache.policy import Asked, Cache
from gateway.cache.single_flight import Reader
from gateway.door import JSON, Send, respond
from gateway.errors import ClientLeft
from gateway.exchange import Exchange
from gateway.services import Services
from gateway.source import Ready, Source
from gateway.stream import EVENTS, UNBUFFERED, PassedStream

Open = Callable[[Exchange], Awaitable[Source]]


async def played(kept: Entry, call: Call, exchange: Exchange, send: Send, services: Services) -> bool:
    """Answer with what is kept; return False if it has not the form that the call wants."""
    body = kept_answer.stream(kept, call) if call.stream else kept_answer.whole(kept, call)
    if body is None:
        return False
    exchange.cache, exchange.usage = "hit", kept.usage
    exchange.age = kept.label.age(services.wall())
    pace = services.config.cache.pace
    if not call.stream:
        await respond(exchange, send, services.clock(), 200, body, JSON)
    elif pace:
        await _paced(body, pace, PassedStream(exchange, send, services.clock))
    else:
        await respond(exchange, send, services.clock(), 200, body, EVENTS, tuple(UNBUFFERED))
    return True


async def _paced(body: bytes, pace: float, client: PassedStream) -> None:
    """Play a stream event by event."""
    *events, last, _ = body.split(b"\n\n")
    for event in events:
        await client.pass_on(event + b"\n\n")
        await asyncio.sleep(pace)
    await client.finish(last + b"\n\n")


async def shared(asked: Asked, call: Call, exchange: Exchange, open_: Open, cache: Cache, services: Services) -> Source:
    """Return the answer's source, which keeps it at its end. Raises PointsmanError.

    `open_` asks the engines; if an identical request is in flight, its answer is read along instead.
    """

    def keep(events: Sequence[Event], usage: Usage | None) -> None:
        cache.keep(asked, call, events, usage)

    if not asked.words.share:
        return Kept(await open_(exchange), keep)
    key = asked.digest + (b"\1" if call.stream else b"\0")
    reader = await cache.flights.join(key, call, lambda: _fly(asked, call, exchange, open_, cache, services), keep)
    return Followed(reader, exchange)


async def _fly(asked: Asked, call: Call, exchange: Exchange, open_: Open, cache: Cache, services: Services) -> "Flown":
    """Begin a flight; of several gateways one asks, and the others take what it has come to."""
    task = asyncio.current_task()
    assert task is not None, "a flight has a task of its own"
    own = exchange.apart(task)
    flown = Flown(own, services)
    try:
        turn = await _turn(asked, cache)
        if isinstance(turn, Entry) and (ready := _ready(turn, call)) is not None:
            flown.source = ready
        else:
            flown.lease = turn if isinstance(turn, Lease) else None
            flown.source = await open_(own)
    except (Exception, asyncio.CancelledError) as error:
        failure = flown.failed(error)
        flown.close()
        raise failure from error
    return flown


async def _turn(asked: Asked, cache: Cache) -> "Lease | Entry | None":
    if cache.leases is None:
        return None
    return await cache.leases.turn(
        name_of(asked.model, asked.digest), lambda: cache.store.shared(asked.digest, asked.model)
    )


def _ready(kept: Entry, call: Call) -> Ready | None:
    """Return the source of a kept answer, if it has the form that the call wants."""
    if call.stream:
        events = kept_answer.as_events(kept, call)
        return Ready(events, kept.usage) if events else None
    completion = kept_answer.as_completion(kept, call)
    return Ready([laid(completion)], kept.usage) if completion else None


class Kept:
    """A source that nobody shares, and whose answer is kept at its end."""

    def __init__(self, source: Source, keep: Callable[[Sequence[Event], Usage | None], None]) -> None:
        self._source = source
        self._keep = keep
        self._log: list[Event] = []

    @property
    def usage(self) -> Usage | None:
        """The source's."""
        return self._source.usage

    @property
    def ended(self) -> bool:
        """Whether the source has."""
        return self._source.ended

    async def read(self) -> Sequence[Event]:
        """Return the next batch; behind the last, keep all of them."""
        events = await self._source.read()
        self._log += events
        if self._log and (self._source.ended or not events):
            self._keep(self._log, self._source.usage)
            self._log = []
        return events

    def close(self) -> None:
        """Stop the engine's work."""
        self._source.close()


class Flown:
    """What a flight reads: the engines' source, on an account of its own."""

    def __init__(self, own: Exchange, services: Services) -> None:
        self.own = own
        self.source: Source = Ready([], None)
        self.lease: Lease | None = None
        self._services = services
        services.sweep.open.add(own)

    @property
    def usage(self) -> Usage | None:
        """The source's."""
        return self.source.usage

    @property
    def ended(self) -> bool:
        """Whether the source has."""
        return self.source.ended

    async def read(self) -> Sequence[Event]:
        """Return the next batch. Raises PointsmanError."""
        self.own.patience = self._services.config.timeouts.between_events
        try:
            return await self.source.read()
        except (Exception, asyncio.CancelledError) as error:
            raise self.failed(error) from error

    def failed(self, error: BaseException) -> BaseException:
        """Note why the flight ended; a cancellation that is not the gateway's doing: its last reader has left."""
        failure = self.own.ended_by(error)
        self.own.failure = ClientLeft() if isinstance(failure, asyncio.CancelledError) else failure
        return failure

    def close(self) -> None:
        """Stop the engines' work, and give back what the flight holds."""
        self.source.close()
        finish(self.own, self._services)
        self._services.sweep.open.discard(self.own)
        if self.lease is not None:
            self.lease.release()


class Followed:
    """One request's part in a flight: its own account learns who answers."""

    def __init__(self, reader: "Reader[Flown]", exchange: Exchange) -> None:
        self._reader = reader
        self._exchange = exchange
        exchange.cache = "miss" if reader.led else "coalesced"
        exchange.answering = reader.source.own.answering
        if reader.led:
            exchange.attempts = reader.source.own.attempts

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
        events = await self._reader.read()
        flown = self._reader.source.own
        self._exchange.heard, self._exchange.asked = flown.heard, self._exchange.asked or flown.asked
        return events

    def close(self) -> None:
        """Read no more."""
        self._reader.close()
