"""Engines that fail in every phase of an answer, alone and beside a healthy one; afterwards all is as before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from gateway import config
from tests.faults.engine_faults import (
    EngineFault,
    Outage,
    after,
    after_first_event,
    black_holed,
    closes,
    endless,
    refused,
    resets,
    stalls,
    then,
)
from tests.faults.scenario import Scenario, assert_clean, scenario
from tests.support.clock import Clock
from tests.support.harness import (
    CHAT,
    STREAM,
    Engine,
    checked,
    engine,
    events,
    head,
    piece,
    settled,
    until,
    whole,
)
from tests.support.processes import answers

# Those of the answer are by the test's clock, which stands still but where an engine is to be silent for too long.
TIMES = config.TimeoutsConfig(connect=0.5, first_event=5, between_events=5, total=50, keep_alive=30)
OFTEN = config.HealthConfig(interval=0.2, slow_start=0)
HALF = piece(STREAM[0][:30])
GARBAGE = b"\x16\x03\x01 what is this?\r\n\r\n"
ENDLESS = {
    "a header that does not end": endless(b"a" * 65536),
    "headers that do not end": endless(b"x-more: of it\r\n" * 4096),
}
PHASES = {
    "before the head": (b"", b""),
    "in the head": (b"HTTP/1.1 200 OK\r\ncontent-ty", b"HTTP/1.1 200 OK\r\ncontent-ty"),
    "after the head": (head("application/json"), head()),
    "in the first event": (head("application/json") + piece(b'{"id": "'), head() + HALF),
}
FAULTS: dict[str, tuple[EngineFault, int]] = {
    "reset": (resets, 502),
    "closed": (closes, 502),
    "stalled": (stalls, 504),
    "garbage": (then(GARBAGE, closes), 502),
}
# (engine's words, for a whole answer and for a stream), then a close
NONSENSE: dict[str, tuple[bytes, bytes]] = {
    "a body that is no JSON": (whole(GARBAGE), head() + piece(GARBAGE + b"\n\n") + b"0\r\n\r\n"),
    "a length that is none": (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}",) * 2,
    "a chunk size that is none": (
        head("application/json") + b"zz\r\n{}\r\n0\r\n\r\n",
        head() + b"zz\r\n{}\r\n0\r\n\r\n",
    ),
    "a chunk longer than it says": (head("application/json") + b"2\r\n{}}}}\r\n", head() + b"6\r\n" + STREAM[0]),
    "a chunk shorter than it says": (head("application/json") + b"ffff\r\n{", head() + b"ffff\r\n" + STREAM[0][:40]),
    "an end before the first event": (head("application/json") + b"0\r\n\r\n", head() + b"0\r\n\r\n"),
}
LATE: dict[str, tuple[EngineFault, str]] = {
    "reset": (resets, "engine_error"),
    "closed": (closes, "engine_error"),
    "stalled": (stalls, "engine_timeout"),
    "half an event, and closed": (then(HALF, closes), "engine_error"),
    "half an event, and stalled": (then(HALF, stalls), "engine_timeout"),
    "reset in mid-event": (then(HALF, resets), "engine_error"),
    "garbage for an event": (then(piece(b"data: \x00\xff\n\n"), closes), "engine_error"),
    "a chunk size that is none": (then(b"zz\r\n\r\n", closes), "engine_error"),
}
BEFORE_ANY: dict[str, Outage] = {"refused": refused, "black-holed": black_holed}


@dataclass
class Faulty:
    """A gateway over an engine that is to fail, and the gateway's clock."""

    here: Scenario
    bad: Engine
    clock: Clock

    async def silence(self, seconds: float) -> None:
        """Let time pass, once the engine was asked and all that it says has come."""
        await until(lambda: self.bad.asked)
        await settled()
        self.clock.now += seconds


