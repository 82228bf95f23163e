"""A call asked of one engine in its dialect, and asked again where the dialect says so; failures become errors.

Whole answers come back as a Completion. Streams come back as a Source, which is read batch by batch: the chunks
of one read from the engine. A stream may take several requests (TGI's pieces of 1,024 tokens), and a request that
was not streamed is a source too (TGI's tools: `backends.convert` makes chunks of the whole answer), as a streamed one
can be a whole answer (TGI's stop strings).
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from backends import estimate, functions
from backends.base import BackendError, Call, Cause, Completion, Decoder, Event, FollowUp, UpstreamRequest
from backends.choices import merged
from backends.convert import as_chunks, assembled
from backends.estimate import Written
from backends.extras import with_extra
from backends.named import names_fields, with_nulls
from backends.schema import Usage
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import EngineFailed, PointsmanError, from_backend
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.sources import LegacyFunctions, MergedSource, NamedFields, Ready, Source
from gateway.proxy.template import with_template
from gateway.services import Services
from gateway.upstream.client import Reply

MAX_REQUESTS = 256  # for one answer; the dialects stop long before
LAST_WORDS = 2.0  # seconds, in which the usage may come after the last choice's finish reason, and the end of the body

T = TypeVar("T")


async def open_whole(call: Call, attempt: Attempt, context: RequestContext, services: Services) -> Source:
    """Return a whole answer, of all choices, as the source of one batch. Raises PointsmanError."""
    call = await _for_engine(call, attempt, context, services)
    requests = _encoded(call, attempt)
    limit = services.config.timeouts.silence(streamed=False)
    clients = [CallClient(call, attempt, context, services, limit) for _ in requests]
    asked = [client.whole(request) for client, request in zip(clients, requests, strict=True)]
    completion = merged(await _together(asked), requests)
    if call.legacy_functions:
        functions.answer(completion.answer)
    answer = with_extra(completion)
    return Ready([with_nulls(call, answer) if names_fields(call) else answer], completion.answer.usage)


async def open_stream(
    call: Call, attempt: Attempt, context: RequestContext, services: Services, only_relays: bool = False
) -> Source:
    """Return the source of an answer's chunks, the first batch of each choice read. Raises PointsmanError.

    `only_relays`: nobody but the client looks into the chunks, so that they may be copied as they are written.
    """
    call = await _for_engine(call, attempt, context, services)
    requests = _encoded(call, attempt)
    timeouts = services.config.timeouts
    only_relays = only_relays and len(requests) == 1 and not call.legacy_functions and not names_fields(call)
    clients = [CallClient(call, attempt, context, services, timeouts.first_event, only_relays) for _ in requests]
    asked = [client.stream(request, timeouts.between_events) for client, request in zip(clients, requests, strict=True)]
    sources = await _together(asked)
    source: Source = sources[0] if len(sources) == 1 else MergedSource(sources, requests)
    source = LegacyFunctions(source) if call.legacy_functions else source
    return NamedFields(source, call) if names_fields(call) else source


async def _for_engine(call: Call, attempt: Attempt, context: RequestContext, services: Services) -> Call:
    """Return the call with what is known of the engine that is asked. Raises PointsmanError."""
    call = msgspec.structs.replace(call, system_fingerprint=attempt.candidate.system_fingerprint or None)
    return await with_template(call, attempt, context, services) if call.tools_in_prompt else call


def _encoded(call: Call, attempt: Attempt) -> list[UpstreamRequest]:
    """Return what to send; the attempt holds what was adapted."""
    candidate = attempt.candidate
    requests = candidate.endpoint.backend.encode(call, candidate.model)
    attempt.adapted = requests[0].adapted
    return requests


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


class CallClient(EngineClient):
    """Asks an engine for a call, or for one of its choices."""

    def __init__(
        self,
        call: Call,
        attempt: Attempt,
        context: RequestContext,
        services: Services,
        limit: float,
        only_relays: bool = False,
    ) -> None:
        super().__init__(attempt, context, services, limit)
        self.call = call
        self.only_relays = only_relays

    async def whole(self, request: UpstreamRequest) -> Completion:
        """Return the whole answer to one request. Raises PointsmanError."""
        for _ in range(MAX_REQUESTS):
            answer = await (self._collected(request) if request.stream else self._once(request))
            if isinstance(answer, Completion):
                return answer
            request = answer.request
        raise too_often()

    async def stream(self, request: UpstreamRequest, between_events: float) -> "EngineSource":
        """Return the source of one request's chunks, its first batch read.

        From then on the engine may be silent for `between_events` seconds. Raises PointsmanError.
        """
        source = EngineSource(self, request)
        try:
            await source.begin()
        except BaseException:
            source.close()
            raise
        self.timer.limit = between_events
        return source

    def judge(self, request: UpstreamRequest, reply: Reply, body: bytes) -> Completion | FollowUp:
        """Return what an answer that is not 200 comes to. Raises PointsmanError."""
        failure = self.backend.failure(self.call, request, reply.status, reply.headers, body)
        if isinstance(failure, BackendError):
            raise from_backend(failure) from failure
        return failure

    async def _once(self, request: UpstreamRequest) -> Completion | FollowUp:
        reply = await self.post(request.path, request.body)
        try:
            body = await self.read(reply)
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


async def _last_words(reply: Reply) -> bytes:
    """Return what comes after the answer is complete; an engine that says no more, or breaks off, is at its end."""
    try:
        async with asyncio.timeout(LAST_WORDS):
            return await reply.chunk()
    except (TimeoutError, EngineFailed):
        return b""


def too_often() -> PointsmanError:
    """Return the error of an engine that is asked again and again and does not come to an end."""
    return from_backend(BackendError(Cause.FAILED, "The engine did not come to an answer."))


class EngineSource:
    """An engine's answer as chunks, over as many requests as it takes."""

    def __init__(self, client: CallClient, request: UpstreamRequest) -> None:
        self.usage: Usage | None = None
        self.ended = False
        self._client = client
        self._request: UpstreamRequest | None = request  # to be sent; None at the end
        self._sent = 0
        self._reply: Reply | None = None
        self._decoder: Decoder | None = None
        self._first: Sequence[Event] = ()
        self._written = Written()
        self._prompt_tokens = -1
        self._usage_so_far: Usage | None = None

    async def begin(self) -> None:
        """Read the first batch, so that a failure before it can still be told by a status."""
        self._first = await self.read()

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        if self._first:
            events, self._first = self._first, ()
            return events
        while self._decoder is not None or self._request is not None:
            if self._decoder is None or self._reply is None:
                events = await self._ask()
            else:
                events = await self._listen(self._decoder, self._reply)
            if events:
                self._written.add(events)
                return events
        return ()

    def worked(self) -> Usage | None:
        """Return the engine's own figures, the last ones that have come; what they do not count is estimated."""
        written = self._written.tokens
        if self.usage is not None:
            return estimate.whole(self.usage, written)
        said = self._usage_so_far if self._decoder is None else self._decoder.usage
        return estimate.so_far(said, written, self._prompt_tokens)

    async def _ask(self) -> Sequence[Event]:
        """Send the next request; where its answer is no stream, return the chunks of it."""
        request, self._request = self._request, None
        assert request is not None, "there is something to send"
        self._sent += 1
        if self._sent > MAX_REQUESTS:
            raise too_often()
        self._prompt_tokens = request.continuation.prompt_tokens or -1
        client = self._client
        if not request.stream:
            return self._take(await client.whole(request))
        reply = self._reply = await client.post(request.path, request.body)
        if reply.status != 200:
            return self._take(client.judge(request, reply, await client.read(reply)))
        decoder = self._decoder = client.backend.decoder(client.call, request)
        if client.only_relays:
            decoder.copy_alike(self._written.note)
        return ()

    async def _listen(self, decoder: Decoder, reply: Reply) -> Sequence[Event]:
        """Return the next batch of the stream that is open; at its end, what follows from how it ended."""
        client = self._client
        timing, clock, timer = client.timing, client.clock, client.timer
        while not decoder.finished and decoder.failure is None:
            if decoder.answered:
                data = await _last_words(reply)
            else:
                with timer:  # not by `client.chunk`: one call less for each event
                    data = await reply.chunk()
            timing.received_at = clock()
            if events := decoder.feed(data) if data else decoder.end():
                client.endpoint.heard(timing.received_at)
                if decoder.finished:  # in the same read, so that the end can go out in the same write
                    self._end(decoder, reply)
                return events
        failure = decoder.failure
        if failure is None:
            self._end(decoder, reply)
            return ()
        self._decoder, self._usage_so_far = None, decoder.usage
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
