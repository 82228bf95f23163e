"""What engines do wrong: on the wire of an answer, and before there is one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.support.harness import STREAM, Asked, Engine, Script, head, piece
from tests.support.raw_client import reset

EngineFault = Callable[[asyncio.StreamWriter], Awaitable[None]]
Outage = Callable[[Engine], contextlib.AbstractAsyncContextManager[None]]


async def resets(writer: asyncio.StreamWriter) -> None:
    """End by RST."""
    reset(writer)
    raise ConnectionError


async def closes(writer: asyncio.StreamWriter) -> None:
    """End by FIN."""
    writer.close()
    raise ConnectionError


async def stalls(writer: asyncio.StreamWriter) -> None:
    """Say nothing more, and stay."""
    await asyncio.Event().wait()


def then(data: bytes, end: EngineFault) -> EngineFault:
    """Say this first."""

    async def fault(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await end(writer)

    return fault


def endless(data: bytes) -> EngineFault:
    """Say this again and again, until nobody listens."""

    async def fault(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)  # drain() waits for nothing while there is room

    return fault


def after(before: bytes, fault: EngineFault) -> Script:
    """Return the script of an engine that says this first."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await then(before, fault)(writer)

    return script


def after_first_event(heard: asyncio.Event, fault: EngineFault) -> Script:
    """Return the script of an engine that streams one event, and goes on when the client has `heard` it."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]))
        await heard.wait()
        await fault(writer)

    return script


@contextlib.asynccontextmanager
async def refused(engine: Engine) -> AsyncIterator[None]:
    """Nothing listens there, for a while."""
    port = _stopped(engine)
    yield
    await _back(engine, port)


@contextlib.asynccontextmanager
async def black_holed(engine: Engine) -> AsyncIterator[None]:
    """Something listens there and takes no connection, for a while: its backlog is full."""
    port = _stopped(engine)
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind(("127.0.0.1", port))
        hole.listen(0)
        for _ in range(4):  # a backlog of 0 holds one or two
            plug = stack.enter_context(socket.socket())
            plug.setblocking(False)
            plug.connect_ex(("127.0.0.1", port))
        yield
    await _back(engine, port)


def _stopped(engine: Engine) -> int:
    assert engine.listening is not None
    port: int = engine.listening.sockets[0].getsockname()[1]
    engine.stop()
    return port


async def _back(engine: Engine, port: int) -> None:
    engine.listening = await asyncio.start_server(engine.serve, "127.0.0.1", port, limit=2**25)
