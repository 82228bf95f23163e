"""Answers of HTTP/1.1 as bytes, and what three readers make of them: ours, h11's, aiohttp's."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import aiohttp
import h11

from gateway.upstream.answer import MAX_HEAD, MAX_HEADERS, HttpAnswer, Malformed

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"

# name: the bytes, status, body, whether all came, whether the connection may be used again
ANSWERS: dict[str, tuple[bytes, int, bytes, bool, bool]] = {
    "a length": (OK + b"content-length: 2\r\n\r\nab", 200, b"ab", True, True),
    "no body": (OK + b"content-length: 0\r\n\r\n", 200, b"", True, True),
    "space around a value": (OK + b"content-length: \t2 \r\n\r\nab", 200, b"ab", True, True),
    "other letters": (OK + b"CONTENT-LENGTH: 2\r\n\r\nab", 200, b"ab", True, True),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True, True),
    "an empty reason": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True, True),
    "a status of its own": (b"HTTP/1.1 529 Site is overloaded\r\ncontent-length: 0\r\n\r\n", 529, b"", True, True),
    "latin-1 in a value": (OK + b"a: \xe9\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True, True),
    "to be closed": (OK + b"Connection: close\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True, False),
    "to be closed, in a list": (OK + b"connection: x, Close\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True, False),
    "no length": (OK + b"\r\nab", 200, b"ab", True, False),
    "no length, empty": (OK + b"\r\n", 200, b"", True, False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True, False),
    "HTTP/1.0, kept": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab",
        200,
        b"ab",
        True,
        True,
    ),
    "HTTP/1.0, no length": (b"HTTP/1.0 200 OK\r\n\r\nab", 200, b"ab", True, False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True, True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", 304, b"", True, True),
    "chunks": (CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 200, b"abc", True, True),
    "no chunk but the last": (CHUNKED + b"0\r\n\r\n", 200, b"", True, True),
    "sizes in both cases": (
        CHUNKED + b"00A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
        200,
        b"0123456789" * 2,
        True,
        True,
    ),
    "a chunk's extensions": (CHUNKED + b'2;a=b;c="d e"\r\nab\r\n0;x\r\n\r\n', 200, b"ab", True, True),
    "trailers": (CHUNKED + b"2\r\nab\r\n0\r\nx: y\r\nz: 1\r\n\r\n", 200, b"ab", True, True),
    "chunked, in other letters": (OK + b"Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 200, b"a", True, True),
    "100 before it": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\nab", 200, b"ab", True, True),
    "103 and 102 before it": (
        b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + CHUNKED + b"1\r\na\r\n0\r\n\r\n",
        200,
        b"a",
        True,
        True,
    ),
    "cut in the body": (OK + b"content-length: 3\r\n\r\nab", 200, b"ab", False, False),
    "cut between chunks": (CHUNKED + b"1\r\na\r\n", 200, b"a", False, False),
    "cut in a chunk": (CHUNKED + b"5\r\nab", 200, b"ab", False, False),
    "cut before the last line": (CHUNKED + b"1\r\na\r\n0\r\n", 200, b"a", False, False),
    "cut in the head": (OK + b"content-le", 0, b"", False, False),
    "nothing": (b"", 0, b"", False, False),
}
REFUSED = {
    "an empty line before it": b"\r\n" + OK + b"content-length: 2\r\n\r\nab",
    "a bare CR before it": b"\r" + OK + b"content-length: 2\r\n\r\nab",
    "a zero byte in the reason": b"HTTP/1.1 200 O\0K\r\ncontent-length: 2\r\n\r\nab",
    "two lengths": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nabc",
    "one length twice": OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab",
    "a list of lengths": OK + b"content-length: 2, 2\r\n\r\nab",
    "a length and chunks": OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "chunks and a length": OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "a length with a sign": OK + b"content-length: +2\r\n\r\nab",
    "a length below nothing": OK + b"content-length: -2\r\n\r\nab",
    "a length in hexadecimal": OK + b"content-length: 0x2\r\n\r\nab",
    "a length over 64 bits": OK + b"content-length: 99999999999999999999\r\n\r\nab",
    "an empty length": OK + b"content-length:\r\n\r\nab",
    "another transfer coding": OK + b"transfer-encoding: gzip\r\n\r\nab",
    "a second transfer coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "chunked, and something else": OK + b"transfer-encoding: chunked, identity\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "chunked twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "a folded line": OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
    "a bare LF behind a header": OK + b"content-length: 0\n\r\n",
    "a bare CR in a value": OK + b"a: b\rc: d\r\ncontent-length: 0\r\n\r\n",
    "a zero byte in a value": OK + b"a: b\0c\r\ncontent-length: 0\r\n\r\n",
    "space before the colon": OK + b"content-length : 2\r\n\r\nab",
    "space before a name": OK + b" content-length: 2\r\n\r\nab",
    "a name with a bracket": OK + b"a(b): c\r\ncontent-length: 0\r\n\r\n",
    "no name": OK + b": c\r\ncontent-length: 0\r\n\r\n",
    "no colon": OK + b"abc\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n",
    "small letters": b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "another's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
    "a chunk's size with a sign": CHUNKED + b"+2\r\nab\r\n0\r\n\r\n",
    "a chunk's size with 0x": CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\nab\r\n0\r\n\r\n",
    "a chunk's size over 64 bits": CHUNKED + b"fffffffffffffffff\r\nab\r\n",
    "a chunk that is longer": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a bare LF behind a size": CHUNKED + b"2\nab\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"2\r\nab\n0\r\n\r\n",
    "a bare CR in an extension": CHUNKED + b"2;a\rb\r\nab\r\n0\r\n\r\n",
    "no hexadecimal": CHUNKED + b"zz\r\n\r\n",
    "too many headers": OK + b"a: b\r\n" * (MAX_HEADERS + 1) + b"content-length: 0\r\n\r\n",
    "a large header": OK + b"a: " + b"b" * MAX_HEAD + b"\r\ncontent-length: 0\r\n\r\n",
    "a header without end": OK + b"a: " + b"b" * 2 * MAX_HEAD,
    "a chunk's line without end": CHUNKED + b"1;" + b"a" * 2 * MAX_HEAD,
    "a length among the trailers": CHUNKED + b"2\r\nab\r\n0\r\ncontent-length: 9\r\n\r\n",
    "a coding among the trailers": CHUNKED + b"2\r\nab\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
    "too many trailers": CHUNKED + b"0\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
    "interim answers without end": b"HTTP/1.1 102 P\r\n\r\n" * (MAX_HEAD // 9),  # twice as many as are read
}


class Read(NamedTuple):
    """What a reader made of an answer: its status, its body, and whether all of it came."""

    status: int
    body: bytes
    complete: bool


class Unpaused:
    """A connection that has nothing to pause."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


