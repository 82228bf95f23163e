"""A client on a bare socket: it can send half a request, read as slowly as it likes, leave, and leave rudely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

CHAT = "/v1/chat/completions"
HURRY = 60.0  # seconds, after which a client is sure that it was forgotten, on the busiest machine


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def finished(self) -> bool:
        """Whether it is a stream that says that it is whole."""
        return self.status == 200 and self.body.endswith(b"data: [DONE]\n\n")


class Client:
    """One connection. Whatever it waits for, it waits `HURRY` at most."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, body: Any, path: str = CHAT, key: str = "", withhold: int = 0) -> None:
        """Send a request, but for the last `withhold` bytes of its body."""
        data = json.dumps(body).encode()
        credential = f"authorization: Bearer {key}\r\n" if key else ""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{credential}content-length: {len(data)}\r\n\r\n"
        self._writer.write(head.encode() + data[: len(data) - withhold])

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def head(self) -> Answer:
        """Read the head of the answer."""
        async with asyncio.timeout(HURRY):
            first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(first.split(" ")[1]), headers, b"")

    async def chunk(self) -> bytes:
        """Read the next HTTP chunk of a streamed answer; at its end, nothing."""
        async with asyncio.timeout(HURRY):
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            return (await self._reader.readexactly(size + 2))[:-2]

    async def some(self, most: int) -> bytes:
        """Read what there is, unframed."""
        async with asyncio.timeout(HURRY):
            return await self._reader.read(most)

    async def rest(self) -> bytes:
        """Read all that still comes, until the gateway closes the connection."""
        async with asyncio.timeout(HURRY):
            return await self._reader.read()

    async def answer(self) -> Answer:
        """Read an answer to its end."""
        answer = await self.head()
        if "content-length" in answer.headers:
            async with asyncio.timeout(HURRY):
                answer.body = await self._reader.readexactly(int(answer.headers["content-length"]))
            return answer
        pieces = []
        while piece := await self.chunk():
            pieces.append(piece)
        answer.body = b"".join(pieces)
        return answer

    async def ask(self, body: Any, path: str = CHAT, key: str = "") -> Answer:
        """Send a request and read its answer."""
        self.send(body, path, key)
        return await self.answer()

    async def get(self, path: str) -> Answer:
        """Ask for a path."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return await self.answer()

    def leave(self) -> None:
        """Close the connection."""
        self._writer.close()

    def vanish(self) -> None:
        """Reset the connection."""
        reset(self._writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection by RST instead of FIN: what has not been sent is lost."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """Connect to the gateway."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
