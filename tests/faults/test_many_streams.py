"""Two thousand streams at once, through one worker: each whole and its own, and no memory kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.faults.gateway_process import MIB, Process, allow_handles, assert_settled, process
from tests.support.harness import CHAT, END, USAGE, Asked, chunk, engine, events, head, piece
from tests.support.raw_client import connected

STREAMS = 2000
WORDS = 10
PACE = 0.2  # seconds between two words of a stream
PER_STREAM = 100_000  # bytes of the gateway's memory, at most
# Engine and clients share one event loop, which on a busy machine takes seconds to accept all connections.
PATIENT = "\n[timeouts]\nconnect = 60.0\nbetween_events = 600.0\n[health]\ninterval = 600.0\n"
KEPT = 40 * MIB  # more after the second round than after the first: the allocator's, which levels off after four


@dataclass
class Crowd:
    """A round of streams: none goes on before all have begun."""

    begun: int = 0
    all_begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def script(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Say the client's own word again and again, a number behind it."""
        word = asked.json["messages"][0]["content"]
        writer.write(head() + piece(chunk({"role": "assistant", "content": ""})))
        await self.all_begun.wait()
        for number in range(WORDS):
            writer.write(piece(chunk({"content": f"{word}.{number} "}, "stop" if number == WORDS - 1 else None)))
            await writer.drain()
            await asyncio.sleep(PACE)
        usage = chunk({}, usage=USAGE).replace(b'"choices": [{', b'"choices": [], "x": [{')
        writer.write(piece(usage + b"data: [DONE]\n\n") + END)

    async def stream(self, port: int, word: str) -> str:
        """Read one stream to its end; return its text."""
        async with connected(port) as client:
            client.send(CHAT | {"stream": True, "messages": [{"role": "user", "content": word}]})
            assert (await client.head()).status == 200
            body = await client.chunk()
            self.begun += 1
            if self.begun == STREAMS:
                self.all_begun.set()
            while more := await client.chunk():
                body += more
        *said, done = events(body)
        assert done == "data: [DONE]"
        return "".join(one["choices"][0]["delta"].get("content", "") for one in said)


async def round_of(running: Process, crowd: Crowd) -> tuple[int, float]:
    """Run all streams; return how much memory the gateway took when all had begun, and how long the rest took."""
    before = running.rss()
    streams = [asyncio.create_task(crowd.stream(running.front.port, f"w{number}")) for number in range(STREAMS)]
    begun = asyncio.ensure_future(crowd.all_begun.wait())
    done, _ = await asyncio.wait([begun, *streams], return_when=asyncio.FIRST_COMPLETED)
    assert done == {begun}, [task.exception() for task in done]
    taken, began = running.rss() - before, monotonic()
    for number, text in enumerate(await asyncio.gather(*streams)):
        assert text == "".join(f"w{number}.{place} " for place in range(WORDS))
    return taken, monotonic() - began


async def test_two_thousand_streams_at_once_are_whole_and_leave_nothing(tmp_path: Path) -> None:
    allow_handles(4 * STREAMS)
    crowd = Crowd()
    async with engine(crowd.script) as behind, process(tmp_path, behind.url, more=PATIENT) as running:
        handles = running.handles()
        taken, length = await round_of(running, crowd)
        await assert_settled(running, STREAMS)
        after = running.rss()
        again = Crowd()
        behind.script = again.script
        await round_of(running, again)
        await assert_settled(running, 2 * STREAMS)
        figures = (
            f"{taken / STREAMS / 1024:.1f} KiB a stream, {length:.1f} s, {(running.rss() - after) / MIB:.1f} MiB kept"
        )
        print(figures)
        assert taken < STREAMS * PER_STREAM
        assert running.rss() - after < KEPT
        assert running.handles() < handles + STREAMS + 20, (
            "idle connections to the engine aside, there are more handles"
        )
