"""What a request took, of whatever kind, is given back: after many of them there is no more in memory than before."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from gateway import config
from tests.faults.engine_faults import after, resets
from tests.faults.scenario import Scenario, assert_clean, scenario
from tests.support.harness import (
    CHAT,
    STREAM,
    Engine,
    Script,
    configured,
    engine,
    hangs,
    head,
    piece,
    says,
    until,
    whole,
)
from tests.support.processes import answers
from tests.support.raw_client import connected

WARM, MANY = 30, 100
EACH = 400  # bytes that one may seem to leave: arenas, caches and the test's own lists

NEVER = config.BreakerConfig(failures=10**6, share=1, window=0.001)

Visit = Callable[[Scenario, Engine, bool], Awaitable[None]]


async def asks(here: Scenario, behind: Engine, stream: bool) -> None:
    """Ask, and read the answer, whatever it is."""
    await here.ask(CHAT | {"stream": stream})


async def leaves(here: Scenario, behind: Engine, stream: bool) -> None:
    """Ask, and leave before there is an answer or in the middle of it."""
    async with connected(here.front.port) as client:
        here.send(client, CHAT | {"stream": stream})
        await (client.head() if stream else until(lambda: behind.asked))
        client.vanish()
        await until(lambda: not here.ledger)
    behind.asked.clear()


async def errs(here: Scenario, behind: Engine, stream: bool) -> None:
    """Ask what cannot be."""
    await here.ask({"model": "another"} if stream else {"messages": 3})


VISITS: dict[str, tuple[Visit, Script, bool]] = {
    "whole answers": (asks, answers(), False),
    "streams": (asks, answers(), True),
    "failures": (asks, says(whole({"error": {"message": "died"}}, "500 Internal Server Error")), False),
    "broken streams": (asks, after(head() + piece(STREAM[0]), resets), True),
    "garbage in a stream": (asks, says(head() + piece(STREAM[0]) + piece(b"data: {what\n\n")), True),
    "clients that leave at once": (leaves, hangs(), False),
    "clients that leave in mid-stream": (leaves, hangs(head() + piece(STREAM[0])), True),
    "bad requests": (errs, answers(), False),
    "unknown models": (errs, answers(), True),
}


def held(here: Scenario, behind: Engine) -> int:
    """Return the bytes in use, the test's own aside."""
    behind.asked.clear()
    behind.writers.clear()
    here.front.services.records.flush()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize("name", VISITS)
async def test_many_requests_leave_no_more_in_memory_than_a_few(name: str) -> None:
    visit, script, stream = VISITS[name]
    once = config.RetriesConfig(attempts=1)
    async with engine(script) as behind, scenario(configured(behind.url, breaker=NEVER, retries=once)) as here:
        for _ in range(WARM):
            await visit(here, behind, stream)
        tracemalloc.start()
        try:
            for _ in range(WARM):
                await visit(here, behind, stream)
            before = held(here, behind)
            for _ in range(MANY):
                await visit(here, behind, stream)
            left = (held(here, behind) - before) / MANY
        finally:
            tracemalloc.stop()
        print(f"{name}: {left:.0f} bytes a request")
        assert left < EACH
        await assert_clean(here)
