"""Step 9: chunks to the client, as server-sent events.

The 200 goes out with the first batch, so that an engine that fails first can still be told with a status; or
after a silence, with a comment that keeps the connection alive: from then on an error is an event. A stream
that breaks ends without `[DONE]`, so that a client can tell it from a finished one. One write for each read.
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

Send = Callable[[Any], Awaitable[None]]

EVENTS = b"text/event-stream; charset=utf-8"
UNBUFFERED = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
GRACE = 1.0  # seconds
END = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


class EventStream:
    """The client's side of one stream. A comment may come between; what is said waits for it, and it for nothing."""

    keep_alive: ClassVar[bytes] = b": keep-alive\n\n"

    def __init__(self, context: RequestContext, send: Send, clock: Callable[[], float], kind: bytes = EVENTS) -> None:
        self._kind = kind
        self.begun = False
        self._ended = False
        self._exchange = context
        self._send = send
        self._clock = clock
        self._comment: asyncio.Future[None] | None = None  # that is being sent
        context.wrote = clock()
        context.silence = self.comment

    async def comment(self) -> None:
        """Tell a client that waits that the connection lives, unless something is being sent just now."""
        if not self._exchange.writing:
            self._comment = asyncio.ensure_future(self._send_now(self.keep_alive, self._exchange.heard))
            await self._comment

    def close(self) -> None:
        """Say nothing more: whoever closes it has told the client otherwise, or nobody is there."""
        self._ended = True
        self._exchange.silence = None

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error event and without `[DONE]`, if the client takes it within a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self._say(sse.event(error.body()), self._clock(), more=False)

    async def _say(self, data: bytes, now: float, more: bool = True) -> None:
        if self._comment is not None:
            await self._comment
            self._comment = None
        await self._send_now(data, now, more)

    async def _send_now(self, data: bytes, now: float, more: bool = True) -> None:
        if self._ended:
            return
        context = self._exchange
        context.writing = True  # while the client does not take it, the engine is not the one who is slow
        self._ended = not more
        if not self.begun:
            self.begun = True
            headers = [(b"content-type", self._kind), *UNBUFFERED, *context.answer_headers(now)]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
            context.status = 200
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        context.writing = False


class ClientStream(EventStream):
    """A stream of chunks."""

    async def write(self, events: Sequence[Event]) -> None:
        """Write the chunks of one read, at once."""
        self._exchange.wrote = now = self._clock()
        await self._say(framed(events), now)

    async def finish(self, call: Call, usage: Usage | None, events: Sequence[Event] = ()) -> None:
        """End the stream: the last chunks, the usage, if it was asked for, and `[DONE]`."""
        last = framed(events) if events else b""
        if call.include_usage and usage:
            last += sse.event(_encode(_usage_chunk(call, usage)))
        await self._say(last + END, self._clock(), more=False)


class RawEventStream(EventStream):
    """A stream that is passed on as it comes."""

    async def pass_on(self, data: bytes) -> None:
        """Write what came of the engine."""
        self._exchange.wrote = now = self._clock()
        await self._say(data, now)

    async def finish(self, data: bytes) -> None:
        """Write the last of it, and end."""
        await self._say(data, self._clock(), more=False)


def framed(events: Sequence[Event]) -> bytes:
    """Return the events as server-sent events. JSON has no raw line feed: each is the end of an event."""
    lines = _encoder.encode_lines(events)
    return b"data: " + lines[:-1].replace(b"\n", b"\n\ndata: ") + b"\n\n"


def _usage_chunk(call: Call, usage: Usage) -> Answer[Any]:
    kind = "chat.completion.chunk" if isinstance(call.view, ChatRequest) else "text_completion"
    return Answer(id=call.id, object=kind, created=call.created, model=call.model, choices=[], usage=usage)
