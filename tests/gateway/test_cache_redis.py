"""Tier 2 over real Redis servers: alone, failing over, as a Cluster; and killed, stopped, full and back again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.__main__ import main
from gateway.cache.names import LEASE, PREFIX, name_of
from gateway.cache.redis import WHILE_DOWN, RedisTier
from gateway.redis.client import RedisClient
from tests.support import redis_servers
from tests.support.harness import until
from tests.support.processes import become
from tests.support.redis_servers import Server

KEY = b"k" * 32
NAME = name_of("m", KEY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with redis_servers.single() as running:
        yield running


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server that a test may kill."""
    with redis_servers.single() as running:
        yield running


@asynccontextmanager
async def opened(url: str, deadline: float = 2.0, **bounds: int) -> AsyncIterator[RedisTier]:
    """A tier whose tasks are all gone afterwards; with a deadline that no busy machine misses."""
    before = asyncio.all_tasks()
    made = RedisTier(RedisClient(url, "cache", WHILE_DOWN, deadline, 0.05, redis_servers.UNHURRIED), **bounds)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        assert asyncio.all_tasks() <= before


async def written(tier: RedisTier, name: str, value: bytes, ttl: float = 60.0) -> None:
    tier.put(name, value, ttl)
    await until(lambda: tier.waiting == 0)


async def test_a_value_is_written_and_read_and_gone_after_its_time(server: Server) -> None:
    async with opened(server.url) as tier:
        await written(tier, NAME, b"value", 1.0)
        assert await tier.get(NAME) == b"value"
        assert await tier.get(name_of("m", b"x" * 32)) is None
        await until(lambda: server.ask("EXISTS", NAME) == ":0")
        assert await tier.get(NAME) is None
        assert (tier.hits, tier.misses, tier.client.health.errors) == (1, 2, 0)


async def test_what_is_written_and_not_yet_sent_is_sent_before_it_closes(server: Server) -> None:
    async with opened(server.url) as tier:
        for number in range(100):
            tier.put(name_of("closing", bytes([number]) * 32), b"value", 60.0)
    async with opened(server.url) as tier:
        assert await tier.purge("closing") == 100


async def test_reads_of_one_moment_go_together_and_each_gets_its_own(server: Server) -> None:
    async with opened(server.url) as tier:
        for number in range(0, 200, 2):
            tier.put(name_of("m", bytes([number]) * 32), b"%d" % number, 60.0)
        await until(lambda: tier.waiting == 0)
        commands_before = _processed(server)
        found = await asyncio.gather(*(tier.get(name_of("m", bytes([number]) * 32)) for number in range(200)))
        assert found == [b"%d" % number if number % 2 == 0 else None for number in range(200)]
        assert _processed(server) - commands_before < 20
        await tier.purge()


def _processed(server: Server) -> int:
    said = server.ask("INFO", "stats")
    return int(next(line for line in said.splitlines() if line.startswith("total_commands_processed")).split(":")[1])


async def test_a_reader_that_leaves_takes_nothing_from_the_others(server: Server) -> None:
    async with opened(server.url) as tier:
        await written(tier, NAME, b"value")
        leaving = asyncio.ensure_future(tier.get(NAME))
        staying = asyncio.ensure_future(tier.get(NAME))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == b"value"
        await tier.purge()


async def test_one_models_values_are_counted_and_purged_and_no_others(server: Server) -> None:
    names = ["a", "a/b", "a*", "{a}", "a:b", "[a]?"]
    async with opened(server.url) as tier:
        for model in names:
            tier.put(name_of(model, KEY), b"12345", 60.0)
            tier.put(name_of(model, b"x" * 32), b"12345", 60.0)
        await tier.client.redis.set("somebody:else", "1")
        await tier.client.redis.set(NAME + LEASE, "1")
        await until(lambda: tier.waiting == 0)
        assert await tier.stats() == dict.fromkeys(names, (2, 10))
        assert await tier.purge("a*") == 2
        assert await tier.stats() == dict.fromkeys([name for name in names if name != "a*"], (2, 10))
        assert await tier.purge() == 10
        assert await tier.stats() == {}
        assert await tier.client.redis.get("somebody:else") == b"1"


