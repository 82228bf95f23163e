"""Step 9: chunks to the client, as server-sent events.

The 200 goes out with the first batch, so that an engine that fails first can still be told with a status; or
after a silence, with a comment that keeps the connection alive: from then on an error is an event. A stream
that breaks ends without `[DONE]`, so that a client can tell it from a finished one. One write for each read.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from backends import sse
from backends.base import Call, Event
from backends.schema import Answer, ChatRequest, Usage
from gateway.errors import PointsmanError
from gateway.exchange import Exchange

Send = Callable[[Any], Awaitable[None]]

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
KEEP_ALIVE = b": keep-alive\n\n"
END = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()
_encode = _encoder.encode


class ClientStream:
    """The client's side of one stream."""

    def __init__(self, exchange: Exchange, send: Send, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._send = send
        self._clock = clock
        self._comment: Awaitable[None] | None = None
        exchange.silence = self.comment

    async def begin(self) -> None:
        """Send the 200, if it has not been sent."""
        if self._exchange.status:
            return
        self._exchange.status = 200
        headers = HEADERS + self._exchange.answer_headers(self._clock())
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def comment(self) -> None:
        """Tell a client that waits that the connection lives."""
        await self.begin()
        await self._body(KEEP_ALIVE)

    async def write(self, events: Sequence[Event]) -> None:
        """Write the chunks of one read, at once."""
        exchange = self._exchange
        if not exchange.status:
            await self.begin()
        exchange.wrote = exchange.heard
        await self._body(framed(events))

    async def finish(self, call: Call, usage: Usage | None) -> None:
        """End the stream: the usage, if it was asked for, and `[DONE]`."""
        await self.begin()
        last = sse.event(_encode(_usage_chunk(call, usage))) if call.include_usage and usage else b""
        await self._body(last + END, more=False)

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error event and without `[DONE]`."""
        await self._body(sse.event(error.body()), more=False)

    async def _body(self, data: bytes, more: bool = True) -> None:
        if not more:
            self._exchange.silence = None
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def framed(events: Sequence[Event]) -> bytes:
    """Return the events as server-sent events. JSON has no raw line feed: each is the end of an event."""
    lines = _encoder.encode_lines(events)
    return b"data: " + lines[:-1].replace(b"\n", b"\n\ndata: ") + b"\n\n"


def _usage_chunk(call: Call, usage: Usage) -> Answer[Any]:
    kind = "chat.completion.chunk" if isinstance(call.view, ChatRequest) else "text_completion"
    return Answer(id=call.id, object=kind, created=call.created, model=call.model, choices=[], usage=usage)
