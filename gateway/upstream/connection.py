"""Step 8: the engine connection, and its only user. Foreign errors are turned into ours here, once.

aiohttp carries it: its connection pool costs a tenth of httpx's a request (see `loadtests/`). There is no bound
on connections; how many requests are let through is decided before.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import aiohttp
from multidict import CIMultiDictProxy

from gateway.config import TimeoutsConfig
from gateway.http.errors import RETRY_AFTER, EngineFailed, Unavailable, UpstreamConnectError, UpstreamReset
from gateway.upstream.endpoints import Endpoint

# uvicorn, and so vLLM, closes an idle connection after 5 s: one that old must not be used again.
IDLE = 4.0
STALE = 0.25  # seconds, in which a connection that was closed before the request came to it shows that
MAX_DRAIN = 1.0  # seconds

T = TypeVar("T")


class Drained(aiohttp.StreamReader):
    """A body of which all that has come is taken at once.

    aiohttp hands out HTTP chunk by HTTP chunk, and starts its parser and the transport anew after each; an engine
    writes a chunk for each event, and that cost more than all else that is done with an event. It is its private
    state that is touched here: `tests/gateway/test_upstream.py` holds it to what aiohttp itself would give.
    """

    __slots__ = ()

    def _read_nowait(self, n: int) -> bytes:
        """Return what is there; all but the last chunk without a word to the transport."""
        buffer = self._buffer
        if n != -1 or len(buffer) < 2:
            return super()._read_nowait(n)
        pieces = [buffer.popleft() for _ in range(len(buffer) - 1)]
        if self._buffer_offset:
            pieces[0] = pieces[0][self._buffer_offset :]
            self._buffer_offset = 0
        most = b"".join(pieces)
        self._size -= len(most)
        self._cursor += len(most)
        return most + super()._read_nowait(-1)


class Reply:
    """An engine's answer: its status and headers are here, its body is read when it is wanted."""

    def __init__(self, response: aiohttp.ClientResponse, endpoint: Endpoint, drains: set[asyncio.Task[None]]) -> None:
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        if type(response.content) is aiohttp.StreamReader:  # else it is the empty one, which all share
            response.content.__class__ = Drained
        if response.connection is not None:  # for `_break_off`: aiohttp forgets it before that is asked
            connection: Any = response.connection.protocol
            connection.body = response.content
        self._response = response
        self._read = response.content.readany
        self._endpoint = endpoint
        self._drains = drains

    async def read(self) -> bytes:
        """Return the whole body."""
        return await _seam(self._response.read(), self._endpoint)

    async def chunk(self) -> bytes:
        """Return what has come of the body since the last call, or wait for more; at the end, nothing."""
        try:
            return await self._read()
        except (aiohttp.ClientError, OSError) as error:
            raise _mapped(error, self._endpoint) from error

    def close(self) -> None:
        """Close the connection unless the body has been read: for an engine, that cancels the work."""
        self._response.close()

    def release(self) -> None:
        """Give the connection back for the next request: all that was of interest in the body has been read.

        The end of the body may be a moment behind the last event; who closes then, closes a good connection.
        """
        if self._response.content.is_eof():
            self._response.release()
            return
        drain = asyncio.ensure_future(self._drain())
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(MAX_DRAIN):
                while await self._read():
                    pass
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._response.close()
        else:
            self._response.release()


class Connector(aiohttp.TCPConnector):
    """Tells how long each new connection took, and a body's reader that its connection is gone.

    Of the first aiohttp's own way to hear costs each request 12 us; of the second it says nothing where what came last
    could not be read (a wrong chunk size), and the reader would wait for ever.
    """

    def __init__(self, connected: Callable[[float], None]) -> None:
        super().__init__(limit=0, keepalive_timeout=IDLE)
        self._connected = connected

    async def _create_connection(self, *details: Any) -> Any:
        began = time.monotonic()
        made = await super()._create_connection(*details)
        self._connected(time.monotonic() - began)
        if made.closed is not None:
            made.closed.add_done_callback(partial(_break_off, made))
        return made


def _break_off(connection: Any, closed: "asyncio.Future[None]") -> None:
    """Have a body end in an error if its connection is closed, and neither its end nor an error has come."""
    closed.exception()  # it is no news, and must not be said to be unheard
    body = getattr(connection, "body", None)
    if body is not None and not body.is_eof() and body.exception() is None:
        body.set_exception(aiohttp.ClientPayloadError("the connection was closed"))


class Upstream:
    """The connections to all engines. `connected` is told of each new one, how many seconds it took."""

    def __init__(self, timeouts: TimeoutsConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.follow(timeouts)
        self._clock = clock
        self.connected: Callable[[float], None] = lambda took: None
        self._session: aiohttp.ClientSession | None = None
        self._drains: set[asyncio.Task[None]] = set()

    def follow(self, timeouts: TimeoutsConfig) -> None:
        """Take over the time-outs of a changed configuration."""
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)

    async def open(self) -> None:
        """Make ready; to be called in the running event loop."""
        self._session = aiohttp.ClientSession(
            connector=Connector(self.connected),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=True,
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        )

    async def close(self) -> None:
        """Close all connections."""
        for drain in self._drains:
            drain.cancel()
        if self._session is not None:
            await self._session.close()

    async def post(self, endpoint: Endpoint, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        """Send a request; return when the answer's head is there. Raises UpstreamConnectError and EngineFailed."""
        began = self._clock()
        try:
            return await self._send(endpoint, "POST", path, body, headers)
        except UpstreamReset:
            # A connection kept alive may be closed by the engine just as it is used again; any later, it was at work.
            if self._clock() - began > STALE:
                raise
            return await self._send(endpoint, "POST", path, body, headers)

    async def get(self, endpoint: Endpoint, path: str) -> Reply:
        """Ask for a path. Raises as `post` does."""
        return await self._send(endpoint, "GET", path, None, {})

    async def _send(
        self, endpoint: Endpoint, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Reply:
        assert self._session is not None, "open() comes first"
        asked = self._session.request(
            method,
            endpoint.at(path),
            data=body,
            headers=endpoint.headers | headers,
            allow_redirects=False,
            timeout=self._timeout,
            server_hostname=endpoint.server_name,
        )
        return Reply(await _seam(asked, endpoint), endpoint, self._drains)


async def _seam(waited: Awaitable[T], endpoint: Endpoint) -> T:
    try:
        return await waited
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise _mapped(error, endpoint) from error


def _mapped(error: Exception, endpoint: Endpoint) -> EngineFailed | Unavailable:
    name = endpoint.name
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
        endpoint.lost(f"no connection to {endpoint.url}: {_reason(error)}")
        return UpstreamConnectError(f"The engine {name} cannot be reached.", headers={"retry-after": RETRY_AFTER})
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
        return UpstreamReset(f"The engine {name} closed the connection without an answer.")
    if isinstance(error, aiohttp.ClientPayloadError):
        return EngineFailed(f"The engine {name} closed the connection before the answer was complete.")
    if isinstance(error, aiohttp.ClientResponseError):
        return EngineFailed(f"The engine {name} does not speak HTTP as expected.")
    return EngineFailed(f"The connection to the engine {name} failed.")


def _reason(error: Exception) -> str:
    """Return why there is no connection, without aiohttp's words around it."""
    found = getattr(error, "os_error", None)
    return (found and (found.strerror or str(found))) or str(error) or type(error).__name__
