"""Clients that go away in each phase of a request: the engine's work ends with them.

No time-out is shorter than ten minutes here: what ends, ends because the client went.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from gateway import config
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
from tests.support.raw_client import Client

BUSY = whole({"error": {"message": "busy"}}, "503 Service Unavailable")
BEGINS = hangs(head() + piece(STREAM[0]))
LONG_WAIT = config.RetriesConfig(backoff=3600)
TALKATIVE = config.TimeoutsConfig(keep_alive=0.1)

Phase = Callable[[Scenario, Engine, Any], Awaitable[Client]]


async def half_sent(here: Scenario, behind: Engine, body: Any) -> Client:
    """Before the gateway has all of the request."""
    client = await here.client(body, withhold=5)
    await until(lambda: here.ledger.opened == here.sent)
    return client


async def asking(here: Scenario, behind: Engine, body: Any) -> Client:
    """While the engine has said nothing."""
    client = await here.client(body)
    await until(lambda: behind.asked)
    return client


async def queued(here: Scenario, behind: Engine, body: Any) -> Client:
    """While another has the only place."""
    first = await asking(here, behind, body)
    client = await here.client(body)
    await until(lambda: here.front.services.admission.waiting == 1)
    client.leave()
    await until(lambda: here.front.services.admission.waiting == 0)
    assert len(behind.asked) == 1
    return first


async def backing_off(here: Scenario, behind: Engine, body: Any) -> Client:
    """Between two tries."""
    client = await here.client(body)
    places = here.front.services.catalog.endpoints[0]
    await until(lambda: behind.asked and here.ledger and not places.in_flight)
    return client


async def reading(here: Scenario, behind: Engine, body: Any) -> Client:
    """In the middle of the stream."""
    client = await here.client(body)
    await client.head()
    await client.chunk()
    return client


async def kept_alive(here: Scenario, behind: Engine, body: Any) -> Client:
    """While comments bridge a silence."""
    client = await here.client(body)
    await client.head()
    for _ in range(2):
        assert await client.chunk() == b": keep-alive\n\n"
    return client


# (how far it is, what the engine does, whether it streams, whether the engine has work that is to end)
PHASES: dict[str, tuple[Phase, Script, bool, bool]] = {
    "before the body is complete": (half_sent, hangs(), False, False),
    "while queued, and the one before it": (queued, hangs(), True, True),
    "before an answer": (asking, hangs(), False, True),
    "before the head of a stream": (asking, hangs(), True, True),
    "before the first event": (asking, hangs(head()), True, True),
    "in the body of an answer": (asking, hangs(head("application/json") + piece(b"{")), False, True),
    "in mid-stream": (reading, BEGINS, True, True),
    "in mid-event": (reading, hangs(head() + piece(STREAM[0] + STREAM[1][:20])), True, True),
    "while backing off": (backing_off, says(BUSY), True, False),
    "during keep-alive comments before the head": (kept_alive, hangs(), True, True),
    "during keep-alive comments before the first event": (kept_alive, hangs(head()), True, True),
}


def one_place(behind: Engine) -> config.Config:
    """Return the configuration of an engine that takes one request at a time."""
    given = configured(behind.url, timeouts=TALKATIVE, retries=LONG_WAIT)
    model = given.models[0]
    deployments = [msgspec.structs.replace(one, max_in_flight=1) for one in model.deployments]
    return msgspec.structs.replace(given, models=[msgspec.structs.replace(model, deployments=deployments)])


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("go", [Client.leave, Client.vanish], ids=["closes", "resets"])
async def test_a_client_that_goes_ends_its_request_and_the_work(name: str, go: Callable[[Client], None]) -> None:
    phase, script, stream, works = PHASES[name]
    async with engine(script) as behind, scenario(one_place(behind)) as here:
        client = await phase(here, behind, CHAT | {"stream": stream})
        assert here.ledger
        assert behind.left == 0
        go(client)
        await until(lambda: not here.ledger and behind.left == works)
        await assert_clean(here)
        behind.script = says(whole(b"{}", "400 Bad Request"))
        assert (await here.ask(CHAT)).status == 400, "the engine takes no more requests"


async def test_two_hundred_clients_that_go_at_once_leave_nothing() -> None:
    async with engine(BEGINS) as behind, scenario(configured(behind.url)) as here:
        clients = [await here.client(CHAT | {"stream": True}) for _ in range(200)]
        await asyncio.gather(*(client.head() for client in clients))
        for number, client in enumerate(clients):
            client.vanish() if number % 2 else client.leave()
        await until(lambda: not here.ledger and behind.left == 200)
        await assert_clean(here)