def fed(pieces: Iterable[bytes], closed: bool = True, expects_body: bool = True) -> HttpAnswer:
    """Return an answer that has been fed up to its end, and whose connection was closed then. Raises Malformed."""
    answer = HttpAnswer(Unpaused(), asyncio.get_running_loop(), expects_body)
    for piece in pieces:
        try:
            if not answer.complete:
                answer.feed(piece)
        except Malformed:
            if not answer.complete:  # else it is what comes behind
                raise
    if closed and answer.until_close:
        answer.end()
    return answer


async def goes_on(data: bytes) -> bool:
    """Return whether there is something behind an answer, which readers take in different ways."""
    answer = HttpAnswer(Unpaused(), asyncio.get_running_loop())
    try:
        answer.feed(data)
    except Malformed:
        return answer.complete
    return False


async def ours(data: bytes, cuts: Sequence[int] = (), expects_body: bool = True) -> Read | None:
    """Return what our reader makes of bytes, which come in pieces; None if it refuses them."""
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges) if end > start]
    try:
        answer = fed(pieces, expects_body=expects_body)
    except Malformed:
        return None
    if not answer.status:
        return Read(0, b"", False)
    answer.complete, complete = True, answer.complete
    body = b""
    while some := await answer.chunk():
        body += some
    return Read(answer.status, body, complete)


def h11s(data: bytes, method: str = "POST") -> Read | None:
    """Return what h11 makes of them."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)
    length = [("content-length", "0")] if method == "POST" else []
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a"), *length]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    status, body = 0, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return None
            elif isinstance(event, h11.EndOfMessage):
                return Read(status, body, True)
            else:
                return Read(status, body, False)
    except h11.RemoteProtocolError as error:
        cut_off = "peer closed connection" in str(error) or "without sending complete message" in str(error)
        return Read(status, body, False) if cut_off else None


async def aiohttps(data: bytes, method: str = "POST") -> Read | None:
    """Return what aiohttp's client makes of them, over a real connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    status = 0
    async with server, aiohttp.ClientSession(auto_decompress=False) as session:
        try:
            async with session.request(method, f"http://127.0.0.1:{port}/", allow_redirects=False) as answer:
                status = answer.status
                return Read(status, await answer.read(), True)
        except aiohttp.ClientPayloadError:
            return Read(status, b"", False)
        except aiohttp.ServerDisconnectedError:
            return Read(0, b"", False)
        except aiohttp.ClientError:
            return None


# What we refuse and h11 takes, each for a reason: RFC 9112 allows or asks for it (2.2, 6.1, 6.3, 7.1), and a gateway
# that reads it otherwise than what stands behind it would be led astray (11.2).
def is_stricter(data: bytes) -> bool:
    """Whether an answer is one of those that h11 takes and we do not."""
    body, lowered = data.partition(b"\r\n\r\n")[2], data.lower()
    return (
        re.search(rb"HTTP/(?!1\.[01] )", data) is not None  # h11 takes any version
        or b"\n" in data.replace(b"\r\n", b"")  # and takes a bare LF for the end of a line
        or lowered.count(b"content-length") > 1
        or b"," in lowered  # and one length twice, or in a list
        or (b"content-length" in lowered and b"transfer-encoding" in lowered)  # and lets chunks win
        or b"transfer-encoding" in lowered  # and trusts what it does not know
        or b" \r\n" in body
        or re.search(rb"\r\n[ \t]", data) is not None  # and folded lines
        or re.search(rb"content-length:[ \t]*\d{19}", lowered) is not None  # and any number
        or b"\x00" in data
        or b"\r" in data.replace(b"\r\n", b"")
    )
