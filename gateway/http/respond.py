"""A whole answer, or an error, to the client."""

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.http.body import JSON
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError

Send = Callable[[Any], Awaitable[None]]


async def respond(
    context: RequestContext,
    send: Send,
    now: float,
    status: int,
    body: bytes,
    kind: bytes = JSON,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Send a whole answer."""
    context.status = status
    head = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *headers]
    head += context.answer_headers(now)
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": b"" if context.method == "HEAD" else body})


async def respond_error(context: RequestContext, send: Send, now: float, error: PointsmanError) -> None:
    """Send an error in OpenAI's envelope."""
    headers = tuple((name.encode(), value.encode()) for name, value in error.headers.items())
    await respond(context, send, now, error.status, error.body(), headers=headers)
