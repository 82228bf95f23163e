"""A client's connection, over which one request after the other is answered (RFC 9112, 9.3).

httptools (llhttp) reads the requests. What is refused here beside: a head that is too large, or too slow. uvicorn makes
one for each connection, and ends them in order as the server stops.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools

from gateway.http.errors import InvalidRequest
from gateway.http.lifecycle import CLIENT_END
from gateway.server.exchange import STATUS_LINES, Exchange, Message

MAX_HEAD = 65536  # bytes
MAX_HEADERS = 256
MAX_BUFFERED = 65536  # bytes of a body that nobody has taken yet, from which on no more is read
TOO_LARGE = "its head, or a line in its body, is too large"
CONTINUE = b"100-continue"
ASGI = {"version": "3.0", "spec_version": "2.3"}


class HeadTooLarge(Exception):
    """A request has more headers, or larger ones, than are taken."""


class ClientConnection(asyncio.Protocol):
    """One connection. `transport` is for whoever has to close it at once.

    Made by uvicorn for each connection (`uvicorn.Config(http=...)`), of its settings, of the state that all connections
    of a server share, and of what the application's start left for its requests.
    """

    def __init__(
        self, config: Any, server_state: Any, app_state: Message, _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.transport: Any = None
        self.write: Callable[[bytes], None] = _unmade
        self.write_paused = False
        self._app = config.loaded_app
        self._keep_alive: float = config.timeout_keep_alive
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._may_write = asyncio.Event()
        self._read_paused = False
        self._current: Exchange | None = None  # that is being answered, or was the last
        self._incoming: Exchange | None = None  # that is being read
        self._waiting: deque[Exchange] = deque()  # sent before the answer to the one before was complete
        self._idle_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._defaults: object = None
        self._lines = b""
        self._gets_on = False  # a head, a piece of a body or its end has come
        self._stalled = 0  # bytes since
        self._parser: Any = _parser(self)

    # --- what an exchange asks for --------------------------------------------------------------------------------

    @property
    def head_lines(self) -> bytes:
        """The headers of every answer: the date, which the server renews each second."""
        given = self._state.default_headers
        if given is not self._defaults:
            self._defaults = given
            self._lines = b"".join([b"%b: %b\r\n" % header for header in given])
        return self._lines

    async def writable(self) -> None:
        """Wait until the client takes more, or has left."""
        await self._may_write.wait()

    def flow_on(self) -> None:
        """Read on, if reading had to pause."""
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        """Close the connection once all is written."""
        self.transport.close()

    def answered(self) -> None:
        """Go on to the next request."""
        self._state.total_requests += 1
        self._idle_since = self._loop.time()
        if self.transport.is_closing():
            return
        self.flow_on()
        if self._waiting:
            self._start(self._waiting.popleft())

    # --- what the server and the transport tell -------------------------------------------------------------------

    def shutdown(self) -> None:
        """Close the connection, after the answers that are still due."""
        if self._is_idle():
            self.close()
        elif last := self._waiting[-1] if self._waiting else self._current:
            last.keep_alive = False

    def connection_made(self, transport: Any) -> None:
        """Note the transport."""
        self.transport, self.write = transport, transport.write
        self._server, self._client = _address(transport, "sockname"), _address(transport, "peername")
        self._state.connections.add(self)
        self._idle_since = self._loop.time()
        self._timer = self._loop.call_later(self._keep_alive, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those that are being answered, or wait for it."""
        self._state.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        self._parser = None  # else they hold each other
        self.resume_writing()
        for exchange in (self._current, *self._waiting):
            if exchange is not None:
                exchange.leave()

    def pause_writing(self) -> None:
        """Write no more for now: the client does not take it."""
        self.write_paused = True
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self.write_paused = False
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """Take any part of a request, or several."""
        pieces: list[bytes | memoryview] = [data]
        while pieces and self._parser is not None:
            piece = pieces.pop()
            try:
                self._feed(piece)
            except httptools.HttpParserUpgrade as stopped:
                if self._offers_upgrade():  # else it is a CONNECT, behind which there is no HTTP
                    pieces += [memoryview(piece)[stopped.args[0] :], self._head_without_offer()]
                    self._parser = _parser(self)
            except httptools.HttpParserCallbackError as error:
                too_large = isinstance(error.__context__, HeadTooLarge)
                self._refuse(*(431, TOO_LARGE) if too_large else (400, "its target cannot be read"))
            except httptools.HttpParserError as error:
                self._refuse(400, str(error))

    def _feed(self, piece: bytes | memoryview) -> None:
        """Read on. What comes to no end, be it a header or a line before a chunk, is refused."""
        self._gets_on = False
        self._parser.feed_data(piece)
        self._stalled = 0 if self._gets_on else self._stalled + len(piece)
        if self._stalled > MAX_HEAD:
            self._refuse(431, TOO_LARGE)

    def _look(self) -> None:
        """Close a connection on which nothing has been asked for long enough, or not to the end of the head."""
        idle = self._loop.time() - self._idle_since if self._is_idle() else 0.0
        if idle >= self._keep_alive:
            self.close()
        else:
            self._timer = self._loop.call_later(self._keep_alive - idle, self._look)

    def _is_idle(self) -> bool:
        return (self._current is None or self._current.complete) and not self._waiting

    def _head_without_offer(self) -> bytes:
        """Return the head of a request that offers an upgrade (h2c, websocket, TLS), as if it did not (RFC 9110, 7.8).

        httptools has no way to read on as HTTP/1.1, so another parser is given this, and what follows it after that.
        """
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        lines = [b"%b: %b" % header for header in self._headers if header[0] != b"upgrade"]
        return b"\r\n".join([b"%b %b HTTP/%b" % (method, self._url, version), *lines, b"", b""])

    def _offers_upgrade(self) -> bool:
        return any(name == b"upgrade" for name, _ in self._headers)

    def _refuse(self, status: int, reason: str) -> None:
        """Read no more, and say why, unless an answer has begun; those before what is no request are still due."""
        self._parser = None
        broken = self._incoming if self._incoming is not None and not self._incoming.all_come else None  # in its body
        if broken is not None and broken is not self._current:
            self._waiting.pop()
        if broken is not None and broken is self._current:
            if broken.begun:
                self.close()
            else:
                self._say(status, reason)
            broken.leave()
        elif self._is_idle():
            self._say(status, reason)
        else:
            self.shutdown()

    def _say(self, status: int, reason: str) -> None:
        """Answer what is no request, and end."""
        body = InvalidRequest(f"This is not HTTP/1.1 as expected: {reason}.").body()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.write(STATUS_LINES[status] + self.head_lines + head + body)
        self.close()

    # --- what httptools tells -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin with a request."""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_size = 0
        self._in_head = True
        self._awaits_continue = False
        self._idle_since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Note the target, or a part of it."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header. Nobody wants to know of a trailer."""
        self._count(len(name) + len(value))
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == CONTINUE:
                self._awaits_continue = True
            self._headers.append((name, value.rstrip(b" \t")))

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD or len(self._headers) >= MAX_HEADERS:
            raise HeadTooLarge

    def on_headers_complete(self) -> None:
        """Have the application answer, as soon as the answer before is complete."""
        self._in_head, self._gets_on = False, True
        if self._parser.should_upgrade() and self._offers_upgrade():
            self._incoming = None
            return
        version = self._parser.get_http_version()
        keep_alive = version != "1.0" and self._parser.should_keep_alive()
        exchange = self._incoming = Exchange(self, self._scope(version), keep_alive, self._awaits_continue)
        exchange.scope["extensions"] = {CLIENT_END: exchange}
        if self._is_idle():
            self._start(exchange)
        else:
            self._waiting.append(exchange)
            self._pause()

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body; nobody wants one to whom the answer is complete."""
        self._gets_on = True
        exchange = self._incoming
        if exchange is not None and not exchange.complete and exchange.take(piece) > MAX_BUFFERED:
            self._pause()

    def on_message_complete(self) -> None:
        """Note the end of the request."""
        self._gets_on = True
        if self._incoming is not None:
            self._incoming.end()

    def _scope(self, version: str) -> Message:
        target = httptools.parse_url(self._url)
        path = target.path.decode("ascii")
        return {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": target.path,
            "query_string": target.query or b"",
            "headers": self._headers,
            "state": self._app_state.copy(),
        }

    def _start(self, exchange: Exchange) -> None:
        self._current = exchange
        task = self._loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _pause(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()


def _parser(connection: ClientConnection) -> Any:
    parser = httptools.HttpRequestParser(connection)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # else the request before it has no answer
    return parser


def _address(transport: Any, name: str) -> tuple[str, int] | None:
    """Return one end of a connection; None where it has no port."""
    address = transport.get_extra_info(name)
    return (str(address[0]), int(address[1])) if isinstance(address, tuple) else None


def _unmade(_: bytes) -> None:
    raise RuntimeError("The connection has not been made.")
