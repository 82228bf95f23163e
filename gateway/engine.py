"""One engine asked one thing: send, ask again where the dialect says so, turn failures into errors.

Whole answers come back as a Completion. Streams come back as a Source, which is read batch by batch: the chunks
of one read from the engine. There are three: an engine's own stream, a whole answer cut into chunks (TGI's
answers to tools), and several of those read side by side (`n`, and several prompts, on TGI).
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from backends.base import Again, BackendError, Call, Cause, Completion, Decoder, Event, UpstreamRequest
from backends.merge import as_chunks, merged_usage
from backends.schema import Usage
from gateway.catalog import Offer
from gateway.errors import from_backend
from gateway.exchange import Exchange
from gateway.services import Services
from gateway.upstream import Reply

MOST_AGAIN = 4

NOT_IN_SO_MANY = BackendError(Cause.FAILED, "The engine did not come to an answer.")


class Asker:
    """Asks one offer's engine for one call."""

    def __init__(self, call: Call, offer: Offer, exchange: Exchange, services: Services) -> None:
        self.call = call
        self.target = offer.target
        self.backend = offer.target.backend
        self.exchange = exchange
        self.upstream = services.upstream
        self.clock = services.clock
        self.headers = {"x-request-id": call.request_id}

    async def send(self, request: UpstreamRequest) -> Reply:
        """Send one request; return the head of its answer."""
        began = self.clock()
        reply = await self.upstream.post(self.target, request.path, request.body, self.headers)
        now = self.clock()
        self.exchange.waited += now - began
        self.exchange.heard = now
        return reply

    async def whole(self, request: UpstreamRequest) -> Completion:
        """Return the whole answer to one request. Raises PointsmanError."""
        for _ in range(MOST_AGAIN):
            answer = await self._whole_once(request)
            if isinstance(answer, Completion):
                return answer
            request = answer.request
        raise from_backend(NOT_IN_SO_MANY)

    async def _whole_once(self, request: UpstreamRequest) -> Completion | Again:
        reply = await self.send(request)
        try:
            began = self.clock()
            body = await reply.read()
            self.exchange.waited += self.clock() - began
        finally:
            reply.close()
        try:
            if reply.status == 200:
                return self.backend.decode(self.call, request, reply.headers, body)
        except BackendError as error:
            raise from_backend(error) from error
        return self._judge(request, reply, body)

    def _judge(self, request: UpstreamRequest, reply: Reply, body: bytes) -> Completion | Again:
        failure = self.backend.failure(self.call, request, reply.status, reply.headers, body)
        if isinstance(failure, BackendError):
            raise from_backend(failure) from failure
        return failure

    async def stream(self, request: UpstreamRequest) -> "Source":
        """Return the source of the chunks that answer one request, its first batch read. Raises PointsmanError."""
        if not request.stream:
            return WholeSource(await self.whole(request))
        for _ in range(MOST_AGAIN):
            source = await self._stream_once(request)
            if not isinstance(source, Again):
                return source
            request = source.request
        raise from_backend(NOT_IN_SO_MANY)

    async def _stream_once(self, request: UpstreamRequest) -> "Source | Again":
        reply = await self.send(request)
        try:
            if reply.status != 200:
                judged = self._judge(request, reply, await reply.read())
                return WholeSource(judged) if isinstance(judged, Completion) else judged
            source = EngineSource(reply, self.backend.decoder(self.call, request), self)
            first = await source.begin()
        except BaseException:
            reply.close()
            raise
        if first is not source:
            reply.close()
        return first


class Source(Protocol):
    """Where a client's chunks come from. `usage` is known at the end."""

    usage: Usage | None

    async def read(self) -> Sequence[Event]:
        """Return the next batch, never empty; at the end, an empty one. Raises PointsmanError."""
        ...

    def close(self) -> None:
        """Stop the engine's work, if it is not done."""
        ...


class EngineSource:
    """An engine's stream, decoded."""

    def __init__(self, reply: Reply, decoder: Decoder, asker: Asker) -> None:
        self.usage: Usage | None = None
        self._reply = reply
        self._decoder = decoder
        self._asker = asker
        self._first: Sequence[Event] | None = None

    async def begin(self) -> "Source | Again":
        """Read the first batch; return this source, or what is to be done instead of it."""
        began = self._asker.clock()
        self._first = await self._next()
        self._asker.exchange.waited += self._asker.clock() - began
        failure = self._decoder.failure
        if self._first or failure is None:
            return self
        if isinstance(failure, BackendError):
            raise from_backend(failure) from failure
        return failure if isinstance(failure, Again) else WholeSource(failure)

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        if self._first:
            events, self._first = self._first, None
            return events
        events = await self._next()
        if not events:
            self._check()
        return events

    async def _next(self) -> Sequence[Event]:
        decoder = self._decoder
        exchange = self._asker.exchange
        while not decoder.finished and decoder.failure is None:
            data = await self._reply.chunk()
            exchange.heard = self._asker.clock()
            if not data:
                decoder.end()
            elif events := decoder.feed(data):
                return events
        return ()

    def _check(self) -> None:
        failure = self._decoder.failure
        if failure is not None:
            raise from_backend(failure if isinstance(failure, BackendError) else NOT_IN_SO_MANY)
        self.usage = self._decoder.usage

    def close(self) -> None:
        """Give the connection back if the stream was read to its end; otherwise close it."""
        self._reply.release() if self._decoder.finished else self._reply.close()


class WholeSource:
    """A whole answer as chunks."""

    def __init__(self, completion: Completion) -> None:
        self.usage = completion.answer.usage
        self._events: Sequence[Event] = as_chunks(completion)

    async def read(self) -> Sequence[Event]:
        """Return all chunks at once, then nothing."""
        events, self._events = self._events, ()
        return events

    def close(self) -> None:
        """Do nothing: the answer is here."""


class MergedSource:
    """Several sources read side by side; chunks come as they come, each with its choice's index."""

    def __init__(self, sources: list[Source], requests: list[UpstreamRequest]) -> None:
        self.usage: Usage | None = None
        self._sources = sources
        self._requests = requests
        self._reads: dict[asyncio.Task[Sequence[Event]], Source] = {
            asyncio.ensure_future(source.read()): source for source in sources
        }

    async def read(self) -> Sequence[Event]:
        """Return the batch of whichever source has one first."""
        while self._reads:
            done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
            events: list[Event] = []
            for task in done:
                source = self._reads.pop(task)
                batch = task.result()
                if batch:
                    events += batch
                    self._reads[asyncio.ensure_future(source.read())] = source
            if events:
                return events
        self.usage = merged_usage([source.usage for source in self._sources], self._requests)
        return ()

    def close(self) -> None:
        """Stop all of them."""
        for task in self._reads:
            task.cancel()
        for source in self._sources:
            source.close()