async def test_a_server_that_is_killed_is_a_miss_and_is_used_again_when_it_is_back(
    mortal: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(mortal.url) as tier:
        await written(tier, NAME, b"value")
        mortal.send(signal.SIGKILL)
        assert [await tier.get(NAME) for _ in range(20)] == [None] * 20
        assert not tier.up
        tier.put(NAME, b"value", 60.0)
        assert tier.dropped == 1
        mortal.start()
        await until(lambda: tier.up)
        await written(tier, NAME, b"new")
        assert await tier.get(NAME) == b"new"
    assert [record.message.split(":")[1] for record in caplog.records if record.levelname == "WARNING"] == [
        " Redis does not answer, answers are kept in memory alone",
        " Redis answers again",
    ]


async def test_a_server_that_is_quickly_restarted_costs_no_error(mortal: Server) -> None:
    async with opened(mortal.url) as tier:
        mortal.send(signal.SIGKILL)
        mortal.start()
        assert await tier.get(NAME) is None
        assert (tier.up, tier.client.health.errors) == (True, 0)


async def test_a_server_that_hangs_costs_a_few_deadlines_and_then_nothing(mortal: Server) -> None:
    async with opened(mortal.url) as tier:
        await until(lambda: tier.up)
        await written(tier, NAME, b"value")
        unhurried, tier.client.deadline = tier.client.deadline, 0.02
        mortal.send(signal.SIGSTOP)
        for _ in range(500):
            assert await tier.get(NAME) is None
        assert tier.client.health.errors in (3, 4)  # with a probe that was under way
        assert not tier.up
        tier.client.deadline = unhurried
        mortal.send(signal.SIGCONT)
        await until(lambda: tier.up)
        assert await tier.get(NAME) == b"value"


async def test_answers_that_came_too_late_are_never_taken_for_others(mortal: Server) -> None:
    async with opened(mortal.url, deadline=0.02) as tier:
        await until(lambda: tier.up)
        names = [name_of("m", bytes([number]) * 32) for number in range(50)]
        for name in names:
            tier.put(name, name.encode(), 60.0)
        await until(lambda: tier.waiting == 0)
        for _ in range(5):
            mortal.send(signal.SIGSTOP)
            late = [asyncio.ensure_future(tier.get(name)) for name in names[:10]]
            await asyncio.sleep(0.03)
            mortal.send(signal.SIGCONT)
            found = [await tier.get(name) for name in names]
            assert all(value in (None, name.encode()) for name, value in zip(names, found, strict=True))
            await asyncio.gather(*late)
            await until(lambda: tier.up)


async def test_a_full_server_refuses_writes_and_is_read_all_the_same(mortal: Server) -> None:
    async with opened(mortal.url) as tier:
        await written(tier, NAME, b"value")
        mortal.ask("CONFIG", "SET", "maxmemory", "1")
        for _ in range(5):
            await written(tier, name_of("m", b"x" * 32), b"value")
        assert tier.client.health.errors == 5
        assert tier.up
        assert await tier.get(NAME) == b"value"


async def test_a_server_that_is_not_there_at_the_start_is_used_when_it_comes(mortal: Server) -> None:
    mortal.send(signal.SIGKILL)
    async with opened(mortal.url) as tier:
        assert not tier.up
        assert await tier.get(NAME) is None
        assert tier.client.health.errors == 0
        mortal.start()
        await until(lambda: tier.up)
        await written(tier, NAME, b"value")
        assert await tier.get(NAME) == b"value"


async def test_more_writes_than_may_wait_are_dropped(server: Server) -> None:
    async with opened(server.url, max_writes=20, max_write_bytes=100) as tier:
        for number in range(30):
            tier.put(name_of("many", bytes([number]) * 32), b"value", 60.0)
        assert tier.dropped == 10
        await until(lambda: tier.waiting == 0)
        tier.put(NAME, b"x" * 101, 60.0)
        assert tier.dropped == 11
        await tier.purge()


async def test_after_a_failover_the_new_primary_is_used() -> None:
    with redis_servers.sentinels() as watched:
        async with opened(watched.url) as tier:
            await written(tier, NAME, b"value")
            assert watched.primary.ask("EXISTS", NAME) == ":1"
            redis_servers.wait(lambda: watched.replica.ask("EXISTS", NAME) == ":1")
            watched.primary.send(signal.SIGKILL)
            assert await tier.get(NAME) is None
            await become(lambda: tier.get(NAME), b"value")
            await written(tier, NAME, b"new")
            assert await tier.get(NAME) == b"new"
            assert "role:master" in watched.replica.ask("INFO", "replication")


async def test_a_cluster_of_three_is_used_whole_and_what_is_left_of_it_when_a_node_is_gone() -> None:
    names = [name_of("m", bytes([number]) * 32) for number in range(60)]
    with redis_servers.cluster() as nodes:
        async with opened(nodes.url) as tier:
            for name in names:
                tier.put(name, name.encode(), 60.0)
            await until(lambda: tier.waiting == 0)
            assert await asyncio.gather(*map(tier.get, names)) == [name.encode() for name in names]
            assert all(node.ask("DBSIZE") != ":0" for node in nodes.nodes)
            assert await tier.stats() == {"m": (60, sum(map(len, names)))}
            nodes.nodes[2].send(signal.SIGKILL)
            found = [await tier.get(name) for name in names * 3]
            assert all(value in (None, name.encode()) for name, value in zip(names * 3, found, strict=True))
            assert tier.client.health.errors > 0
            nodes.nodes[2].start()
            redis_servers.wait(lambda: "cluster_state:ok" in nodes.nodes[2].ask("CLUSTER", "INFO"))
            await until(lambda: tier.up)
            redis_servers.wait(lambda: all(map(whole, nodes.nodes)))
            assert await tier.purge("m") > 20
            assert await tier.stats() == {}


def whole(node: Server) -> bool:
    """Return whether a node of a Cluster sees all slots served."""
    return f"cluster_slots_ok:{redis_servers.SLOTS}" in node.ask("CLUSTER", "INFO")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["cache", *words], catch_exceptions=False)


