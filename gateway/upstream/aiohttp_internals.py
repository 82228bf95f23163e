"""All that the gateway uses of aiohttp's private parts, and the public way for where they are not as expected.

Written for aiohttp 3.14. `choose` checks once, as the connections are opened, what is expected here:

- `StreamReader` has the slots `_buffer` (a deque of bytes), `_buffer_offset`, `_size` and `_cursor`, and `readany()`
  calls `_read_nowait(-1)`; the class of an instance may be changed to a subclass without slots.
- `TCPConnector.connect()` awaits `_create_connection(...)`, which returns a `ResponseHandler`; this has `closed`, a
  future or None, and takes a further attribute.

Where one of these does not hold, a warning says so, and `PublicAiohttp` takes the place of `FastAiohttp`: the answers
are the same, and what it costs is said in its docstring.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Protocol

import aiohttp

ReadBody = Callable[[], Awaitable[bytes]]  # what has come of a body since the last call; at its end, nothing
Connected = Callable[[float], None]  # is told how many seconds a new connection took

# aiohttp's class for a connection; it is in no public module.
RESPONSE_HANDLER = getattr(getattr(aiohttp, "client_proto", None), "ResponseHandler", None)

log = logging.getLogger("pointsman")


@dataclass(frozen=True)
class AiohttpClasses:
    """The classes whose private parts are used. They are aiohttp's own unless a test gives others."""

    reader: Any = aiohttp.StreamReader
    connector: Any = aiohttp.TCPConnector
    protocol: Any = RESPONSE_HANDLER


class AiohttpWay(Protocol):
    """How connections are made and bodies are read."""

    def session(self, connected: Connected, keep_alive: float, **options: Any) -> aiohttp.ClientSession:
        """Return a session without a bound on connections, which keeps idle ones for `keep_alive` seconds."""
        ...

    def body(self, response: aiohttp.ClientResponse) -> ReadBody:
        """Return what reads the body of a response."""
        ...


async def choose(classes: AiohttpClasses | None = None) -> AiohttpWay:
    """Return the fast way if aiohttp is as expected, else the public one, and log why. Needs a running event loop."""
    classes = classes or AiohttpClasses()
    fault = await reader_fault(classes.reader) or connector_fault(classes.connector, classes.protocol)
    if not fault:
        return FastAiohttp()
    log.warning(
        "aiohttp %s is not as expected (%s): streams take more CPU time, and a malformed one ends only at its time-out",
        aiohttp.__version__,
        fault,
    )
    return PublicAiohttp()


class PublicAiohttp:
    """aiohttp by its documented interface alone.

    To be told of new connections costs each request 12 µs. A body costs more for each HTTP chunk. Where a chunk is
    malformed aiohttp closes the connection and tells the reader nothing, who then waits until a time-out.
    """

    def session(self, connected: Connected, keep_alive: float, **options: Any) -> aiohttp.ClientSession:
        """Return a session."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive)
        return aiohttp.ClientSession(connector=connector, trace_configs=[_connect_times(connected)], **options)

    def body(self, response: aiohttp.ClientResponse) -> ReadBody:
        """Return aiohttp's own reader."""
        return response.content.readany


class FastAiohttp:
    """aiohttp with private parts of it replaced: see `GreedyReader` and `WatchedConnector`."""

    def session(self, connected: Connected, keep_alive: float, **options: Any) -> aiohttp.ClientSession:
        """Return a session."""
        return aiohttp.ClientSession(connector=WatchedConnector(connected, keep_alive), **options)

    def body(self, response: aiohttp.ClientResponse) -> ReadBody:
        """Return a greedy reader, which is told when its connection is closed."""
        content = response.content
        if type(content) is aiohttp.StreamReader:  # else it is the empty one, which all responses share
            content.__class__ = GreedyReader
        if response.connection is not None:
            protocol: Any = response.connection.protocol
            protocol.body = content  # aiohttp forgets it before `_fail_unfinished_body` needs it
        return content.readany


class GreedyReader(aiohttp.StreamReader):
    """A body of which all that has come is taken at once.

    aiohttp takes HTTP chunk by HTTP chunk, and starts its parser and the transport anew after each. An engine writes
    a chunk for each event, and that cost more than all else that is done with an event.
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


class WatchedConnector(aiohttp.TCPConnector):
    """Tells how long each new connection took, and the reader of a body that its connection is gone."""

    def __init__(self, connected: Connected, keep_alive: float) -> None:
        super().__init__(limit=0, keepalive_timeout=keep_alive)
        self._connected = connected

    async def _create_connection(self, *details: Any) -> Any:
        began = time.monotonic()
        protocol = await super()._create_connection(*details)
        self._connected(time.monotonic() - began)
        if protocol.closed is not None:
            protocol.closed.add_done_callback(partial(_fail_unfinished_body, protocol))
        return protocol


def _fail_unfinished_body(protocol: Any, closed: "asyncio.Future[None]") -> None:
    """End a body in an error if its connection is closed, and neither its end nor an error has come."""
    closed.exception()  # else asyncio logs that nobody has looked at it
    body = getattr(protocol, "body", None)
    if body is not None and not body.is_eof() and body.exception() is None:
        body.set_exception(aiohttp.ClientPayloadError("the connection was closed"))


def _connect_times(connected: Connected) -> aiohttp.TraceConfig:
    async def started(_: aiohttp.ClientSession, request: SimpleNamespace, __: object) -> None:
        request.began = time.monotonic()

    async def ended(_: aiohttp.ClientSession, request: SimpleNamespace, __: object) -> None:
        connected(time.monotonic() - request.began)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(started)
    trace.on_connection_create_end.append(ended)
    return trace


# --- what is expected ---------------------------------------------------------------------------------------------


async def reader_fault(reader: Any) -> str:
    """Return what is not as `GreedyReader` expects it, or nothing: both read the same three chunks."""
    try:
        plain, greedy = _chunks(reader), _chunks(reader)
        greedy.__class__ = GreedyReader
        same = await _read(greedy) == await _read(plain)
        used = "_read_nowait" in reader.readany.__code__.co_names
    except Exception as error:  # whatever has changed shows in its own way
        return f"StreamReader: {error!r}"
    return "" if same and used else "StreamReader reads in another way"


def connector_fault(connector: Any, protocol: Any) -> str:
    """Return what is not as `WatchedConnector` expects it, or nothing."""
    if not inspect.iscoroutinefunction(getattr(connector, "_create_connection", None)):
        return "TCPConnector has no coroutine _create_connection"
    if "_create_connection" not in connector.connect.__code__.co_names:
        return "TCPConnector.connect does not call _create_connection"
    if not hasattr(protocol, "closed"):
        return "ResponseHandler has no attribute closed"
    if not protocol.__dictoffset__:
        return "ResponseHandler takes no further attribute"
    return ""


class _IdleProtocol:
    """A connection on which nothing happens."""

    connected = True
    _reading_paused = False

    def resume_reading(self, *_: object, **__: object) -> None:
        """Do nothing."""


def _chunks(reader: Any) -> Any:
    made = reader(_IdleProtocol(), 2**16, loop=asyncio.get_running_loop())
    for chunk in (b"one", b"two", b"three"):
        made.begin_http_chunk_receiving()
        made.feed_data(chunk)
        made.end_http_chunk_receiving()
    return made


async def _read(reader: Any) -> tuple[bytes, bytes, int, int, int]:
    return await reader.read(2), await reader.readany(), reader._size, reader._cursor, reader._buffer_offset
