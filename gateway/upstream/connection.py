"""Step 8: the HTTP connections to the engines. aiohttp's errors are turned into the gateway's here, once.

aiohttp carries them: its connection pool costs a tenth of httpx's for each request (see `loadtests/`). There is no
bound on connections; how many requests are let through is decided before. What is used of aiohttp's private parts
is in `aiohttp_internals`.
"""

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar

import aiohttp
from multidict import CIMultiDictProxy

from gateway.config import TimeoutsConfig
from gateway.http.errors import RETRY_AFTER, UpstreamBroken, UpstreamConnectError, UpstreamReset
from gateway.upstream import aiohttp_internals
from gateway.upstream.aiohttp_internals import AiohttpClasses, AiohttpWay, PublicAiohttp, ReadBody
from gateway.upstream.endpoints import Endpoint

# All in seconds. uvicorn, and so vLLM, closes a connection that was idle for 5 s: it must not be used at that moment.
ENGINE_KEEP_ALIVE = 4.0
RESEND_WINDOW = 0.25  # a reused connection that is reset sooner than this had been closed before the request arrived
DRAIN_TIMEOUT = 1.0  # for the rest of a body of which nothing is wanted any more

AIOHTTP_ERRORS = (aiohttp.ClientError, OSError)  # TimeoutError is an OSError
CONNECT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
RESET_ERRORS = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError)

# Whether a connection was made for the request that this task sends now: aiohttp makes it in the same task.
_new_connection: ContextVar[bool] = ContextVar("new_connection", default=False)


class Reply:
    """An engine's answer: its status and headers are here, its body is read when it is wanted."""

    def __init__(
        self, response: aiohttp.ClientResponse, read: ReadBody, endpoint: Endpoint, drains: set[asyncio.Task[None]]
    ) -> None:
        self.status = response.status
        self.headers: CIMultiDictProxy[str] = response.headers
        self._response = response
        self._read = read
        self._endpoint = endpoint
        self._drains = drains

    async def read(self) -> bytes:
        """Return the whole body. Raises UpstreamBroken."""
        try:
            return await self._response.read()
        except AIOHTTP_ERRORS as error:
            raise gateway_error(error, self._endpoint.name) from error

    async def chunk(self) -> bytes:
        """Return what has come of the body since the last call, or wait for more; at the end, nothing.

        Raises UpstreamBroken.
        """
        try:
            return await self._read()
        except AIOHTTP_ERRORS as error:
            raise gateway_error(error, self._endpoint.name) from error

    def close(self) -> None:
        """Close the connection unless the body has been read: for an engine, that cancels the work."""
        self._response.close()

    def release(self) -> None:
        """Give the connection back for the next request: all that was of interest in the body has been read.

        The end of the body may be a moment behind the last event; to close then is to close a good connection.
        """
        if self._response.content.is_eof():
            self._response.release()
            return
        drain = asyncio.ensure_future(self._drain())
        self._drains.add(drain)
        drain.add_done_callback(self._drains.discard)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while await self._read():
                    pass
        except AIOHTTP_ERRORS:
            self._response.close()
        else:
            self._response.release()


class Upstream:
    """The connections to all engines. `connected` is told of each new one, how many seconds it took."""

    def __init__(
        self,
        timeouts: TimeoutsConfig,
        clock: Callable[[], float] = time.monotonic,
        classes: AiohttpClasses | None = None,
    ) -> None:
        self.follow(timeouts)
        self._clock = clock
        self._classes = classes
        self.connected: Callable[[float], None] = lambda took: None
        self._way: AiohttpWay = PublicAiohttp()  # until `open` has looked
        self._session: aiohttp.ClientSession | None = None
        self._drains: set[asyncio.Task[None]] = set()

    def follow(self, timeouts: TimeoutsConfig) -> None:
        """Take over the time-outs of a changed configuration."""
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect)

    async def open(self) -> None:
        """Make ready; to be called in the running event loop."""
        self._way = await aiohttp_internals.choose(self._classes)
        self._session = self._way.session(
            self._note_connected,
            ENGINE_KEEP_ALIVE,
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

    def _note_connected(self, took: float) -> None:
        _new_connection.set(True)
        self.connected(took)

    async def post(self, endpoint: Endpoint, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        """Send a request; return when the answer's head is there. Raises UpstreamConnectError and UpstreamBroken.

        An engine may close an idle connection just as it is used again (RFC 9112, 9.3.1): then the request is sent once
        more. Not so where the connection was new, or was closed later: that request may be what made the engine fail.
        """
        began = self._clock()
        _new_connection.set(False)
        try:
            return await self._send(endpoint, "POST", path, body, headers)
        except UpstreamReset:
            if _new_connection.get() or self._clock() - began > RESEND_WINDOW:
                raise
            return await self._send(endpoint, "POST", path, body, headers)

    async def send(
        self, endpoint: Endpoint, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Reply:
        """Send a request of any method; a POST with a body as `post` does. Raises as `post` does."""
        if method == "POST" and body is not None:
            return await self.post(endpoint, path, body, headers)
        return await self._send(endpoint, method, path, body, headers)

    async def get(self, endpoint: Endpoint, path: str) -> Reply:
        """Ask for a path. Raises as `post` does."""
        return await self._send(endpoint, "GET", path, None, {})

    async def _send(
        self, endpoint: Endpoint, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Reply:
        """Send a request. An endpoint to which no connection can be made is marked as down."""
        assert self._session is not None, "open() comes first"
        try:
            response = await self._session.request(
                method,
                endpoint.at(path),
                data=body,
                headers=endpoint.headers | headers,
                allow_redirects=False,
                timeout=self._timeout,
                server_hostname=endpoint.server_name,
            )
        except AIOHTTP_ERRORS as error:
            if isinstance(error, CONNECT_ERRORS):
                endpoint.mark_down(f"no connection to {endpoint.url}: {_reason(error)}", public_reason(error))
            raise gateway_error(error, endpoint.name) from error
        return Reply(response, self._way.body(response), endpoint, self._drains)


def gateway_error(error: Exception, name: str) -> UpstreamBroken | UpstreamConnectError:
    """Return the gateway's error for one of aiohttp's or the system's; `name` is the endpoint's."""
    if isinstance(error, CONNECT_ERRORS):
        return UpstreamConnectError(f"The engine {name} cannot be reached.", headers={"retry-after": RETRY_AFTER})
    if isinstance(error, RESET_ERRORS):
        return UpstreamReset(f"The engine {name} closed the connection without an answer.")
    if isinstance(error, aiohttp.ClientPayloadError):
        return UpstreamBroken(f"The engine {name} closed the connection before the answer was complete.")
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamBroken(f"The engine {name} does not speak HTTP as expected.")
    return UpstreamBroken(f"The connection to the engine {name} failed.")


def public_reason(error: Exception) -> str:
    """Return why there is no connection, in words that hold no address: those of an error may."""
    cause = getattr(error, "os_error", None)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no connection: the host's name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "no connection: TLS failed"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return "no connection: refused" if isinstance(cause, ConnectionRefusedError) else "no connection"


def _reason(error: Exception) -> str:
    """Return why there is no connection, without aiohttp's words around it."""
    found = getattr(error, "os_error", None)
    return (found and (found.strerror or str(found))) or str(error) or type(error).__name__