def test_the_commands_say_what_is_kept_and_delete_it(server: Server, tmp_path: Path) -> None:
    async def fill() -> None:
        async with opened(server.url) as tier:
            tier.put(name_of("tiny", KEY), b"x" * 1234, 60.0)
            tier.put(name_of("large", KEY), b"x" * 10, 60.0)

    asyncio.run(fill())
    file = tmp_path / "pointsman.toml"
    file.write_text(f'[cache]\nstore = "redis"\nurl = "{server.url}"\n')
    told = run("stats", "--config", str(file))
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        "model    answers          bytes",
        "large          1             10",
        "tiny           1          1,234",
    ]
    assert run("purge", "--model", "tiny", "--url", server.url).stdout == "1 answer of tiny deleted.\n"
    assert run("purge", "--config", str(file)).stdout == "1 answer of all models deleted.\n"
    assert run("stats", "--url", server.url).stdout == "The cache is empty.\n"


@pytest.mark.parametrize(
    ("text", "words", "status", "said"),
    [
        ("", [], 2, "expected --config FILE or --url URL"),
        ("", ["--url", "http://me:secret@x"], 2, "--url: expected redis, rediss"),
        ("", ["--config", "missing.toml"], 2, "missing.toml"),
        ('[cache]\nstore = "memory"\n', ["--config", "FILE"], 2, 'cache.store: "memory" keeps nothing in Redis'),
        ('[cache]\nstorage = "redis"\n', ["--config", "FILE"], 2, "cache.storage: unknown key"),
        ('[cache]\nstore = "redis"\nurl = "redis://x:y"\n', ["--config", "FILE"], 2, "cache.url: expected host:port"),
        ("[cache", ["--config", "FILE"], 2, "FILE"),
        ("", ["--url", "redis://me:secret@127.0.0.1:1/0"], 3, "Redis at redis://127.0.0.1:1/0 cannot be asked"),
        ("", ["--url", "redis+cluster://127.0.0.1:1"], 3, "cannot be asked"),
        ("", ["--url", "redis+sentinel://127.0.0.1:1/x"], 3, "cannot be asked"),
    ],
)
@pytest.mark.parametrize("command", ["stats", "purge"])
def test_the_commands_say_what_they_lack_without_any_password(
    command: str, text: str, words: list[str], status: int, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "pointsman.toml"
    file.write_text(text)
    told = run(command, *(str(file) if word == "FILE" else word for word in words))
    assert (told.exit_code, told.stdout) == (status, "")
    assert said in told.stderr.replace(str(file), "FILE")
    assert "secret" not in told.stderr


def test_names_begin_with_the_version() -> None:
    assert name_of("a/b", KEY) == PREFIX + "a%2Fb:" + KEY.hex()
