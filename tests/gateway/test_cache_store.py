"""Two tiers as one; whatever is wrong with what they hold is a miss, logged and counted. And leases across gateways."""

from __future__ import annotations

import asyncio
import signal
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import pytest

from gateway.cache import packed, store
from gateway.cache.entry import CachedAnswer, Label
from gateway.cache.lease import Lease, Leases
from gateway.cache.memory import MemoryTier
from gateway.cache.names import name_of
from gateway.cache.redis import RedisTier, shared_cache
from gateway.cache.store import Store
from tests.support import redis_servers
from tests.support.clock import Clock
from tests.support.harness import until
from tests.support.redis_servers import Server

NOW = 1_700_000_000.0
KEY = b"k" * 32
NAME = name_of("m", KEY)
ENTRY = CachedAnswer(Label(KEY, "m", NOW, 60.0), b'{"choices":[]}', b"")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with redis_servers.single() as made:
        yield made


@pytest.fixture
def server(running: Server) -> Server:
    running.ask("FLUSHALL")
    return running


@dataclass
class Gateway:
    """What one gateway has of the cache, with a clock that a test sets."""

    store: Store
    redis: RedisTier
    now: float = NOW

    async def settled(self) -> None:
        """Wait until Redis has all that was kept."""
        await until(lambda: not self.redis.waiting)


@asynccontextmanager
async def gateway(server: Server) -> AsyncIterator[Gateway]:
    redis = shared_cache(server.url)
    redis.client.deadline, redis.client.connect_timeout = 2.0, redis_servers.UNHURRIED  # which no busy machine misses
    made = Gateway(Store(MemoryTier(1_000_000), redis, lambda: made.now), redis)
    await made.store.open()
    try:
        yield made
    finally:
        await made.store.close()


async def test_what_one_gateway_keeps_all_are_served(server: Server) -> None:
    async with gateway(server) as one, gateway(server) as other:
        assert await one.store.get(KEY, "m") is None
        one.store.put(ENTRY)
        assert await one.store.get(KEY, "m") == ENTRY
        await one.settled()
        assert await other.store.get(KEY, "m") == ENTRY
        assert await other.store.get(KEY, "m") == ENTRY
        assert (one.store.hits, one.store.misses) == ({"memory": 1}, 1)
        assert (other.store.hits, other.store.misses) == ({"redis": 1, "memory": 1}, 0)
        assert other.store.held().entries == 1


async def test_what_came_from_redis_is_good_only_for_what_is_left_of_its_time(server: Server) -> None:
    async with gateway(server) as one, gateway(server) as other:
        one.store.put(ENTRY)
        await one.settled()
        other.now = NOW + 50
        assert await other.store.get(KEY, "m") is not None
        other.now = NOW + 60
        await one.redis.purge()
        assert await other.store.get(KEY, "m") is None


async def test_memory_alone_is_a_store(server: Server) -> None:
    alone = Store(MemoryTier(1_000_000), None, lambda: NOW)
    await alone.open()
    alone.put(ENTRY)
    assert await alone.get(KEY, "m") == ENTRY
    assert await alone.get(b"x" * 32, "m") is None
    assert await alone.purge("m") == 0
    await alone.close()


def _sealed(**changed: object) -> bytes:
    """Write the entry as somebody would who has the format right and the facts wrong."""
    label = Label(**{"digest": KEY, "model": "m", "created": NOW, "ttl": 60.0} | changed)  # type: ignore[arg-type]
    return packed.pack(CachedAnswer(label, ENTRY.whole, ENTRY.lines))


def _of_version(number: int) -> bytes:
    value = bytearray(_sealed())
    value[4] = number
    value[58:62] = struct.pack(">I", zlib.crc32(value[62:], zlib.crc32(value[:58])))
    return bytes(value)


