"""One answer of an engine's, read from the bytes of its connection and handed over as it comes (RFC 9112).

httptools (llhttp) reads the bytes: one length only, no folded lines, no bare CR or LF. What it would take beside that
is refused here: other versions of HTTP, transfer codings but "chunked", a change of protocols, and more than an engine
has reason to send.
"""

import asyncio
import re
from typing import Any, Protocol

import httptools

# Bytes. The first is for a head, a line before a chunk, and what comes behind the last chunk; each by itself.
MAX_HEAD = 65536
MAX_BUFFERED = 262144  # that nobody has taken yet, from which on no more is read
MAX_HEADERS = 256

VERSIONS = ("1.1", "1.0")
NO_BODY = frozenset({204, 304})
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
SWITCHING_PROTOCOLS, OK = 101, 200

_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


class Malformed(Exception):
    """An answer does not follow HTTP; its text says how."""


class Flow(Protocol):
    """What the bytes come from."""

    def pause_reading(self) -> None:
        """Read no more for now."""

    def resume_reading(self) -> None:
        """Go on."""


class HttpAnswer:
    """What comes of one request. `status` is 0 until the head is there; `headers` have their names in lower case.

    `complete`: all of it has come; then `keep_alive` says whether the connection may be used again. `received`: at
    least one byte has come. `expects_body` is False for the answer to a HEAD (RFC 9112, 6.3).
    """

    __slots__ = (
        "_buffered",
        "_discards",
        "_expects_body",
        "_flow",
        "_framing",
        "_loop",
        "_parser",
        "_paused",
        "_pieces",
        "_waiter",
        "complete",
        "error",
        "headers",
        "keep_alive",
        "lines",
        "on_body",
        "received",
        "status",
        "until_close",
    )

    def __init__(self, flow: Flow, loop: asyncio.AbstractEventLoop, expects_body: bool = True) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.complete = self.keep_alive = self.received = self.until_close = False
        self.error: Exception | None = None
        self.lines = 0  # headers and trailers
        self._flow = flow
        self._loop = loop
        self._expects_body = expects_body
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # httptools calls it for each piece
        self._buffered = self._framing = 0
        self._paused = self._discards = False
        self._waiter: asyncio.Future[None] | None = None
        self._parser: Any = httptools.HttpResponseParser(self)

    # --- what the client reads ------------------------------------------------------------------------------------

    async def begun(self) -> None:
        """Wait for the head. Raises what `fail` was given."""
        while not self.status:
            if self.error is not None:
                raise self.error
            self._waiter = self._loop.create_future()
            await self._waiter

    async def chunk(self) -> bytes:
        """Return all that has come of the body since the last call, or wait for more; at the end, nothing.

        What came before a failure is returned first. Raises what `fail` was given.
        """
        while not self._pieces:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            self._waiter = self._loop.create_future()
            await self._waiter
        return self.taken()

    def discard(self) -> None:
        """Throw away what comes."""
        self._discards = True
        self.taken()

    def taken(self) -> bytes:
        """Return what has come of the body since the last call, be it nothing."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._buffered = 0
        self.flow_on()
        return data

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # --- what the connection tells --------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Read bytes of the connection. Raises Malformed; also for what comes behind the end of the answer."""
        if not self.received and data[:1] in (b"\r", b"\n"):  # which llhttp skips
            raise Malformed("An empty line before the answer")
        self.received = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise Malformed(str(error)) from None
        if self._pieces:
            self._framing = 0
            self._buffer(len(data))
        elif not self.complete:
            self._framing += len(data)
            if self._framing > MAX_HEAD:
                raise Malformed("More than 64 KiB between two pieces of an answer")
        if self.complete:
            self._parser = None  # else they hold each other
        self._wake()

    def _buffer(self, count: int) -> None:
        if self._discards:
            self._pieces.clear()
            return
        self._buffered += count
        if self._buffered > MAX_BUFFERED and not self._paused and not self.complete:
            self._paused = True
            self._flow.pause_reading()

    def flow_on(self) -> None:
        """Have the connection read again, if it had to pause for this answer."""
        if self._paused:
            self._paused = False
            self._flow.resume_reading()

    def end(self) -> None:
        """Note that all of it has come; an answer without a length ends with its connection."""
        self.complete, self._parser = True, None
        self._wake()

    def fail(self, error: Exception) -> None:
        """Note that there will be no more of it, and why."""
        self.error, self._parser = error, None
        self._wake()

    # --- what httptools tells -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See that there is one answer to one request."""
        if self.complete:
            raise Malformed("Data behind the end of the answer")

    def on_status(self, reason: bytes) -> None:
        """See that the reason is a text (RFC 9112, 4), of which llhttp makes nothing."""
        if _control(reason):
            raise Malformed("A control character in the status line")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header. Those of one name are one list (RFC 9110, 5.3). A trailer is counted alone."""
        self.lines += 1
        self._framing += len(name) + len(value)
        if self.lines > MAX_HEADERS or self._framing > MAX_HEAD:
            raise Malformed("Too many or too large headers")
        name = name.lower()
        if self.status:
            if name in FRAMING:  # which has no place there (RFC 9110, 6.5.1)
                raise Malformed("A length behind the body")
            return
        known = self.headers.get(name)
        self.headers[name] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        """Decide how long the body is, and whether this can be understood at all."""
        version, status = self._parser.get_http_version(), self._parser.get_status_code()
        if version not in VERSIONS:
            raise Malformed(f"HTTP/{version}")
        if status == SWITCHING_PROTOCOLS:
            raise Malformed("A change of protocols that nobody asked for")
        if status < OK:
            return
        coding = self.headers.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or version != VERSIONS[0]):
            raise Malformed("A transfer coding other than chunked")
        self._framing = 0
        self.status = status
        if not self._expects_body:
            self.complete = True
        elif coding is None and b"content-length" not in self.headers and status not in NO_BODY:
            self.until_close = True

    def on_message_complete(self) -> None:
        """Note the end; of an interim answer (RFC 9110, 15.2), that the answer itself is to come."""
        if not self.status:
            self.headers.clear()
            return
        self.complete = True
        self.keep_alive = self._expects_body and self._parser.should_keep_alive()
