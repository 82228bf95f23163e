"""The client's side of one request: a whole answer, a stream, or an error, in OpenAI's words.

Other dialects differ in how they tell of errors and of silence: they derive from `Client` (`api.tgi.client`).
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from gateway.http.body import JSON
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.http.headers import answer_headers
from gateway.http.sse import ChunkStream, EventStream, RawEventStream

Send = Callable[[Any], Awaitable[None]]
S = TypeVar("S", bound=EventStream)


class Client:
    """Whoever sent one request, and is answered once. `clock` is monotonic."""

    def __init__(self, context: RequestContext, send: Send, clock: Callable[[], float]) -> None:
        self._context = context
        self._send = send
        self._clock = clock
        self._stream: EventStream | None = None

    def chunk_stream(self) -> ChunkStream:
        """Return the stream of OpenAI's chunks that answers the request."""
        return self._open(ChunkStream(self._context, self._send, self._clock))

    def raw_stream(self, kind: bytes) -> RawEventStream:
        """Return the stream that passes an engine's events on; `kind` is its content type."""
        return self._open(RawEventStream(self._context, self._send, self._clock, kind))

    async def respond(
        self, status: int, body: bytes, kind: bytes = JSON, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send a whole answer, in the place of a stream that has not begun."""
        self.close()
        context, now = self._context, self._clock()
        context.status = status
        context.timing.mark_answered(now)
        head = [(b"content-type", kind)] if kind else []  # an empty body may be of no kind
        head += [(b"content-length", b"%d" % len(body)), *headers, *answer_headers(context, now)]
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": b"" if context.method == "HEAD" else body})

    async def fail(self, error: PointsmanError) -> None:
        """Tell of an error: by its status, or as an event once a stream has begun."""
        if self._stream is not None and self._stream.begun:
            await self._stream.fail(error)
        elif not self._context.status:
            await self._refuse(error)

    def close(self) -> None:
        """Write nothing more to a stream: the client is told otherwise, or has left."""
        if self._stream is not None:
            self._stream.close()

    async def _refuse(self, error: PointsmanError) -> None:
        if error.passthrough_body is not None:
            status, body, kind = error.passthrough_body.status, error.passthrough_body.body, error.passthrough_body.kind
            await self.respond(status, body, kind, encoded(error.headers))
        else:
            await self.respond(error.status, error.body(), headers=encoded(error.headers))

    def _open(self, stream: S) -> S:
        self._stream = stream
        return stream


def encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]
