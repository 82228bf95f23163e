"""Gateways that share a real Redis: answered by each other, one upstream call for all, none the worse without it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest

from gateway import config
from gateway.cache.redis import RedisTier
from tests.support import redis_servers
from tests.support.caching import FULL, STREAMED, crowd, gated, given_back, joined, plain, said
from tests.support.harness import CHAT, PATIENCE, Engine, Gateway, Script, engine, gateway, of, settled, until
from tests.support.ports import free_port
from tests.support.processes import answers
from tests.support.redis_servers import Server
from tests.support.scrape import scraped

DEADLINE = 1.0  # seconds for an answer of Redis
FOR_LONG = 20.0  # seconds: a few deadlines are far less on any machine, and a Redis that hangs takes for ever


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with redis_servers.single() as made:
        yield made


@pytest.fixture
def server(running: Server) -> Server:
    running.ask("FLUSHALL")
    return running


@asynccontextmanager
async def sharing(
    script: Script,
    url: str,
    ttls: tuple[str, str] = ("10m", "10m"),
    deadline: float = DEADLINE,
    up: bool = True,
) -> AsyncIterator[tuple[Engine, Gateway, Gateway]]:
    """Run two gateways over one engine and one Redis, each with a time to keep answers.

    They have a deadline that no busy machine misses, ask a Redis that is down again soon, and know whether it is `up`.
    """
    one, other = (config.CacheConfig(store="redis", url=url, ttl=ttl) for ttl in ttls)
    async with (
        engine(script) as behind,
        gateway(of(behind, "vllm", cache=one)) as left,
        gateway(of(behind, "vllm", cache=other)) as right,
    ):
        for front in (left, right):
            client = shared(front).client
            client.deadline, client.retry_interval = deadline, 0.05
            await become(front, up)
        yield behind, left, right
        for front in (left, right):
            await given_back(front)


def shared(front: Gateway) -> RedisTier:
    """Return a gateway's own view of the Redis."""
    assert front.services.cache is not None
    assert front.services.cache.store.redis is not None
    return front.services.cache.store.redis


async def become(front: Gateway, up: bool) -> None:
    """Wait until a gateway knows whether the Redis answers."""
    await until(lambda: shared(front).up is up)


async def written(front: Gateway) -> None:
    """Wait until Redis has all that a gateway has kept."""
    await until(lambda: not shared(front).waiting)


