"""Tier 2 over real Redis servers: alone, failing over, as a Cluster; and killed, stopped, full and back again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from redis.exceptions import ClusterDownError, ResponseError

from gateway.__main__ import main
from gateway.cache import redis
from gateway.cache.names import LEASE, PREFIX, name_of
from gateway.cache.redis import Redis
from gateway.redis import connect
from gateway.redis.url import shown, where
from tests.support import redis_servers
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


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "RETRY_INTERVAL", 0.05)


@asynccontextmanager
async def opened(url: str, deadline: float = 0.5) -> AsyncIterator[Redis]:
    """A client whose tasks are all gone afterwards; with a deadline that no busy machine misses."""
    before = asyncio.all_tasks()
    made = Redis(url, deadline)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        assert asyncio.all_tasks() <= before


async def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    for _ in range(int(seconds * 100)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def written(client: Redis, name: str, value: bytes, ttl: float = 60.0) -> None:
    client.put(name, value, ttl)
    await until(lambda: client.waiting == 0)


async def test_a_value_is_written_and_read_and_gone_after_its_time(server: Server) -> None:
    async with opened(server.url) as client:
        await written(client, NAME, b"value", 0.2)
        assert await client.get(NAME) == b"value"
        assert await client.get(name_of("m", b"x" * 32)) is None
        await asyncio.sleep(0.25)
        assert await client.get(NAME) is None
        assert (client.hits, client.misses, client.errors) == (1, 2, 0)


async def test_what_is_written_and_not_yet_sent_is_sent_before_it_closes(server: Server) -> None:
    async with opened(server.url) as client:
        for number in range(100):
            client.put(name_of("closing", bytes([number]) * 32), b"value", 60.0)
    async with opened(server.url) as client:
        assert await client.purge("closing") == 100


async def test_reads_of_one_moment_go_together_and_each_gets_its_own(server: Server) -> None:
    async with opened(server.url) as client:
        for number in range(0, 200, 2):
            client.put(name_of("m", bytes([number]) * 32), b"%d" % number, 60.0)
        await until(lambda: client.waiting == 0)
        commands_before = _processed(server)
        found = await asyncio.gather(*(client.get(name_of("m", bytes([number]) * 32)) for number in range(200)))
        assert found == [b"%d" % number if number % 2 == 0 else None for number in range(200)]
        assert _processed(server) - commands_before < 20
        await client.purge()


def _processed(server: Server) -> int:
    said = server.ask("INFO", "stats")
    return int(next(line for line in said.splitlines() if line.startswith("total_commands_processed")).split(":")[1])


async def test_a_reader_that_leaves_takes_nothing_from_the_others(server: Server) -> None:
    async with opened(server.url) as client:
        await written(client, NAME, b"value")
        leaving = asyncio.ensure_future(client.get(NAME))
        staying = asyncio.ensure_future(client.get(NAME))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == b"value"
        await client.purge()


async def test_one_models_values_are_counted_and_purged_and_no_others(server: Server) -> None:
    names = ["a", "a/b", "a*", "{a}", "a:b", "[a]?"]
    async with opened(server.url) as client:
        for model in names:
            client.put(name_of(model, KEY), b"12345", 60.0)
            client.put(name_of(model, b"x" * 32), b"12345", 60.0)
        await client.client.set("somebody:else", "1")
        await client.client.set(NAME + LEASE, "1")
        await until(lambda: client.waiting == 0)
        assert await client.stats() == dict.fromkeys(names, (2, 10))
        assert await client.purge("a*") == 2
        assert await client.stats() == dict.fromkeys([name for name in names if name != "a*"], (2, 10))
        assert await client.purge() == 10
        assert await client.stats() == {}
        assert await client.client.get("somebody:else") == b"1"


async def test_a_server_that_is_killed_is_a_miss_and_is_used_again_when_it_is_back(
    mortal: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(mortal.url) as client:
        await written(client, NAME, b"value")
        mortal.send(signal.SIGKILL)
        assert [await client.get(NAME) for _ in range(20)] == [None] * 20
        assert not client.up
        client.put(NAME, b"value", 60.0)
        assert client.dropped == 1
        mortal.start()
        await until(lambda: client.up)
        await written(client, NAME, b"new")
        assert await client.get(NAME) == b"new"
    assert [record.message.split(":")[1] for record in caplog.records if record.levelname == "WARNING"] == [
        " Redis does not answer, and is left alone"
    ]


async def test_a_server_that_is_quickly_restarted_costs_no_error(mortal: Server) -> None:
    async with opened(mortal.url) as client:
        mortal.send(signal.SIGKILL)
        mortal.start()
        assert await client.get(NAME) is None
        assert (client.up, client.errors) == (True, 0)


async def test_a_server_that_hangs_costs_a_few_deadlines_and_then_nothing(mortal: Server) -> None:
    async with opened(mortal.url, deadline=0.02) as client:
        await until(lambda: client.up)
        await written(client, NAME, b"value")
        mortal.send(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(500):
            assert await client.get(NAME) is None
        assert time.monotonic() - began < 0.5
        assert client.errors == 3
        assert not client.up
        mortal.send(signal.SIGCONT)
        await until(lambda: client.up)
        assert await _first(client) == b"value"


async def _first(client: Redis) -> bytes | None:
    """Return the value as soon as it is read: the machine may be busy just now."""
    for _ in range(100):
        if value := await client.get(NAME):
            return value
        await asyncio.sleep(0.02)
    return None


async def fails(error: Exception) -> int:
    raise error


async def answers() -> int:
    return 1


async def test_only_failures_in_a_row_count(server: Server) -> None:
    async with opened(server.url) as client:
        for _ in range(3):
            assert await client.call(fails(OSError())) is None
            assert await client.call(fails(KeyError())) is None
            assert await client.call(answers()) == 1
        assert client.up
        assert client.errors == 6
        for _ in range(3):
            await client.call(fails(OSError()))
        assert not client.up
        assert await client.call(answers()) is None
        await until(lambda: client.up)


@pytest.mark.parametrize(("error", "there"), [
    (ResponseError("OOM"), True), (ClusterDownError("The cluster is down"), False), (TimeoutError(), False),
])  # fmt: skip
async def test_a_refusal_is_an_answer_and_a_cluster_that_is_down_is_none(
    server: Server, error: Exception, there: bool
) -> None:
    async with opened(server.url) as client:
        for _ in range(3):
            assert await client.call(fails(error)) is None
        assert client.up is there


async def test_answers_that_came_too_late_are_never_taken_for_others(mortal: Server) -> None:
    async with opened(mortal.url, deadline=0.02) as client:
        await until(lambda: client.up)
        names = [name_of("m", bytes([number]) * 32) for number in range(50)]
        for name in names:
            client.put(name, name.encode(), 60.0)
        await until(lambda: client.waiting == 0)
        for _ in range(5):
            mortal.send(signal.SIGSTOP)
            late = [asyncio.ensure_future(client.get(name)) for name in names[:10]]
            await asyncio.sleep(0.03)
            mortal.send(signal.SIGCONT)
            found = [await client.get(name) for name in names]
            assert all(value in (None, name.encode()) for name, value in zip(names, found, strict=True))
            await asyncio.gather(*late)
            await until(lambda: client.up)


async def test_a_full_server_refuses_writes_and_is_read_all_the_same(mortal: Server) -> None:
    async with opened(mortal.url) as client:
        await written(client, NAME, b"value")
        mortal.ask("CONFIG", "SET", "maxmemory", "1")
        for _ in range(5):
            await written(client, name_of("m", b"x" * 32), b"value")
        assert client.errors == 5
        assert client.up
        assert await client.get(NAME) == b"value"


async def test_a_server_that_is_not_there_at_the_start_is_used_when_it_comes(mortal: Server) -> None:
    mortal.send(signal.SIGKILL)
    async with opened(mortal.url) as client:
        assert not client.up
        assert await client.get(NAME) is None
        assert client.errors == 0
        mortal.start()
        await until(lambda: client.up)
        await written(client, NAME, b"value")
        assert await client.get(NAME) == b"value"


async def test_more_writes_than_may_wait_are_dropped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(server.url) as client:
        for number in range(redis.WAITING + 10):
            client.put(name_of("many", number.to_bytes(32, "big")), b"value", 60.0)
        assert client.dropped == 10
        await until(lambda: client.waiting == 0)
        monkeypatch.setattr(redis, "WAITING_BYTES", 100)
        client.put(NAME, b"x" * 101, 60.0)
        assert client.dropped == 11
        await client.purge()


async def test_after_a_failover_the_new_primary_is_used() -> None:
    with redis_servers.sentinels() as watched:
        async with opened(watched.url) as client:
            await written(client, NAME, b"value")
            assert watched.primary.ask("EXISTS", NAME) == ":1"
            redis_servers.wait(lambda: watched.replica.ask("EXISTS", NAME) == ":1")
            watched.primary.send(signal.SIGKILL)
            assert [await client.get(NAME) for _ in range(5)] == [None] * 5
            await until(lambda: client.up, 15.0)
            assert await client.get(NAME) == b"value"
            await written(client, NAME, b"new")
            assert await client.get(NAME) == b"new"
            assert "role:master" in watched.replica.ask("INFO", "replication")


async def test_a_cluster_of_three_is_used_whole_and_what_is_left_of_it_when_a_node_is_gone() -> None:
    names = [name_of("m", bytes([number]) * 32) for number in range(60)]
    with redis_servers.cluster() as nodes:
        async with opened(nodes.url) as client:
            for name in names:
                client.put(name, name.encode(), 60.0)
            await until(lambda: client.waiting == 0)
            assert await asyncio.gather(*map(client.get, names)) == [name.encode() for name in names]
            assert all(node.ask("DBSIZE") != ":0" for node in nodes.nodes)
            assert await client.stats() == {"m": (60, sum(map(len, names)))}
            nodes.nodes[2].send(signal.SIGKILL)
            found = [await client.get(name) for name in names * 3]
            assert all(value in (None, name.encode()) for name, value in zip(names * 3, found, strict=True))
            assert client.errors > 0
            nodes.nodes[2].start()
            redis_servers.wait(lambda: "cluster_state:ok" in nodes.nodes[2].ask("CLUSTER", "INFO"))
            await until(lambda: client.up)
            await asyncio.sleep(0.6)
            assert await client.purge("m") > 20
            assert await client.stats() == {}


@pytest.mark.parametrize(("url", "kind"), [
    ("redis://u:p@127.0.0.1:1/2", "Redis"), ("rediss://127.0.0.1", "Redis"), ("unix:///tmp/x?db=1", "Redis"),
    ("redis+sentinel://u:p%40@a:1,b,[::1]:3/service/4", "Redis"), ("redis+cluster://:p@a:1,b,[::1]", "RedisCluster"),
])  # fmt: skip
async def test_every_form_of_address_is_understood(url: str, kind: str) -> None:
    assert type(connect.connect(url, 1.0)).__name__ == kind


@pytest.mark.parametrize("url", ["", "http://x", "redis+sentinel://a:1", "redis+cluster://a:x", "redis://x:y"])
async def test_an_address_that_is_none_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        connect.connect(url, 1.0)


def test_hosts_are_read_with_and_without_ports() -> None:
    found = where("redis+cluster://a:1,b,[::1]:3,[::2]").hosts
    assert found == (("a", 1), ("b", 6379), ("::1", 3), ("::2", 6379))


def test_an_address_is_shown_without_its_password() -> None:
    assert shown("redis+sentinel://me:p%40ss@a:1,b/service") == "redis+sentinel://a:1,b/service"


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["cache", *words], catch_exceptions=False)


def test_the_commands_say_what_is_kept_and_delete_it(server: Server, tmp_path: Path) -> None:
    async def fill() -> None:
        async with opened(server.url) as client:
            client.put(name_of("tiny", KEY), b"x" * 1234, 60.0)
            client.put(name_of("large", KEY), b"x" * 10, 60.0)

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
