"""The simulators' own faults, each in its engine's own way: a status or an error event says so, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from backends.sim import SIMULATORS, Options, parse_fault
from gateway import config
from tests.faults.scenario import assert_clean, scenario
from tests.support.clock import Clock, pass_until
from tests.support.harness import CHAT, Quiet, begun, configured, events, until
from tests.support.raw_client import Answer

TIMES = config.TimeoutsConfig(first_event=5, between_events=5, total=50, keep_alive=1000)
ASKED = CHAT | {"max_tokens": 20}

# (the fault, the status of a whole answer, that of a stream; 200 is one that breaks after its beginning)
FAULTS = [
    ("overload", 503, 503),
    ("error:3", 502, 200),
    ("stall:3", 504, 200),
    ("cut:3", 502, 200),
    ("garbage:3", 502, 200),
    ("half-event:3", 502, 200),
    ("html", 502, 502),
]
ROWS = [(kind, *row) for kind in SIMULATORS for row in FAULTS]
ROWS.append(("tgi", "wrong-dialect", 404, 404))  # a vLLM does not know the name that a TGI gives its model


@contextlib.asynccontextmanager
async def simulator(kind: str, *faults: str) -> AsyncIterator[str]:
    """Run a simulator with faults; give its URL."""
    options = Options(ttft_ms=5, itl_ms=2, faults=tuple(parse_fault(fault) for fault in faults))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = Quiet(uvicorn.Config(SIMULATORS[kind](options), lifespan="off", log_config=None, ws="none"))
        task = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.mark.parametrize(("kind", "fault", "whole", "stream"), ROWS)
async def test_a_simulators_fault_is_told_and_leaves_nothing(kind: str, fault: str, whole: int, stream: int) -> None:
    clock = Clock()
    async with simulator(kind, fault) as url, scenario(configured(**{kind: url}, timeouts=TIMES), clock=clock) as here:

        async def ask(stream: bool) -> Answer:
            asking = asyncio.ensure_future(here.ask(ASKED | {"stream": stream}))
            if fault.startswith("stall"):
                await until(lambda: begun(here.front) if stream else here.ledger)
                await pass_until(clock, asking.done)
            return await asking

        assert (await ask(False)).status == whole
        await assert_clean(here)
        answer = await ask(True)
        assert answer.status == stream
        assert not answer.finished
        assert "error" in events(answer.body)[-1] or stream != 200
        await assert_clean(here)