@pytest.mark.parametrize("first", [CHAT, STREAMED])
@pytest.mark.parametrize("then", [CHAT, STREAMED])
async def test_what_one_gateway_kept_the_other_serves(
    server: Server, first: dict[str, Any], then: dict[str, Any]
) -> None:
    async with sharing(answers(), server.url) as (behind, one, other):
        fresh = await one.post(first)
        await written(one)
        again = await other.post(then)
        assert (said(fresh), said(again), len(behind.asked)) == ("miss", "hit", 1)
        assert joined(plain(again))[:3] == FULL[:3]
        assert again.headers["x-pointsman-engine"] == "cache"


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_of_two_gateways_that_are_asked_the_same_at_once_one_asks_the_engine(
    server: Server, body: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    async with sharing(gated(gate), server.url) as (behind, one, other), crowd(one) as left, crowd(other) as right:
        asking = [
            asyncio.ensure_future(client.post("/v1/chat/completions", json=body))
            for _ in range(50)
            for client in (left, right)
        ]
        await until(lambda: sum(one.cache != "" for front in (one, other) for one in front.services.sweep.open) >= 100)
        gate.set()
        told = await asyncio.gather(*asking)
        assert len(behind.asked) == 1
    for answer in told:
        assert joined(plain(answer))[:3] == FULL[:3]
    words = [said(answer) for answer in told]
    assert words.count("miss") == words.count("hit") == 1
    assert words.count("coalesced") == 98


async def test_at_an_engine_that_answers_at_once_two_gateways_ask_once_each_time(
    server: Server,
) -> None:
    # One late answer, and both would ask.
    async with sharing(answers(), server.url, deadline=5.0) as (behind, one, other):
        for number in range(20):
            body = CHAT | {"seed": number}
            await asyncio.gather(*(front.post(body) for front in (one, other) for _ in range(5)))
            assert len(behind.asked) == number + 1


async def test_an_answer_of_anothers_is_not_made_younger_by_who_waited_for_it(server: Server) -> None:
    gate = asyncio.Event()
    async with sharing(gated(gate), server.url, ttls=("1m", "10m")) as (behind, one, other):
        first = asyncio.ensure_future(one.post(CHAT))
        await until(lambda: behind.asked)
        waiting = asyncio.ensure_future(other.post(CHAT))
        await until(lambda: other.services.sweep.open)
        await settled()
        gate.set()
        assert [said(await first), said(await waiting)] == ["miss", "hit"]
        await written(other)
        (name,) = [name async for page in shared(one).names() for name in page]
        assert 0 < await shared(one).client.redis.ttl(name) <= 60


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_redis_that_is_gone_or_hangs_is_a_miss_and_holds_nobody_up_for_long(how: signal.Signals) -> None:
    with redis_servers.single() as mortal:
        async with sharing(answers(), mortal.url) as (behind, one, other):
            assert said(await one.post(CHAT)) == "miss"
            await written(one)
            mortal.send(how)
            for number in range(10):
                began = monotonic()
                answer = await other.post(CHAT | {"seed": number})
                assert (answer.status_code, said(answer)) == (200, "miss")
                assert monotonic() - began < FOR_LONG  # it looks, takes a lease, and looks again
            assert not shared(other).up
            assert said(await one.post(CHAT)) == "hit"  # of its own memory
            figures = await scraped(other.client)
            assert figures.sum("pointsman_redis_up", use="cache") == 0
            asked = len(behind.asked)
            if how is signal.SIGKILL:
                mortal.start()
            else:
                mortal.send(signal.SIGCONT)
            await become(other, True)
            await other.post(CHAT | {"seed": 100})
            await written(other)
            await become(one, True)
            assert said(await one.post(CHAT | {"seed": 100})) == "hit"
            assert len(behind.asked) == asked + 1


async def test_a_gateway_starts_and_answers_without_its_redis() -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    async with sharing(answers(), nobody, up=False) as (_, one, other):
        assert [said(await front.post(CHAT)) for front in (one, one, other)] == ["miss", "hit", "miss"]


@pytest.mark.parametrize(("value", "kind"), [("nonsense", "corrupt"), ("PSMC\x09" + "x" * 90, "version")])
async def test_a_value_that_is_no_answer_is_a_miss_and_counted(server: Server, value: str, kind: str) -> None:
    async with sharing(answers(), server.url) as (behind, one, other):
        await one.post(CHAT)
        await written(one)
        (name,) = [name async for page in shared(one).names() for name in page]
        server.ask("SET", name, value)
        answer = await other.post(CHAT)
        assert (answer.status_code, said(answer), len(behind.asked)) == (200, "miss", 2)
        figures = await scraped(other.client)
        assert figures.sum("pointsman_cache_faults_total", kind=kind) >= 1


async def test_a_failover_by_sentinels_is_a_few_misses_and_then_goes_on() -> None:
    with redis_servers.sentinels() as watched:
        async with sharing(answers(), watched.url) as (_, one, other):
            await one.post(CHAT)
            await written(one)
            assert said(await other.post(CHAT)) == "hit"
            watched.primary.send(signal.SIGKILL)
            statuses = set()
            ends, seed, again = monotonic() + PATIENCE, 0, ""
            while again != "hit" and monotonic() < ends:
                seed += 1
                began = monotonic()
                statuses.add((await one.post(CHAT | {"seed": seed})).status_code)
                assert monotonic() - began < FOR_LONG
                await asyncio.sleep(0.05)
                again = said(await other.post(CHAT | {"seed": seed}))
            assert statuses == {200}
            assert again == "hit"


async def test_a_cluster_that_loses_a_node_still_serves_what_the_others_have() -> None:
    with redis_servers.cluster() as nodes:
        async with sharing(answers(), nodes.url) as (_, one, other):
            for seed in range(12):
                await one.post(CHAT | {"seed": seed})
            await written(one)
            told = [said(await other.post(CHAT | {"seed": seed})) for seed in range(12)]
            assert told == ["hit"] * 12
            nodes.nodes[2].send(signal.SIGKILL)
            for seed in range(100, 120):
                began = monotonic()
                answer = await other.post(CHAT | {"seed": seed})
                assert (answer.status_code, said(answer)) == (200, "miss")
                assert monotonic() - began < FOR_LONG
