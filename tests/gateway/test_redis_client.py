"""The one Redis client: what URLs it takes, its deadline, when Redis is up or down for it, and what the log is told."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError, ClusterDownError, ReadOnlyError, ResponseError

from gateway.redis.client import MAX_CONCURRENT, Question, RedisClient, RedisRefused, RedisUnavailable, within
from gateway.redis.connect import Connection, connect
from gateway.redis.health import MAX_FAILURES, RedisAvailability
from gateway.redis.url import RedisAddress, parse_redis_url, redacted
from tests.support import redis_servers
from tests.support.harness import until
from tests.support.redis_servers import Server

NOBODY = "redis://127.0.0.1:1/0"
WHILE_DOWN = "nothing is done"


# URLs


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", RedisAddress(scheme="redis", hosts=(("localhost", 6379),))),
        ("redis://h/", RedisAddress(scheme="redis", hosts=(("h", 6379),))),
        ("redis://h?db=3&ssl_cert_reqs=none", RedisAddress(scheme="redis", hosts=(("h", 6379),))),
        (
            "rediss://u:p%40@h:1/2",
            RedisAddress(scheme="rediss", hosts=(("h", 1),), username="u", password="p@", database=2),
        ),
        ("unix:///tmp/x?db=1", RedisAddress(scheme="unix")),
        ("redis+unix:///tmp/x", RedisAddress(scheme="unix")),
        ("redis+unix://:p@/tmp/x", RedisAddress(scheme="unix")),
        (
            "redis+sentinel://:p@a:1, b,[::1]:3/service/4",
            RedisAddress(
                scheme="redis+sentinel",
                hosts=(("a", 1), ("b", 26379), ("::1", 3)),
                password="p",
                service="service",
                database=4,
            ),
        ),
        (
            "redis+cluster://a:1,b,[::1]:3,[::2]",
            RedisAddress(scheme="redis+cluster", hosts=(("a", 1), ("b", 6379), ("::1", 3), ("::2", 6379))),
        ),
        ("redis+cluster://a:1/0", RedisAddress(scheme="redis+cluster", hosts=(("a", 1),))),
    ],
)
def test_a_url_says_where_redis_is(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "redis, rediss, redis+sentinel, redis+cluster, unix, redis+unix before ://"),
        ("secret", "before ://"),
        ("http://me:secret@x", "before ://"),
        ("valkey://x", "before ://"),
        ("redis://me:secret@x:y", "host:port"),
        ("redis://me:secret@x:0", "host:port"),
        ("redis://me:secret@a,b", "one host"),
        ("redis://a/secret", "the number of a database"),
        ("redis://me:secret@a?db=x", "a number for db="),
        ("redis://me:secret@[a/0", "a URL"),
        ("redis://me:secret@a?socket_timeout=soon", "a number for socket_timeout="),
        ("unix://me:secret@", "the path of a socket"),
        ("redis+sentinel://:secret@a:1", "the name of the service"),
        ("redis+sentinel:///secret", "host:port"),
        ("redis+cluster://:secret@a/1", "nothing behind"),
    ],
)
def test_a_url_that_is_none_is_refused_in_words_without_its_password(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected ") as caught:
        parse_redis_url(url)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="expected "):
        connect(url, 1.0)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://u:p@127.0.0.1:1/2", "Redis"),
        ("rediss://127.0.0.1", "Redis"),
        ("unix:///tmp/x?db=1", "Redis"),
        ("redis+unix:///tmp/x?db=1", "Redis"),
        ("redis+sentinel://u:p%40@a:1,b,[::1]:3/service/4", "Redis"),
        ("redis+cluster://:p@a:1,b,[::1]", "RedisCluster"),
    ],
)
async def test_every_form_of_url_has_its_connection(url: str, kind: str) -> None:
    assert type(connect(url, 1.0)).__name__ == kind


def test_a_url_is_shown_without_its_password() -> None:
    assert redacted("redis+sentinel://me:p%40ss@a:1,b/service") == "redis+sentinel://a:1,b/service"
    assert redacted("redis://a/0?password=secret") == "redis://a/0"


# Up or down


def test_each_change_is_logged_once_with_who_uses_redis(caplog: pytest.LogCaptureFixture) -> None:
    health = RedisAvailability("cache", WHILE_DOWN, max_failures=2)
    steps: list[tuple[Callable[[], None], bool]] = [
        (health.recovered, True),
        (health.recovered, True),
        (lambda: health.failed(OSError("gone")), True),
        (health.answered, True),
        (lambda: health.failed(OSError("gone")), True),
        (lambda: health.failed(OSError()), False),
        (lambda: health.failed(OSError("gone")), False),
        (lambda: health.down(OSError("gone")), False),
        (health.answered, False),
        (health.recovered, True),
        (lambda: health.refused(ResponseError("no room")), True),
        (lambda: health.refused(ResponseError("no room")), True),
    ]
    with caplog.at_level("INFO", "pointsman"):
        for step, up in steps:
            step()
            assert health.up is up
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "cache: Redis answers"),
        ("WARNING", "cache: Redis does not answer, nothing is done: OSError"),
        ("WARNING", "cache: Redis answers again"),
        ("WARNING", "cache: Redis refuses: no room"),
    ]
    assert health.errors == 6


def test_a_redis_that_is_not_there_at_the_start_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    health = RedisAvailability("limits", WHILE_DOWN)
    for _ in range(3):
        health.down(OSError("refused"))
    assert [record.getMessage() for record in caplog.records] == [
        "limits: Redis does not answer, nothing is done: refused"
    ]


def unconnected(deadline: float = 5.0) -> RedisClient:
    """Return a client that takes its Redis for up, and that asks only what the test answers itself."""
    client = RedisClient(NOBODY, "test", WHILE_DOWN, deadline)
    client.health.recovered()
    return client


def raising(error: Exception) -> Question[int]:
    async def question(_: Connection) -> int:
        raise error

    return question


async def answering(_: Connection) -> int:
    return 1


async def test_only_failures_in_a_row_make_it_down_and_then_nothing_is_asked() -> None:
    client = unconnected()
    for _ in range(3):
        for error in (OSError(), KeyError()):
            with pytest.raises(RedisUnavailable):
                await client.ask(raising(error))
        assert await client.ask(answering) == 1
    assert (client.up, client.health.errors) == (True, 6)
    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            await client.ask(raising(OSError()))
    assert not client.up
    with pytest.raises(RedisUnavailable):
        await client.ask(answering)
    assert client.health.errors == 9


@pytest.mark.parametrize(
    ("error", "there"),
    [
        (ResponseError("OOM"), True),
        (ReadOnlyError("a replica"), True),
        (ClusterDownError("The cluster is down"), False),
        (AuthenticationError("NOAUTH"), False),
        (TimeoutError(), False),
    ],
)
async def test_a_refusal_is_an_answer_and_a_cluster_that_is_down_is_none(error: Exception, there: bool) -> None:
    client = unconnected()
    for _ in range(3):
        with pytest.raises(RedisRefused if there else RedisUnavailable):
            await client.ask(raising(error))
    assert client.up is there


async def test_the_deadline_holds_although_the_question_swallows_its_cancellation() -> None:
    client, ended = unconnected(deadline=0.01), asyncio.Event()

    async def deaf(_: Connection) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await ended.wait()
            raise OSError("too late for anybody") from None

    with pytest.raises(RedisUnavailable, match="no answer within 10 ms"):
        await client.ask(deaf)
    ended.set()


async def test_a_request_that_is_cancelled_takes_its_question_with_it() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def question(_: Connection) -> None:
        try:
            asked.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    client = unconnected()
    asking = asyncio.ensure_future(client.ask(question))
    await asked.wait()
    asking.cancel()
    await cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert client.health.errors == 0


async def test_a_burst_is_asked_a_few_at_a_time_and_the_rest_not_at_all_once_it_is_down() -> None:
    client, asked = unconnected(deadline=0.01), 0

    async def hanging(_: Connection) -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    outcomes = await asyncio.gather(*(client.ask(hanging) for _ in range(100)), return_exceptions=True)
    assert {type(one) for one in outcomes} == {RedisUnavailable}
    assert MAX_CONCURRENT <= asked < MAX_CONCURRENT + MAX_FAILURES  # on a busy machine they do not all end at once


async def test_nobody_complains_of_what_comes_too_late(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def deaf() -> None:
        try:
            await release.wait()
        except asyncio.CancelledError:
            await release.wait()
            raise OSError("too late") from None

    with pytest.raises(TimeoutError):
        await within(0.0, deaf())
    release.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert caplog.records == []


# Over real servers


@pytest.fixture
def server() -> Iterator[Server]:
    with redis_servers.single() as running:
        yield running


@asynccontextmanager
async def opened(url: str, *scripts: str) -> AsyncIterator[RedisClient]:
    """Connect a client with a deadline that no busy machine misses."""
    client = RedisClient(url, "test", WHILE_DOWN, 5.0, 0.02, redis_servers.UNHURRIED)
    for script in scripts:
        client.script(script)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def test_it_is_known_whether_redis_answers_although_nobody_asks(server: Server) -> None:
    async with opened(server.url) as client:
        assert client.up
        server.send(signal.SIGKILL)
        await until(lambda: not client.up)
        server.start()
        await until(lambda: client.up)


async def test_scripts_are_there_as_soon_as_redis_is(server: Server) -> None:
    text = "return 'known'"
    async with opened(server.url, text) as client:
        for _ in range(2):
            (known,) = await client.redis.script_exists(client.redis.register_script(text).sha)
            assert known
            server.send(signal.SIGKILL)
            await until(lambda: not client.up)
            server.start()
            await until(lambda: client.up)


async def test_a_script_is_asked_by_its_keys_and_arguments(server: Server) -> None:
    client = RedisClient(server.url, "test", WHILE_DOWN, 5.0, connect_timeout=redis_servers.UNHURRIED)
    script = client.script("return {KEYS[1], ARGV[1]}")
    await client.open()
    assert await client.ask(lambda _: script(["k"], ["a"])) == [b"k", b"a"]
    await client.close()


@pytest.mark.parametrize("scheme", ["unix", "redis+unix"])
async def test_a_socket_is_connected_to(scheme: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "redis.sock")
        running = Server(directory, ("--unixsocket", str(path)))
        try:
            running.start()
            async with opened(f"{scheme}://{path}?db=1") as client:
                await client.ask(lambda redis: redis.set("k", "v"))
                assert "db1:keys=1" in running.ask("INFO", "keyspace")
        finally:
            running.close()


@pytest.mark.parametrize("theirs", ["", "secret"], ids=["open", "with the same password"])
async def test_sentinels_may_have_the_primary_s_password_or_none(theirs: str) -> None:
    with redis_servers.sentinels() as watched:
        for one in watched.sentinels:
            one.ask("SENTINEL", "SET", redis_servers.SERVICE, "auth-pass", "secret")
            if theirs:
                one.ask("ACL", "SETUSER", "default", f">{theirs}")
        for node in (watched.primary, watched.replica):
            node.ask("CONFIG", "SET", "masterauth", "secret")
            node.ask("CONFIG", "SET", "requirepass", "secret")
        async with opened(watched.url.replace("://", "://:secret@")) as client:
            await until(lambda: client.up)
            assert await client.ask(lambda redis: redis.set("k", "v"))
        async with opened(watched.url) as stranger:
            assert not stranger.up


async def test_a_cluster_is_up_at_once_each_time() -> None:
    """Of eight questions while redis-py looks for a Cluster's nodes some fail: the first has to go alone."""
    with redis_servers.cluster() as nodes:
        for _ in range(20):
            async with opened(nodes.url) as client:
                assert client.up


async def test_while_nobody_listens_it_is_down_and_closes_all_the_same() -> None:
    async with opened(NOBODY) as client:
        assert not client.up
        with pytest.raises(RedisUnavailable):
            await client.ask(answering)
