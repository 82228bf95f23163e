"""Step 9: a request to an engine, and its answer. Connections are used again; the errors are the gateway's own.

There is no bound on connections; how many requests are let through is decided before. Nothing goes through a proxy, and
no redirection is followed.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial

from gateway.config import TimeoutsConfig
from gateway.http.errors import RETRY_AFTER, UpstreamConnectError, UpstreamMalformed, UpstreamReset
from gateway.upstream.answer import HttpAnswer, Malformed
from gateway.upstream.connection import Connection
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.inflate import inflated

# All in seconds.
RESEND_WINDOW = 0.25  # a reused connection that is closed sooner than this had been closed before the request arrived
DRAIN_TIMEOUT = 1.0  # for the rest of a body of which nothing is wanted any more


class AnswerHeaders(Mapping[str, str]):
    """The headers of an answer, their names in lower case. Most are never looked at, and so not decoded."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Mapping[bytes, bytes]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


class Reply:
    """An engine's answer: its status and headers are here, its body is read when it is wanted.

    `chunk` returns what has come of the body since the last call, or waits for more; at the end it returns nothing. It
    raises UpstreamBroken.
    """

    def __init__(self, answer: HttpAnswer, connection: Connection, name: str) -> None:
        self.status = answer.status
        self.headers = AnswerHeaders(answer.headers)
        self.chunk: Callable[[], Awaitable[bytes]] = answer.chunk
        self._answer = answer
        self._connection = connection
        self._name = name
        coding = answer.headers.get(b"content-encoding")
        if coding is not None:
            self._read_inflated(coding)

    def at_hand(self) -> bytes | None:
        """Return the whole body, if all of it has come already, so that nobody has to wait for it."""
        plain = b"content-encoding" not in self._answer.headers
        return self._answer.taken() if self._answer.complete and plain else None

    async def read(self) -> bytes:
        """Return the whole body. Raises UpstreamBroken."""
        parts = []
        while data := await self.chunk():
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection unless the body has come: for an engine, that cancels the work."""
        self._connection.abandon(self._answer)

    def release(self) -> None:
        """Let the connection serve the next request: all that was of interest in the body has been read.

        The end of the body may be a moment behind the last event; to close then is to close a good connection.
        """
        self._connection.finish(self._answer, DRAIN_TIMEOUT)

    def _read_inflated(self, coding: bytes) -> None:
        try:
            read = inflated(self._answer.chunk, coding)
        except Malformed as error:
            self.close()
            raise self._malformed(error) from error

        async def chunk() -> bytes:
            try:
                return await read()
            except Malformed as error:
                self.close()
                raise self._malformed(error) from error

        self.chunk = chunk

    def _malformed(self, error: Malformed) -> UpstreamMalformed:
        return UpstreamMalformed(f"The engine {self._name} does not speak HTTP as expected ({error}).")


class Upstream:
    """Asks engines. `connections` are all that are open; `connected` is told how many seconds a new one took."""

    def __init__(self, timeouts: TimeoutsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.follow(timeouts)
        self._clock = clock
        self.connections: set[Connection] = set()
        self.connected: Callable[[float], None] = lambda took: None

    def follow(self, timeouts: TimeoutsConfig) -> None:
        """Take over the time-outs of a changed configuration."""
        self._connect_timeout = timeouts.connect

    async def close(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # in which their transports are closed

    async def post(self, endpoint: Endpoint, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Send a request with a body; else as `send`."""
        return await self.send(endpoint, "POST", path, body, headers)

    async def get(self, endpoint: Endpoint, path: str) -> Reply:
        """Ask for a path; else as `send`."""
        return await self.send(endpoint, "GET", path, None, {})

    async def send(
        self, endpoint: Endpoint, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Reply:
        """Send a request; return when the answer's head is there. Raises UpstreamConnectError and UpstreamBroken.

        An engine may close an idle connection just as it is used again (RFC 9112, 9.3.1): then the request is sent once
        more, over a new one. Not so where the connection was new, or was closed later: that request may be what made
        the engine fail.
        """
        length = len(body) if body is not None else 0 if method == "POST" else None
        head, loop = endpoint.requests.head(method, path, headers, length), asyncio.get_running_loop()
        ask = partial(self._ask, endpoint.name, head, body or b"", method != "HEAD")
        idle = endpoint.pool.take(loop.time())
        if idle is not None:
            began = self._clock()
            try:
                return await ask(idle)
            except UpstreamReset:
                if self._clock() - began > RESEND_WINDOW:
                    raise
        return await ask(await self._connect(endpoint, loop))

    async def _ask(self, name: str, head: bytes, body: bytes, expects_body: bool, connection: Connection) -> Reply:
        answer = connection.ask(head, body, expects_body)
        try:
            await answer.begun()
        except BaseException:  # a cancelled request, too
            connection.abandon(answer)
            raise
        return Reply(answer, connection, name)

    async def _connect(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> Connection:
        """Return a new connection. An endpoint to which none can be made is marked as down."""
        began = self._clock()
        connection = Connection(endpoint.name, loop, partial(endpoint.pool.put, loop), self.connections.discard)
        self.connections.add(connection)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await endpoint.dialer.connect(connection)
        except BaseException as error:
            connection.abort()  # it may have been made a moment too late
            self.connections.discard(connection)
            if not isinstance(error, OSError | UnicodeError):
                raise
            endpoint.mark_down(f"no connection to {endpoint.url}: {reason(error)}", public_reason(error))
            message = f"The engine {endpoint.name} cannot be reached."
            raise UpstreamConnectError(message, headers={"retry-after": RETRY_AFTER}) from error
        self.connected(self._clock() - began)
        return connection


def public_reason(error: Exception) -> str:
    """Return why there is no connection, in words that hold no address: those of an error may."""
    match error:
        case socket.gaierror() | UnicodeError():
            return "no connection: the host's name cannot be resolved"
        case ssl.SSLError():
            return "no connection: TLS failed"
        case TimeoutError():
            return "no connection in time"
        case ConnectionRefusedError():
            return "no connection: refused"
    return "no connection"


def reason(error: Exception) -> str:
    """Return why there is no connection, for the log."""
    if isinstance(error, TimeoutError) and not error.args:
        return "no connection in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
