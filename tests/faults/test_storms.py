"""Storms: all engines fail for a while, and many clients ask on. Nobody waits long, and nothing is multiplied.

Times are by a clock that runs with the event loop, in which all are: a busy machine makes nobody wait longer by it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from gateway import config
from tests.faults.engine_faults import after, resets
from tests.faults.scenario import Scenario, assert_clean, scenario
from tests.support.clock import Clock, running
from tests.support.harness import CHAT, Engine, Script, configured, engine, hangs, head, piece, says, whole
from tests.support.processes import answers
from tests.support.raw_client import Client

CLIENTS = 200
EACH = 5  # requests of a client during the storm
PAUSE = 0.02  # seconds between two, at most
SHARE = 0.2
SAVED = 10  # retries that may be made before any was earned
RULES = config.BreakerConfig(open=0.2, most_open=0.4)
FIRST_EVENT = 0.5
SWEEP = 0.5  # seconds between two looks at the deadlines

SLACK = 2.0  # seconds for the backoffs, and for what 200 clients and their engines cost, all in one process


def refuses(status: str, message: str, **more: Any) -> Script:
    return says(whole({"error": {"message": message}} if not more else {"error": message} | more, status))


# (engine, what it does, the status that clients see, whether the breaker opens, how often one try comes to the engine)
STORMS: dict[str, tuple[str, Script, int, bool, int]] = {
    "vLLM's 500": ("vllm", refuses("500 Internal Server Error", "EngineCore died"), 502, False, 1),
    "vLLM's 503": ("vllm", refuses("503 Service Unavailable", "busy"), 503, False, 1),
    "an upstream's 429": ("vllm", refuses("429 Too Many Requests", "slow down"), 429, False, 1),
    "TGI's 424": ("tgi", refuses("424 Failed Dependency", "failed", error_type="generation"), 502, False, 1),
    "TGI's 429": (
        "tgi",
        refuses("429 Too Many Requests", "Model is overloaded", error_type="overloaded"),
        503,
        False,
        1,
    ),
    "resets": ("vllm", after(b"", resets), 502, True, 2),  # as each may be a stale connection
    "silence": ("vllm", hangs(), 504, True, 1),
}


@dataclass
class Weather:
    """What clients saw: statuses, and how long each waited, in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    async def ask(self, here: Scenario, client: Client) -> int:
        """Ask once."""
        began = here.front.services.clock()
        here.send(client, CHAT | {"stream": True})
        answer = await client.answer()
        self.waits.append(here.front.services.clock() - began)
        self.statuses[answer.status] += 1
        return answer.status


async def rage(here: Scenario, clients: list[Client]) -> Weather:
    """Have all clients ask at once, several times each."""
    seen, chance = Weather(), Random(6)

    async def one(client: Client) -> None:
        for _ in range(EACH):
            await seen.ask(here, client)
            await asyncio.sleep(chance.uniform(0, PAUSE))

    await asyncio.gather(*(one(client) for client in clients))
    return seen


async def recovered(here: Scenario, client: Client) -> float:
    """Ask until there is an answer; return how many seconds that took."""
    clock = here.front.services.clock
    began = clock()
    while await Weather().ask(here, client) != 200:
        assert clock() - began < RULES.most_open + SLACK, "it does not recover"
        await asyncio.sleep(0.01)
    return clock() - began


def calm(behind: Engine, kind: str) -> Script:
    """Return what an engine says when all is well."""
    if kind == "vllm":
        return answers()
    delta = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    event = str(delta).replace("'", '"').encode()
    return says(head() + piece(b"data: " + event + b"\n\n" + b"data: [DONE]\n\n") + b"0\r\n\r\n")


ROWS = [(name, engines) for name, storm in STORMS.items() for engines in (1, 2) if engines == 1 or storm[0] == "vllm"]


@pytest.mark.parametrize(("name", "engines"), ROWS)
async def test_a_storm_is_not_multiplied_and_ends_when_it_ends(name: str, engines: int) -> None:
    kind, fault, status, opens, sends = STORMS[name]
    times = config.TimeoutsConfig(first_event=FIRST_EVENT if status == 504 else 60)
    async with engine(fault) as one, engine(fault) as two:
        urls = {kind: [one.url, two.url][:engines]}
        models = config.from_urls(urls, "tiny", {})
        given = configured(breaker=RULES, timeouts=times, retries=config.RetriesConfig(budget=SHARE), models=models)
        clock = Clock()
        async with running(clock), scenario(given, clock=clock) as here:
            clients = [await here.client() for _ in range(CLIENTS)]
            seen = await rage(here, clients)
            await assert_clean(here)
            tries = (len(one.asked) + len(two.asked)) // sends
            requests = CLIENTS * EACH
            assert set(seen.statuses) <= {status, 503}
            assert seen.statuses[status] > 0
            assert max(seen.waits) < (FIRST_EVENT + SWEEP) * engines + SLACK
            # The first try elsewhere is free; what comes to an open breaker does not come to the engine.
            asking = CLIENTS if opens else requests
            assert tries <= asking * engines + SHARE * requests + SAVED
            one.script = two.script = calm(one, kind)
            took = await recovered(here, clients[0])
            assert {await Weather().ask(here, client) for client in clients} == {200}
            print(
                f"\n{name}, {engines}: {tries} tries of {requests}, longest wait {max(seen.waits):.2f} s, {took=:.3f} s"
            )
