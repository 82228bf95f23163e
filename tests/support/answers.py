"""Answers of HTTP/1.1 as bytes, and what three readers make of them: ours, h11's, aiohttp's."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import aiohttp
import h11

from gateway.upstream.answer import HttpAnswer, Malformed


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
