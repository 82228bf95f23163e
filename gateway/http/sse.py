"""Chunks to the client, as server-sent events (WHATWG HTML, section 9.2).

The 200 goes out with the first batch, so that an engine that fails first can still be told with a status; or
after a silence, with a comment that keeps the connection alive: from then on an error is an event. That 200 does not
name an engine, as any may answer yet. A stream that breaks ends without `[DONE]`, so that a client can tell it from a
finished one. One write for each read.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import msgspec

from backends import sse
from backends.base import Call, Event
from backends.schema import Answer, ChatRequest, Usage
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.http.headers import Headers, answer_headers, early_headers

Send = Callable[[Any], Awaitable[None]]

EVENTS = b"text/event-stream; charset=utf-8"
UNBUFFERED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
GRACE = 1.0  # seconds, in which a client may take the error that ends its stream
END = b"data: [DONE]\n\n"
BLANK_LINES = (b"\n\n", b"\n\r\n", b"\r\r")  # which end an event, in bytes, with the end of the line before
MAX_BLANK_LINE = max(map(len, BLANK_LINES))

_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


class EventStream:
    """The client's side of one stream. Data frames wait for a keep-alive in progress; keep-alives never wait.

    `keep_alive` is what a stream of this kind says in a silence; `between_events` is whether it may be said now.
    """

    keep_alive: ClassVar[bytes] = b": keep-alive\n\n"
    between_events = True

    def __init__(self, context: RequestContext, send: Send, clock: Callable[[], float], kind: bytes = EVENTS) -> None:
        self.kind = kind  # its content type, which may be changed until it has begun
        self.begun = False
        self.wrote_at = clock()
        self._ended = False
        self._context = context
        self._send = send
        self._clock = clock
        self.writing = False
        self._comment: asyncio.Future[None] | None = None  # that is being sent
        context.open_stream = self

    async def comment(self) -> None:
        """Tell a client that waits that the connection lives, unless something is being sent just now."""
        if not self.writing and self.between_events:
            self._comment = asyncio.ensure_future(self._say_alive())
            await self._comment

    def close(self) -> None:
        """Write nothing more: the client has been told otherwise, or has left."""
        self._ended = True
        self._context.open_stream = None

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error event and without `[DONE]`, if the client takes it within a moment."""
        await self._end_within_grace(self.error_event(error))

    def error_event(self, error: PointsmanError) -> bytes:
        """Return an error as an event of the API that the client speaks."""
        return sse.event(error.body())

    def own_headers(self) -> Headers:
        """Return the headers that the answers of this API have besides."""
        return []

    async def _end_within_grace(self, data: bytes) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._say(data, self._clock(), more=False)

    async def _say_alive(self) -> None:
        if self._ended:
            return
        self.writing = True
        if not self.begun:
            await self._begin(self._context.timing.received_at, early_headers)
        await self._send({"type": "http.response.body", "body": self.keep_alive, "more_body": True})
        self.writing = False

    async def _say(self, data: bytes, now: float, more: bool = True) -> None:
        if self._comment is not None:
            await self._comment
            self._comment = None
        if self._ended:
            return
        self.writing = True
        self._ended = not more
        if not self.begun:
            await self._begin(now, answer_headers)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self.writing = False

    async def _begin(self, now: float, headers_of: Callable[[RequestContext, float], Headers]) -> None:
        self.begun = True
        self._context.timing.mark_answered(now)
        headers = [(b"content-type", self.kind), *UNBUFFERED, *headers_of(self._context, now), *self.own_headers()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._context.status = 200


class ChunkStream(EventStream):
    """A stream of OpenAI's chunks."""

    async def write(self, events: Sequence[Event]) -> None:
        """Write the chunks of one read, at once."""
        self.wrote_at = now = self._clock()
        await self._say(framed(events), now)

    async def finish(self, call: Call, usage: Usage | None, events: Sequence[Event] = ()) -> None:
        """End the stream: the last chunks, the usage, if it was asked for, and `[DONE]`."""
        last = framed(events) if events else b""
        if call.include_usage and usage:
            last += sse.event(_encode(_usage_chunk(call, usage, self._context)))
        await self._say(last + END, self._clock(), more=False)


class RawEventStream(EventStream):
    """A stream that is passed on as it comes, be it in parts of events."""

    _last = b""  # of what was written

    async def pass_on(self, data: bytes) -> None:
        """Write what came of the engine."""
        self.wrote_at = now = self._clock()
        self._last = (self._last + data)[-MAX_BLANK_LINE:]
        self.between_events = self._last.endswith(BLANK_LINES)
        await self._say(data, now)

    async def finish(self, data: bytes) -> None:
        """Write the last of it, and end."""
        await self._say(data, self._clock(), more=False)

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error event of its own, be it after the part of another."""
        await self._end_within_grace((b"" if self.between_events else b"\n\n") + self.error_event(error))


def framed(events: Sequence[Event | bytes]) -> bytes:
    """Return chunks as server-sent events; those that were copied are that already."""
    if len(events) == 1 and isinstance(events[0], bytes):
        return events[0]
    if not any(isinstance(event, bytes) for event in events):
        return _framed(events)
    return b"".join([event if isinstance(event, bytes) else _framed([event]) for event in events])


def _framed(chunks: Sequence[Event | bytes]) -> bytes:
    """Return chunks as server-sent events. JSON has no raw line feed: each is the end of an event."""
    lines = _encoder.encode_lines(chunks)
    return b"data: " + lines[:-1].replace(b"\n", b"\n\ndata: ") + b"\n\n"


def _usage_chunk(call: Call, usage: Usage, context: RequestContext) -> Answer[Any]:
    kind = "chat.completion.chunk" if isinstance(call.view, ChatRequest) else "text_completion"
    chunk: Answer[Any] = Answer(
        id=call.id, object=kind, created=call.created, model=call.model, choices=[], usage=usage
    )
    if context.answering is not None:
        chunk.system_fingerprint = context.answering.candidate.system_fingerprint
    return chunk
