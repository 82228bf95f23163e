"""A request's body in, and an eye on whether its client is still there."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from gateway.http.cancel import CancelScope
from gateway.http.context import ClientEnd, RequestContext
from gateway.http.deadlines import IdleTimer
from gateway.http.errors import BodyTooLarge, ClientDisconnected, RequestTimeout, UnsupportedMedia

Receive = Callable[[], Awaitable[Any]]

BODY_TIMEOUT = 60.0  # seconds, for each piece of a body
JSON = b"application/json"


async def read_json(context: RequestContext, receive: Receive, limit: int, clock: Callable[[], float]) -> bytes:
    """Return the body of a JSON request, of at most `limit` bytes.

    Raises UnsupportedMedia, BodyTooLarge, RequestTimeout, ClientDisconnected.
    """
    content_type = context.headers.get(b"content-type", JSON)
    if content_type != JSON:
        kind = content_type.split(b";", 1)[0].strip().lower()
        if kind != JSON and not kind.endswith(b"+json"):
            raise UnsupportedMedia(f"Content-Type must be application/json, not {content_type.decode('latin-1')}.")
    return await read_body(context, receive, limit, clock)


async def read_body(context: RequestContext, receive: Receive, limit: int, clock: Callable[[], float]) -> bytes:
    """Return the body of a request, of any kind; raises as `read_json` does."""
    coding = context.headers.get(b"content-encoding", b"identity")
    if coding != b"identity":
        raise UnsupportedMedia(f"Content-Encoding {coding.decode('latin-1')} is not supported.")
    declared = context.headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    timer = IdleTimer(BODY_TIMEOUT, clock, _stalled)
    context.idle_timers.append(timer)
    try:
        context.body = await _collect(receive, limit, timer)
        return context.body
    finally:
        context.idle_timers.remove(timer)


async def _collect(receive: Receive, limit: int, timer: IdleTimer) -> bytes:
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        with timer:
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        piece = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        pieces.append(piece)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _stalled(_: float) -> RequestTimeout:
    return RequestTimeout("The request did not come in time.")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes, the most that is taken here.")


def cancel_on_disconnect(context: RequestContext, receive: Receive) -> AbstractContextManager[None]:
    """Return a context in which the request ends as soon as its client leaves, whatever it is waiting for."""
    if context.client_end is not None:
        return _ToldByServer(context.scope, context.client_end)
    return _Listening(context.scope, receive)


class _ToldByServer:
    """The server tells when the client has left."""

    def __init__(self, scope: CancelScope, client: ClientEnd) -> None:
        self._scope = scope
        self._client = client

    def _left(self) -> None:
        self._scope.cancel(ClientDisconnected())

    def __enter__(self) -> None:
        self._client.on_left = self._left
        if self._client.left:
            self._left()

    def __exit__(self, *error: object) -> None:
        self._client.on_left = None


class _Listening:
    """Any ASGI server: a task listens.

    It begins when the request first waits: what is answered at once, from the cache, needs no task for it.
    """

    def __init__(self, scope: CancelScope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._listener: asyncio.Task[None] | None = None
        self._beginning = scope.task.get_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._listener = self._scope.task.get_loop().create_task(_listen(self._scope, self._receive))

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self._beginning.cancel()
        if self._listener is not None:
            self._listener.cancel()


async def _listen(scope: CancelScope, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel(ClientDisconnected())
