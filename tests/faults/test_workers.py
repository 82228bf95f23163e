"""A worker killed under load: the streams of the others go on, another takes its place, and the count stays right."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

from tests.faults.gateway_process import Process, assert_settled, process
from tests.support.harness import CHAT, STREAM, engine, until
from tests.support.processes import answers, eventually, held, workers
from tests.support.raw_client import Client, connected

EACH = 20  # streams of each worker


async def begun(running: Process, asleep: int, stack: AsyncExitStack) -> list[Client]:
    """Begin streams at the worker that is not asleep."""
    os.kill(asleep, signal.SIGSTOP)
    clients = [await stack.enter_async_context(connected(running.front.port)) for _ in range(EACH)]
    for client in clients:
        client.send(CHAT | {"stream": True})
    for client in clients:
        assert (await client.head()).status == 200
    os.kill(asleep, signal.SIGCONT)
    return clients


async def rest(client: Client) -> bytes:
    """Return the rest of a stream; nothing if its connection broke."""
    body = b""
    try:
        while more := await client.chunk():
            body += more
    except (OSError, EOFError):
        return b""
    return body


async def test_a_killed_worker_takes_its_own_streams_along_alone_and_is_replaced(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with (
        engine(held(go)) as behind,
        process(tmp_path, behind.url, "--workers", "2") as running,
        AsyncExitStack() as stack,
    ):
        await eventually(lambda: running.front.said.count("one at ") == 2)  # each has heard the engine
        first, second = workers(running.front)
        lost = await begun(running, second, stack)
        kept = await begun(running, first, stack)
        os.kill(first, signal.SIGKILL)
        killed = monotonic()
        assert await asyncio.gather(*(rest(client) for client in lost)) == [b""] * EACH
        await until(lambda: behind.left == EACH)
        go.set()
        for body in await asyncio.gather(*(rest(client) for client in kept)):
            assert body.endswith(STREAM[-1])
        await eventually(lambda: len(workers(running.front) - {first}) == 2)
        await eventually(lambda: running.front.said.count("one at ") >= 3)  # one that was asleep may say it again
        print(f"replaced after {monotonic() - killed:.2f} s")
        behind.script = answers()
        for _ in range(EACH):
            assert (await running.ask(CHAT)).status == 200
        await assert_settled(running, 2 * EACH)
