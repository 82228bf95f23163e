"""One request of a client's and its answer, as an application sees them (ASGI 3.0, "HTTP").

The head of an answer goes out together with the beginning of its body: one system call less.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

STATUS_LINES = {status: b"HTTP/1.1 %d \r\n" % status for status in range(200, 600)}
STATUS_LINES |= {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
NO_BODY = frozenset({204, 304})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

log = logging.getLogger("pointsman")


class ClientSide(Protocol):
    """The connection that an exchange is on."""

    write: Callable[[bytes], None]
    write_paused: bool

    @property
    def head_lines(self) -> bytes:
        """The headers of every answer, each with its line end."""

    async def writable(self) -> None:
        """Wait until the client takes more, or has left."""

    def flow_on(self) -> None:
        """Read on, if reading had to pause."""

    def close(self) -> None:
        """Close the connection once all is written."""

    def answered(self) -> None:
        """Go on to the next request."""


class Exchange:
    """One request and its answer.

    `all_come`: the request is complete. `begun`, `complete`: its answer has been begun, is complete. `left`: the
    connection was lost before that; `on_left` is told. `keep_alive`: it is used again after the answer.
    """

    __slots__ = (
        "_all_told",
        "_awaits_continue",
        "_chunked",
        "_connection",
        "_has_body",
        "_head",
        "_pieces",
        "_size",
        "_takes_chunks",
        "_to_write",
        "_waiter",
        "all_come",
        "begun",
        "complete",
        "keep_alive",
        "left",
        "on_left",
        "scope",
    )

    def __init__(self, connection: ClientSide, scope: Message, keep_alive: bool, awaits_continue: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.complete = self.left = False
        self.on_left: Callable[[], None] | None = None
        self._connection = connection
        self._awaits_continue = awaits_continue
        self._pieces: list[bytes] = []  # of the request's body, not taken yet
        self._size = 0
        self.all_come = self._all_told = False
        self._waiter: asyncio.Future[None] | None = None  # of whoever waits for more of the request
        self.begun = self._chunked = False
        self._has_body, self._takes_chunks = scope["method"] != "HEAD", scope["http_version"] != "1.0"
        self._head = b""  # of the answer, not written yet
        self._to_write: int | None = None  # bytes of its body, where its length has been said

    async def run(self, app: App) -> None:
        """Have the application answer. One that fails, or ends before its answer does, ends the connection."""
        scope, self.scope = self.scope, {}  # which holds the exchange
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            log.exception("a request failed in the gateway")
        finally:
            if not self.complete and not self.left:
                self._break_off()

    def _break_off(self) -> None:
        self.complete = True
        if self._head or not self.begun:
            self._connection.write(FAILED)
        self._connection.close()

    # --- what the connection tells --------------------------------------------------------------------------------

    def take(self, piece: bytes) -> int:
        """Take a piece of the request's body; return how many bytes wait to be taken."""
        self._pieces.append(piece)
        self._size += len(piece)
        self._wake()
        return self._size

    def end(self) -> None:
        """Note that all of the request has come."""
        self.all_come = True
        self._wake()

    def leave(self) -> None:
        """Note that the client has left."""
        if self.complete or self.left:
            return
        self.left = True
        self._wake()
        if self.on_left is not None:
            self.on_left()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- ASGI -----------------------------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """Return what has come of the body, or wait; after the last of it, that the client has left."""
        if self._awaits_continue and not self.all_come:
            self._awaits_continue = False
            self._connection.write(CONTINUE)
        while not self.left and not self.complete:
            if self._pieces or self.all_come is not self._all_told:
                return self._taken()
            self._connection.flow_on()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return {"type": "http.disconnect"}

    def _taken(self) -> Message:
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        self._all_told = self.all_come
        return {"type": "http.request", "body": body, "more_body": not self.all_come}

    async def send(self, message: Message) -> None:
        """Write a part of the answer. Raises RuntimeError for one that does not fit what was said before."""
        if self._connection.write_paused:
            await self._connection.writable()
        if self.left:
            return
        if self.complete:
            raise RuntimeError("The answer is complete already.")
        if self.begun:
            self._write(message.get("body", b""), message.get("more_body", False))
        else:
            self._begin(message["status"], message["headers"])

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._awaits_continue = False
        lines = [STATUS_LINES[status], self._connection.head_lines]
        for name, value in headers:
            if name == b"content-length":
                self._to_write = int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if status in NO_BODY:
            self._has_body = False
        elif self._has_body and self._to_write is None and self._takes_chunks:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self._head = _checked(lines)
        self.begun = True

    def _write(self, data: bytes, more: bool) -> None:
        if not self._has_body:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not more:
                data += b"0\r\n\r\n"
        elif self._to_write is not None:
            self._to_write -= len(data)
            if self._to_write < 0 or (self._to_write and not more):
                raise RuntimeError("The answer is not as long as its content-length says.")
        head, self._head = self._head, b""
        if data or head:
            self._connection.write(head + data if head else data)
        if not more:
            self.complete = True
            self._wake()
            if not self.keep_alive:
                self._connection.close()
            self._connection.answered()


def _checked(lines: list[bytes]) -> bytes:
    """Return a head. Raises RuntimeError if a line end stands within a header: what follows would be another."""
    head = b"".join(lines)
    count = len(lines) - 1 + lines[1].count(b"\n")  # the second are the headers of every answer
    if head.count(b"\n") != count or head.count(b"\r") != count or b"\0" in head:
        raise RuntimeError("A header of the answer has a line end in it.")
    return head + b"\r\n"
