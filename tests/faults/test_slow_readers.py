"""Clients that read slowly, or not at all, while the engine bursts: they hold up and cost nobody but themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest

from tests.faults.gateway_process import MIB, Process, assert_settled, process
from tests.support.harness import CHAT, END, STREAM, Asked, Engine, chunk, engine, head, piece, until
from tests.support.raw_client import Client, connected

BURST = piece(b"".join(chunk({"content": "x" * 800}) for _ in range(64)))
BURSTS = 50 * MIB // len(BURST)
SLOW = 10  # clients
EACH = 3 * MIB  # bytes of the gateway's memory that one may cost
EVENTS = 60
PACE = 0.02  # seconds between events of the others
HELD_UP = 10.0  # seconds, less than which none of theirs is late on a busy machine: a slow reader takes minutes


async def bursts(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Send 50 MB as fast as they are taken; to who asks for it by "paced", an event now and then."""
    writer.write(head() + piece(STREAM[0]))
    paced = asked.json["messages"][0]["content"] == "paced"
    for _ in range(EVENTS if paced else BURSTS):
        writer.write(piece(STREAM[1]) if paced else BURST)
        await writer.drain()
        await asyncio.sleep(PACE if paced else 0)
    writer.write(piece(b"".join(STREAM[2:])) + END)


async def stops(client: Client) -> None:
    """Read nothing more."""
    await asyncio.Event().wait()


async def crawls(client: Client) -> None:
    """Read 1 KB a second."""
    for _ in range(60):
        await client.some(1000)
        await asyncio.sleep(1)


@dataclass
class Pace:
    """How late the events of the others came, in seconds."""

    late: list[float] = field(default_factory=list)

    async def follow(self, running: Process) -> None:
        """Read one paced stream to its end."""
        async with connected(running.front.port) as client:
            client.send(CHAT | {"stream": True, "messages": [{"role": "user", "content": "paced"}]})
            await client.head()
            last, body = monotonic(), b""
            while more := await client.chunk():
                self.late.append(monotonic() - last - PACE)
                last, body = monotonic(), body + more
        assert body.endswith(STREAM[-1])
        assert body.count(b'"content":" dir"') == 1
        assert body.count("Grüße".encode()) == EVENTS


@asynccontextmanager
async def slow_clients(
    running: Process, behind: Engine, reads: Callable[[Client], Awaitable[None]]
) -> AsyncIterator[int]:
    """Have clients read so, for as long as the context lasts; give the memory that was there before."""
    before = running.rss()
    clients = [connected(running.front.port) for _ in range(SLOW)]
    made = [await client.__aenter__() for client in clients]
    for client in made:
        client.send(CHAT | {"stream": True})
        await client.head()
    reading = [asyncio.ensure_future(reads(client)) for client in made]
    try:
        yield before
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for client in made:
            client.vanish()


@pytest.mark.parametrize("reads", [stops, crawls])
async def test_slow_readers_cost_bounded_memory_and_hold_up_nobody(
    reads: Callable[[Client], Awaitable[None]], tmp_path: Path
) -> None:
    async with engine(bursts) as behind, process(tmp_path, behind.url) as running:
        await Pace().follow(running)
        async with slow_clients(running, behind, reads) as before:
            seen = Pace()
            await asyncio.gather(*(seen.follow(running) for _ in range(20)))
            grown = running.rss() - before
            assert behind.left == 0
        await until(lambda: behind.left == SLOW)
        await assert_settled(running, 1 + SLOW + 20)
        late = sorted(seen.late)
        figures = f"{grown / SLOW / MIB:.2f} MiB a slow reader; others {late[-1]:.3f} s late at most"
        print(figures)
        assert grown < SLOW * EACH
        assert late[-1] < HELD_UP


async def test_a_reader_that_was_slow_gets_all_of_it(tmp_path: Path) -> None:
    async with engine(bursts) as behind, process(tmp_path, behind.url) as running:
        async with connected(running.front.port) as client:
            client.send(CHAT | {"stream": True})
            await client.head()
            events, tail = 0, b""
            while more := await client.chunk():
                if not events:
                    await asyncio.sleep(0.5)
                events += more.count(b"\n\n")
                tail = more
        assert tail.endswith(STREAM[-1])
        assert behind.left == 0
        await assert_settled(running, 1)
        assert events == 1 + 64 * BURSTS + 2
