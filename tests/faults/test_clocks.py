"""The clock on the wall jumps by an hour: what is in flight does not notice, keys expire by it, limits count on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from gateway import config
from tests.faults.engine_faults import after_first_event
from tests.faults.scenario import Scenario, assert_clean, scenario
from tests.support.clock import Clock
from tests.support.harness import CHAT, END, STREAM, Engine, configured, engine, piece
from tests.support.keys import GOOD, at, changed, ring
from tests.support.processes import answers

HOUR = 3600.0
START = 1_800_000_000.0
STREAMS = 20
TIMES = config.TimeoutsConfig(first_event=600, between_events=600, total=1200)  # which an hour would exceed


@dataclass
class Wall:
    """The clock on the wall."""

    now: float = START

    def time(self) -> float:
        return self.now


@asynccontextmanager
async def standing(wall: Wall, **key: object) -> AsyncIterator[tuple[Scenario, Engine]]:
    """Run a gateway by that clock, with one key; by the monotonic clock no time passes."""
    given = partial(configured, timeouts=TIMES)
    async with engine(answers()) as behind, scenario(given(behind.url), clock=Clock()) as here:
        services = here.front.services
        services.wall = wall.time
        services.keyring = ring(changed(**key))
        yield here, behind


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
async def test_streams_in_flight_do_not_notice_a_jump(jump: float) -> None:
    wall, go = Wall(), asyncio.Event()
    async with standing(wall, max_in_flight=STREAMS, requests_per_minute=10 * STREAMS) as (here, behind):

        async def rest(writer: asyncio.StreamWriter) -> None:
            writer.write(piece(b"".join(STREAM[1:])) + END)

        behind.script = after_first_event(go, rest)
        clients = [await here.client(CHAT | {"stream": True}, key=GOOD) for _ in range(STREAMS)]
        for client in clients:
            assert (await client.head()).status == 200
        wall.now += jump
        assert (await here.ask(CHAT, key=GOOD)).status == 429, "the places in flight are not forgotten"
        go.set()
        for client in clients:
            body = b""
            while more := await client.chunk():
                body += more
            assert body.endswith(STREAM[-1])
        await assert_clean(here)
        behind.script = answers()
        assert {(await here.ask(CHAT, key=GOOD)).status for _ in range(STREAMS)} == {200}


@pytest.mark.parametrize(("jump", "status"), [(0.0, 200), (HOUR, 401), (-HOUR, 200)], ids=["none", "ahead", "back"])
async def test_a_key_expires_by_the_wall_and_is_good_again_when_that_is_put_right(jump: float, status: int) -> None:
    wall = Wall()
    async with standing(wall, expires=at(START + HOUR / 2)) as (here, _):
        wall.now += jump
        assert (await here.ask(CHAT, key=GOOD)).status == status
        wall.now -= jump
        assert (await here.ask(CHAT, key=GOOD)).status == 200


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
async def test_a_jump_neither_shuts_a_key_out_nor_gives_it_more(jump: float) -> None:
    wall = Wall()
    async with standing(wall, requests_per_minute=6) as (here, _):
        statuses = []
        for now in (START, START + jump, START):
            wall.now = now
            statuses += [(await here.ask(CHAT, key=GOOD)).status for _ in range(3)]
        assert statuses == [200] * 6 + [429] * 3