FAULTS: dict[str, tuple[bytes, str]] = {
    "rubbish": (b"rubbish", "corrupt"),
    "nothing": (b"", "corrupt"),
    "a bit that fell over": (_sealed()[:-1] + b"?", "corrupt"),
    "half of it": (_sealed()[:70], "corrupt"),
    "an older version": (_of_version(0), "version"),
    "a newer version": (_of_version(2), "version"),
    "another's answer": (_sealed(digest=b"x" * 32), "poisoned"),
    "more than may be": (b"x" * (packed.MAX_SIZE + 1000), "oversize"),
    "the future": (_sealed(created=NOW + 1000), "clock"),
    "the past": (_sealed(created=NOW - 1000), "clock"),
    "no time at all": (_sealed(created=float("nan")), "clock"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_bad_value_is_a_miss_that_is_counted_and_logged_once(
    server: Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    value, kind = FAULTS[name]
    async with gateway(server) as one:
        await one.redis.client.redis.set(NAME, value)
        for _ in range(3):
            assert await one.store.get(KEY, "m") is None
        assert one.store.faults == {kind: 3}
        assert [kind in record.message for record in caplog.records if record.levelname == "WARNING"] == [True]
        one.now += store.QUIET
        assert await one.store.get(KEY, "m") is None
        assert sum(kind in record.message for record in caplog.records) == 2


async def test_a_bad_value_is_written_over_by_the_next_answer(server: Server) -> None:
    async with gateway(server) as one, gateway(server) as other:
        await one.redis.client.redis.set(NAME, b"rubbish")
        one.store.put(ENTRY)
        await one.settled()
        assert await other.store.get(KEY, "m") == ENTRY


async def test_an_answer_over_the_limit_is_not_written(server: Server) -> None:
    async with gateway(server) as one:
        one.store.put(CachedAnswer(ENTRY.label, b"x" * (packed.MAX_SIZE + 1), b""))
        assert one.store.faults == {"oversize": 1}
        assert one.redis.waiting == 0


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
async def test_a_clock_that_jumps_makes_misses_and_no_wrong_answers(server: Server, jump: float) -> None:
    async with gateway(server) as one:
        one.store.put(ENTRY)
        await one.settled()
        one.now += jump
        assert await one.store.get(KEY, "m") is None
        one.store.put(CachedAnswer(Label(KEY, "m", one.now, 60.0), ENTRY.whole, b""))
        assert await one.store.get(KEY, "m") is not None


async def test_while_redis_is_gone_memory_goes_on(running: Server) -> None:
    with redis_servers.single() as mortal:
        async with gateway(mortal) as one:
            mortal.send(signal.SIGKILL)
            one.store.put(ENTRY)
            assert await one.store.get(KEY, "m") == ENTRY
            assert [await one.store.get(b"x" * 32, "m") for _ in range(5)] == [None] * 5
            assert not one.redis.up


async def test_a_purge_forgets_in_both_tiers(server: Server) -> None:
    async with gateway(server) as one:
        one.store.put(ENTRY)
        await one.settled()
        one.now += 1
        assert await one.store.purge("other") == 0
        assert await one.store.get(KEY, "m") == ENTRY
        assert await one.store.purge("m") == 1
        assert await one.store.get(KEY, "m") is None


# --- leases ------------------------------------------------------------------------------------------------


STANDING = Clock()  # nobody has waited long enough, whatever the machine takes


def leases(of: Gateway, number: int, seconds: float = 600.0, clock: Clock = STANDING) -> Leases:
    names = count()
    return Leases(of.redis, lambda: f"{number}-{next(names)}", clock, seconds)


async def answered(
    of: Gateway, whose: Leases, asked: list[int], gate: asyncio.Event | None = None, keeps: bool = True
) -> CachedAnswer:
    """Answer as a gateway does: from another's answer if there is one, else by the engine, once the gate is open."""
    turn = await whose.acquire_or_get(NAME, lambda: of.store.shared(KEY, "m"))
    if isinstance(turn, CachedAnswer):
        return turn
    try:
        asked.append(1)
        if gate is not None:
            await gate.wait()
        if keeps:
            of.store.put(ENTRY)
        return ENTRY
    finally:
        turn.release()


class Looks:
    """Looks in vain, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> CachedAnswer | None:
        self.count += 1
        return None


async def test_of_several_gateways_one_asks(server: Server) -> None:
    asked: list[int] = []
    gate = asyncio.Event()
    async with gateway(server) as one, gateway(server) as two, gateway(server) as three:
        made = [(of, leases(of, number)) for number, of in enumerate((one, two, three))]
        asking = [asyncio.ensure_future(answered(of, whose, asked, gate)) for of, whose in made]
        await until(lambda: asked)
        gate.set()
        assert await asyncio.gather(*asking) == [ENTRY] * 3
        assert len(asked) == 1
        await one.settled()
        assert await one.redis.client.redis.exists(NAME + ":lease") == 0


async def test_a_gateway_that_comes_to_nothing_lets_the_next_ask(server: Server) -> None:
    asked: list[int] = []
    gate, looks = asyncio.Event(), Looks()
    async with gateway(server) as one, gateway(server) as two:
        first = asyncio.ensure_future(answered(one, leases(one, 1), asked, gate, keeps=False))
        await until(lambda: asked)
        waiting = asyncio.ensure_future(leases(two, 2).acquire_or_get(NAME, looks))
        await until(lambda: looks.count > 1)
        assert not waiting.done()
        gate.set()
        turn = await waiting
        assert isinstance(turn, Lease)
        turn.release()
        await first


@pytest.mark.parametrize(
    ("lasts", "patience"), [(4.0, 600.0), (600.0, 4.0)], ids=["as long as a lease lasts", "as long as it may wait"]
)
async def test_who_has_waited_long_enough_asks_too(server: Server, lasts: float, patience: float) -> None:
    clock, looks = Clock(), Looks()
    async with gateway(server) as one, gateway(server) as two:
        first = await leases(one, 1).acquire_or_get(NAME, Looks())
        assert isinstance(first, Lease)
        waiting = asyncio.ensure_future(leases(two, 2, lasts, clock).acquire_or_get(NAME, looks, patience))
        await until(lambda: looks.count > 1)
        assert not waiting.done()
        clock.now += 5
        turn = await waiting
        assert isinstance(turn, Lease)
        for one_lease in (turn, first):
            one_lease.release()


async def test_a_lease_that_ran_out_is_not_taken_from_the_next_who_has_it(server: Server) -> None:
    asked: list[int] = []
    async with gateway(server) as one, gateway(server) as two:
        gate = asyncio.Event()
        slow = asyncio.ensure_future(answered(one, leases(one, 1, seconds=0.05), asked, gate, keeps=False))
        await until(lambda: asked and server.ask("EXISTS", NAME + ":lease") == ":0")
        assert isinstance(await leases(two, 2).acquire_or_get(NAME, lambda: two.store.shared(KEY, "m")), Lease)
        gate.set()
        await slow
        await one.settled()
        assert await two.redis.client.redis.get(NAME + ":lease") == b"2-0"


async def test_a_lease_is_given_back_when_its_holder_is_cancelled(server: Server) -> None:
    asked: list[int] = []
    async with gateway(server) as one:
        holding = asyncio.ensure_future(answered(one, leases(one, 1), asked, asyncio.Event()))
        await until(lambda: asked)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
        await one.settled()
        assert asked == [1]
        assert await one.redis.client.redis.exists(NAME + ":lease") == 0


async def test_a_turn_that_is_cancelled_while_it_waits_leaves_no_lease(server: Server) -> None:
    async with gateway(server) as one, gateway(server) as two:
        first = await leases(one, 1).acquire_or_get(NAME, lambda: one.store.shared(KEY, "m"))
        assert isinstance(first, Lease)

        looks = Looks()

        async def look() -> CachedAnswer | None:
            await looks()
            if server.ask("GET", NAME + ":lease").endswith("2-0"):
                await asyncio.Event().wait()
            return None

        waiting = asyncio.ensure_future(leases(two, 2).acquire_or_get(NAME, look))
        await until(lambda: looks.count)
        first.release()
        await until(lambda: server.ask("GET", NAME + ":lease").endswith("2-0"))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await two.settled()
        assert server.ask("EXISTS", NAME + ":lease") == ":0"


async def test_without_redis_everybody_asks_at_once() -> None:
    asked: list[int] = []
    with redis_servers.single() as mortal:
        async with gateway(mortal) as one, gateway(mortal) as two:
            mortal.send(signal.SIGKILL)
            await asyncio.gather(answered(one, leases(one, 1), asked), answered(two, leases(two, 2), asked))
            assert len(asked) == 2