@contextlib.asynccontextmanager
async def faulty(sibling: bool) -> AsyncIterator[Faulty]:
    """Run a gateway over an engine, and if wanted a healthy one that is asked second."""
    async with contextlib.AsyncExitStack() as stack:
        bad, *others = [await stack.enter_async_context(engine(answers())) for _ in range(1 + sibling)]
        model = config.from_urls({"vllm": [bad.url, *(one.url for one in others)]}, "tiny", {})[0]
        deployments = [msgspec.structs.replace(one, weight=1 - i) for i, one in enumerate(model.deployments)]
        models = [msgspec.structs.replace(model, deployments=deployments)]
        given, clock = checked(config.Config(models=models, timeouts=TIMES, health=OFTEN)), Clock()
        yield Faulty(await stack.enter_async_context(scenario(given, clock=clock)), bad, clock)


async def answered_again(these: Faulty) -> None:
    """See that the engine that failed is asked once more, and answers."""
    here, bad = these.here, these.bad
    bad.script = answers()
    bad.asked.clear()
    await until(lambda: here.front.services.catalog.endpoints[0].up)
    assert (await here.ask(CHAT)).status == 200
    assert len(bad.asked) == 1


async def comes_to(these: Faulty, stream: bool, status: int, silent: float = 0) -> None:
    """Ask once; see what it comes to, that the engine was not asked without end, and that nothing is left.

    For `silent` seconds, if it is to be, the engine says nothing.
    """
    here, bad = these.here, these.bad
    bad.asked.clear()
    asking = asyncio.ensure_future(here.ask(CHAT | {"stream": stream}))
    if silent:
        await these.silence(silent)
    answer = await asking
    assert answer.status == status, answer.body
    assert answer.finished or not stream or status != 200
    assert len(bad.asked) <= 2 * here.front.services.config.retries.attempts
    await assert_clean(here)
    await answered_again(these)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("sibling", [False, True], ids=["alone", "beside another"])
async def test_before_the_first_byte_another_engine_answers_or_a_status_says_why(
    name: str, phase: str, sibling: bool
) -> None:
    fault, status = FAULTS[name]
    async with faulty(sibling) as these:
        for stream in (False, True):
            these.bad.script = after(PHASES[phase][stream], fault)
            silent = (6 if stream else 60) if fault is stalls else 0
            in_time = silent < TIMES.total  # a whole answer has but the total, which is the others' as well
            await comes_to(these, stream, 200 if sibling and in_time else status, silent)


@pytest.mark.parametrize("name", [*NONSENSE, *ENDLESS])
@pytest.mark.parametrize("sibling", [False, True], ids=["alone", "beside another"])
async def test_nonsense_on_the_wire_is_a_failed_engine(name: str, sibling: bool) -> None:
    async with faulty(sibling) as these:
        for stream in (False, True):
            if name in ENDLESS:
                these.bad.script = after(b"HTTP/1.1 200 OK\r\nx-long: ", ENDLESS[name])
            else:
                these.bad.script = after(NONSENSE[name][stream], closes)
            await comes_to(these, stream, 200 if sibling else 502)


@pytest.mark.parametrize("name", BEFORE_ANY)
@pytest.mark.parametrize("sibling", [False, True], ids=["alone", "beside another"])
async def test_an_engine_that_takes_no_connection_is_left_for_another_or_503(name: str, sibling: bool) -> None:
    async with faulty(sibling) as these:
        for stream in (False, True):
            async with BEFORE_ANY[name](these.bad):
                answer = await these.here.ask(CHAT | {"stream": stream})
                assert answer.status == (200 if sibling else 503), answer.body
                assert sibling or "retry-after" in answer.headers
                await assert_clean(these.here)
            await answered_again(these)


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("sibling", [False, True], ids=["alone", "beside another"])
async def test_after_the_first_byte_a_failure_is_an_error_event_and_no_done(name: str, sibling: bool) -> None:
    fault, code = LATE[name]
    heard = asyncio.Event()
    async with faulty(sibling) as these:
        these.bad.script = after_first_event(heard, fault)
        client = await these.here.client(CHAT | {"stream": True})
        assert (await client.head()).status == 200
        assert events(await client.chunk())[0]["choices"]
        heard.set()
        if code == "engine_timeout":
            await these.silence(6)
        rest = b""
        while chunk := await client.chunk():
            rest += chunk
        assert [one["error"]["code"] for one in events(rest)] == [code]
        assert len(these.bad.asked) == 1, "it was asked again although the client has its beginning"
        await answered_again(these)
