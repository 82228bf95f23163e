"""A request's body in, and an eye on whether its client is still there."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from gateway.http.context import NEVER, RequestContext
from gateway.http.errors import BodyTooLarge, ClientDisconnected, UnsupportedMedia

Receive = Callable[[], Awaitable[Any]]

BODY_TIMEOUT = 60.0  # for a client that sends its body piece by piece
JSON = b"application/json"


async def read_json(context: RequestContext, receive: Receive, limit: int) -> bytes:
    """Return the body of a JSON request. Raises UnsupportedMedia, BodyTooLarge, RequestTimeout, ClientDisconnected."""
    given = context.headers.get(b"content-type", JSON)
    kind = given.split(b";", 1)[0].strip().lower()
    if kind != JSON and not kind.endswith(b"+json"):
        raise UnsupportedMedia(f"Content-Type must be application/json, not {given.decode('latin-1')}.")
    return await read_body(context, receive, limit)


async def read_body(context: RequestContext, receive: Receive, limit: int) -> bytes:
    """Return the body of a request, of any kind."""
    coding = context.headers.get(b"content-encoding", b"identity")
    if coding != b"identity":
        raise UnsupportedMedia(f"Content-Encoding {coding.decode('latin-1')} is not supported.")
    declared = context.headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    context.patience = BODY_TIMEOUT
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest(context, receive, limit, body)
    elif message["type"] == "http.disconnect":
        raise ClientDisconnected
    context.patience = NEVER
    return body


async def _rest(context: RequestContext, receive: Receive, limit: int, first: bytes) -> bytes:
    pieces, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        context.heard = monotonic()
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes, the most that is taken here.")


class cancel_on_disconnect:
    """Within it, the request ends as soon as its client leaves, whatever it is waiting for.

    The watch begins when the request first waits: what is answered at once, from the cache, needs no task for it.
    """

    def __init__(self, context: RequestContext, receive: Receive) -> None:
        self._exchange = context
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self._beginning = context.task.get_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._watch = self._exchange.task.get_loop().create_task(_left(self._exchange, self._receive))

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self._beginning.cancel()
        if self._watch is not None:
            self._watch.cancel()


async def _left(context: RequestContext, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    context.stop(ClientDisconnected())
