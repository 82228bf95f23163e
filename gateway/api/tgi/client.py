"""The client's side of TGI's own API: a whole answer, a stream, or an error, as TGI's router writes them."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

from gateway.api.tgi.errors import told
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.http.respond import Send, respond
from gateway.http.sse import GRACE, RawEventStream

EVENTS = "text/event-stream"
COMMENT = b":\n\n"


class TgiEventStream(RawEventStream):
    """A stream of TGI's: its errors are events of its own, and so is its silence."""

    keep_alive = COMMENT

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error, if the client takes it within a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self.finish(told(error).event)


class Client:
    """Whoever sent one request, and is answered once."""

    def __init__(self, context: RequestContext, send: Send, clock: Callable[[], float]) -> None:
        self._exchange = context
        self._send = send
        self._clock = clock
        self._stream: TgiEventStream | None = None

    def stream(self) -> TgiEventStream:
        """Begin to be a stream, unless it is one already: from now on errors are events."""
        if self._stream is None:
            self._exchange.stream = True
            self._stream = TgiEventStream(self._exchange, self._send, self._clock, EVENTS.encode())
        return self._stream

    async def respond(self, status: int, body: bytes, kind: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole answer, in place of a stream if that was to be."""
        if self._stream is not None:
            self._stream.close()
        await respond(self._exchange, self._send, self._clock(), status, body, kind, tuple(headers))

    async def tell(self, error: PointsmanError) -> None:
        """Tell of an error: as an event in a stream, which TGI begins before it knows of any."""
        said = told(error)
        if error.passthrough_body is not None and not self._exchange.status:
            await self.respond(error.passthrough_body.status, error.passthrough_body.body, error.passthrough_body.kind)
        elif self._stream is not None and said.event:
            await self._stream.fail(error)
        elif not self._exchange.status:
            headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await self.respond(said.status, said.body, said.kind, headers)
