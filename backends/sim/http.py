"""The little of ASGI that the simulators need: read a body, send an answer whole or as events, notice who left."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from contextlib import aclosing
from typing import Any

import msgspec

from backends.sim.faults import Broken

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = tuple[tuple[str, str], ...]

JSON = (("content-type", "application/json"),)
DONE = b"data: [DONE]\n\n"


class Request(msgspec.Struct, frozen=True):
    """A request read to its end. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: a whole body, or the events of a stream. A torn one promises more bytes than come."""

    status: int = 200
    headers: Headers = ()
    body: bytes = b""
    events: AsyncIterator[bytes] | None = None
    torn: bool = False


def json_reply(value: object, status: int = 200, headers: Headers = ()) -> Reply:
    """A JSON body, written compactly as both engines do."""
    return Reply(status=status, headers=JSON + headers, body=msgspec.json.encode(value))


def event(value: object, name: str = "") -> bytes:
    """One server-sent event with a JSON value."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(value) + b"\n\n"


async def read(scope: Scope, receive: Receive) -> Request:
    """Read the request, body and all."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    return Request(scope["method"], scope["path"], headers, body)


async def respond(send: Send, reply: Reply) -> None:
    """Send an answer. One that is torn, or whose events break off by a `cut`, is left unfinished: the server closes."""
    length = () if reply.events else (("content-length", str(len(reply.body) + 512 * reply.torn)),)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in (*reply.headers, *length)]
    headers.append((b"server", b"pointsman-sim"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if reply.events is None:
        return await send({"type": "http.response.body", "body": reply.body, "more_body": reply.torn})
    try:
        async with aclosing(reply.events) as events:  # type: ignore[type-var]
            async for chunk in events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except Broken:
        return None
    return await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, but stop it at once when the client leaves."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not doing.done():
            doing.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)
    if not doing.cancelled():
        doing.result()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def lifespan(receive: Receive, send: Send) -> None:
    """Answer the server's start-up and shut-down."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
