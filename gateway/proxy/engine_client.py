"""Step 8: one engine asked one thing, and asked again where the dialect says so; failures become errors.

Whole answers come back as a Completion. Streams come back as a Source, which is read batch by batch: the chunks
of one read from the engine. A stream may take several requests (TGI's pieces of 1,024 tokens), and a request that
was not streamed is a source too (TGI's tools), as a streamed one can be a whole answer (TGI's stop strings).
"""

import asyncio
from collections.abc import Sequence

from backends import functions
from backends.base import BackendError, Call, Cause, Completion, Decoder, Event, FollowUp, UpstreamRequest
from backends.merge import as_chunks, assembled, merged_usage
from backends.schema import Usage
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import PointsmanError, from_backend
from gateway.proxy.sources import Source, Through
from gateway.services import Services
from gateway.upstream.connection import Reply

MAX_REQUESTS = 256  # for one answer; the dialects stop long before


class EngineClient:
    """Asks the engine of one attempt for one call."""

    def __init__(self, call: Call, attempt: Attempt, context: RequestContext, services: Services) -> None:
        self.call = call
        self.attempt = attempt
        self.backend = attempt.candidate.endpoint.backend
        self.context = context
        self.clock = services.clock
        self._endpoint = attempt.candidate.endpoint
        self._upstream = services.upstream
        place = context.attempts.index(attempt)
        self._headers = {"x-request-id": call.request_id, **context.trace.headers(place, self._endpoint.engine)}

    def encoded(self) -> list[UpstreamRequest]:
        """Return what to send; the attempt holds what was adapted."""
        requests = self.backend.encode(self.call, self.attempt.candidate.model)
        self.attempt.adapted = requests[0].adapted
        return requests

    async def send(self, request: UpstreamRequest) -> Reply:
        """Send one request; return the head of its answer."""
        context = self.context
        context.heard = self.clock()
        context.asked = context.asked or context.heard
        reply = await self._upstream.post(self._endpoint, request.path, request.body, self._headers)
        context.heard = self.clock()
        return reply

    async def whole(self, request: UpstreamRequest) -> Completion:
        """Return the whole answer to one request. Raises PointsmanError."""
        for _ in range(MAX_REQUESTS):
            answer = await (self._collected(request) if request.stream else self._once(request))
            if isinstance(answer, Completion):
                return answer
            request = answer.request
        raise too_often()

    async def stream(self, request: UpstreamRequest) -> "EngineSource":
        """Return the source of one request's chunks, its first batch read. Raises PointsmanError."""
        source = EngineSource(self, request)
        try:
            await source.begin()
        except BaseException:
            source.close()
            raise
        return source

    def judge(self, request: UpstreamRequest, reply: Reply, body: bytes) -> Completion | FollowUp:
        """Return what an answer that is not 200 comes to. Raises PointsmanError."""
        failure = self.backend.failure(self.call, request, reply.status, reply.headers, body)
        if isinstance(failure, BackendError):
            raise from_backend(failure) from failure
        return failure

    async def _once(self, request: UpstreamRequest) -> Completion | FollowUp:
        reply = await self.send(request)
        try:
            body = await reply.read()
            self.context.heard = self.clock()
        finally:
            reply.close()
        if reply.status != 200:
            return self.judge(request, reply, body)
        try:
            return self.backend.decode(self.call, request, reply.headers, body)
        except BackendError as error:
            raise from_backend(error) from error

    async def _collected(self, request: UpstreamRequest) -> Completion:
        source = EngineSource(self, request)
        events: list[Event] = []
        try:
            while batch := await source.read():
                events += batch
        finally:
            source.close()
        return assembled(self.call, events, source.usage)


def too_often() -> PointsmanError:
    """Return the error of an engine that is asked again and again and does not come to an end."""
    return from_backend(BackendError(Cause.FAILED, "The engine did not come to an answer."))


class EngineSource:
    """An engine's answer as chunks, over as many requests as it takes."""

    def __init__(self, asker: EngineClient, request: UpstreamRequest) -> None:
        self.usage: Usage | None = None
        self.ended = False
        self._asker = asker
        self._request: UpstreamRequest | None = request  # to be sent; None at the end
        self._asked = 0
        self._reply: Reply | None = None
        self._decoder: Decoder | None = None
        self._first: Sequence[Event] = ()

    async def begin(self) -> None:
        """Read the first batch, so that a failure before it can still be told by a status."""
        self._first = await self._next()

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        if self._first:
            events, self._first = self._first, ()
            return events
        return await self._next()

    async def _next(self) -> Sequence[Event]:
        while self._decoder is not None or self._request is not None:
            if self._decoder is None or self._reply is None:
                events = await self._ask()
            else:
                events = await self._listen(self._decoder, self._reply)
            if events:
                return events
        return ()

    async def _ask(self) -> Sequence[Event]:
        """Send the next request; where its answer is no stream, return the chunks of it."""
        request, self._request = self._request, None
        assert request is not None, "there is something to send"
        self._asked += 1
        if self._asked > MAX_REQUESTS:
            raise too_often()
        if not request.stream:
            return self._take(await self._asker.whole(request))
        reply = self._reply = await self._asker.send(request)
        if reply.status != 200:
            return self._take(self._asker.judge(request, reply, await reply.read()))
        self._decoder = self._asker.backend.decoder(self._asker.call, request)
        return ()

    async def _listen(self, decoder: Decoder, reply: Reply) -> Sequence[Event]:
        """Return the next batch of the stream that is open; at its end, what follows from how it ended."""
        context, clock = self._asker.context, self._asker.clock
        while not decoder.finished and decoder.failure is None:
            data = await reply.chunk()
            context.heard = clock()
            if not data:
                decoder.end()
            elif events := decoder.feed(data):
                if decoder.finished:  # in the same read, so that the end can go out in the same write
                    self._end(decoder, reply)
                return events
        failure = decoder.failure
        if failure is None:
            self._end(decoder, reply)
            return ()
        self._decoder = None
        if isinstance(failure, BackendError):
            raise from_backend(failure) from failure
        return self._take(failure)

    def _end(self, decoder: Decoder, reply: Reply) -> None:
        self._decoder = None
        self.ended = True
        self.usage = decoder.usage
        reply.release()

    def _take(self, answer: Completion | FollowUp) -> Sequence[Event]:
        if self._reply is not None:
            self._reply.close()
        if isinstance(answer, FollowUp):
            self._request = answer.request
            return ()
        self.usage = answer.answer.usage
        return as_chunks(answer)

    def close(self) -> None:
        """Stop the engine, if it is still at work."""
        if self._reply is not None and not self.ended:
            self._reply.close()


class Older(Through):
    """A source whose chunks say functions for tools, as the client did."""

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        return functions.events(await super().read())


class MergedSource:
    """Several sources read side by side; chunks come as they come, each with its choice's index."""

    def __init__(self, sources: Sequence[Source], requests: list[UpstreamRequest]) -> None:
        self.usage: Usage | None = None
        self.ended = False
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
