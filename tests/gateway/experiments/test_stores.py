"""The record's places, SQLite and Redis: told once, together by several, and brought up from older versions."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.experiments.store.base import SCHEMA, RecordStore, StoreUnavailable, Telling
from gateway.experiments.store.redis import RedisStore, shared_store
from gateway.experiments.store.sqlite import SqliteStore
from gateway.experiments.store.upgrade import FromLater, upgraded
from gateway.experiments.tally import First
from gateway.redis.client import RedisClient
from tests.support.harness import until
from tests.support.redis_server import RedisServer

KINDS = ("sqlite", "redis")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer
) -> AsyncIterator[tuple[RecordStore, RecordStore]]:
    """Two stores over one place, as two workers have them."""
    made: list[Any]
    if request.param == "sqlite":
        made = [SqliteStore(tmp_path / "e.sqlite3") for _ in range(2)]
    else:
        with redis.Redis(port=server.port) as client:
            client.flushall()
        made = [shared_store(server.url) for _ in range(2)]
    for store in made:
        await store.open()
    yield made[0], made[1]
    for store in made:
        await store.close()


both = pytest.mark.parametrize("stores", KINDS, indirect=True)


def telling(number: int = 1, teller: str = "a", **more: Any) -> Telling:
    return Telling(name="move", teller=teller, number=number, **more)


@both
async def test_what_several_tell_is_added_exactly(stores: tuple[RecordStore, RecordStore]) -> None:
    one, other = stores
    large = 2**60
    await one.tell(telling(sums={"e/n/control": 3, "e/x": large, "e/negative": -5}))
    await other.tell(telling(teller="b", sums={"e/n/control": 4, "e/x": 1}))
    assert await one.sums("move") == {"e/n/control": 7, "e/x": large + 1, "e/negative": -5}
    assert await other.names() == ["move"]
    assert await other.sums("other") == {}


@both
async def test_a_telling_that_is_told_again_counts_once(stores: tuple[RecordStore, RecordStore]) -> None:
    """Who was cut off before it heard that it was taken tells it again."""
    one, other = stores
    again = telling(sums={"n": 1}, firsts=(First("unit", 5, "u"),))
    for store in (one, other, one):
        await store.tell(again)
    await one.tell(telling(2, sums={"n": 1}))
    assert await one.sums("move") == {"n": 2, "u": 1}


@both
async def test_of_a_kind_only_the_first_at_a_place_counts_whoever_tells_it(
    stores: tuple[RecordStore, RecordStore],
) -> None:
    one, other = stores
    await one.tell(telling(maps="r", firsts=(First("unit", 5, "e/unit/control"), First("error", 5, "e/error"))))
    await other.tell(
        telling(teller="b", maps="r", firsts=(First("unit", 5, "e/unit/treatment"), First("unit", 6, "e/unit/control")))
    )
    await other.tell(telling(2, teller="b", maps="s", firsts=(First("unit", 5, "f/unit/control"),)))
    assert await one.sums("move") == {"e/unit/control": 2, "e/error": 1, "f/unit/control": 1}


@both
async def test_notes_replace_marks_stay_and_times_are_the_stores_own(stores: tuple[RecordStore, RecordStore]) -> None:
    one, other = stores
    await one.tell(telling(notes={"teller/a": "1"}, marks={"run/r": '{"began":@now}'}, stamps=("alive/a",)))
    await other.tell(telling(teller="b", notes={"teller/a": "2"}, marks={"run/r": "{}"}, stamps=("alive/b",)))
    now, notes = await one.notes("move")
    assert notes["teller/a"] == "2"
    began = float(notes["run/r"].removeprefix('{"began":').removesuffix("}"))
    assert abs(now - began) < 60
    assert began <= float(notes["alive/a"]) <= float(notes["alive/b"]) <= now


OLD = {"e/n/control": 5, "e/first/failure/control": 2, "e/first/late/treatment": 1}
NEW = {
    "e/n/control": 5,
    "e/first/error/control": 2,
    "e/event/error/control": 2,
    "e/first/late/treatment": 1,
    "e/event/late/treatment": 1,
}


def test_each_version_has_a_step_to_the_next_and_a_later_one_is_refused() -> None:
    assert upgraded(SCHEMA, OLD) == OLD
    assert upgraded(1, OLD) == NEW
    with pytest.raises(FromLater, match="version 9"):
        upgraded(9, OLD)


def write_sqlite(file: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("create table sums (name text, field text, value integer, primary key (name, field))")
        connection.execute("create table notes (name text, field text, value text, primary key (name, field))")
        connection.executemany("insert into sums values ('move', ?, ?)", OLD.items())
        connection.execute("insert into notes values ('', 'schema', ?)", [str(version)])
        connection.execute("insert into notes values ('move', 'told/a', '7')")


def write_redis(port: int, version: int) -> None:
    with redis.Redis(port=port) as client:
        client.flushall()
        client.hset("pointsman:experiment:{move}", mapping=OLD)
        client.hset("pointsman:experiment:{move}:notes", mapping={"schema": version, "told/a": 7})


@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_of_the_version_before_goes_on(kind: str, tmp_path: Path, server: RedisServer) -> None:
    write_sqlite(tmp_path / "e", 1) if kind == "sqlite" else write_redis(server.port, 1)
    store: RecordStore = SqliteStore(tmp_path / "e") if kind == "sqlite" else shared_store(server.url)
    await store.open()
    await store.tell(telling(7, sums={"e/n/control": 100}))  # which has been told before
    await store.tell(telling(8, sums={"e/n/control": 1}))
    assert await store.sums("move") == NEW | {"e/n/control": 6}
    await store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_of_a_later_version_is_left_alone_and_said(
    kind: str, tmp_path: Path, server: RedisServer
) -> None:
    write_sqlite(tmp_path / "e", 9) if kind == "sqlite" else write_redis(server.port, 9)
    store: RecordStore = SqliteStore(tmp_path / "e") if kind == "sqlite" else shared_store(server.url)
    with contextlib.suppress(StoreUnavailable):
        await store.open()
    with pytest.raises(StoreUnavailable, match="version 9"):
        await store.tell(telling(8, sums={"e/n/control": 1}))
    if kind == "redis":
        assert await store.sums("move") == OLD
    await store.close()


async def test_a_redis_that_is_gone_is_said_and_told_again_once_it_is_back(server: RedisServer) -> None:
    with redis.Redis(port=server.port) as at_hand:
        at_hand.flushall()
    client = RedisClient(server.url, "experiments", "what is counted waits here", 1.0, 0.05)
    store = RedisStore(client)
    await store.open()
    await store.tell(telling(1, sums={"n": 1}))
    server.kill()
    with pytest.raises(StoreUnavailable):
        await store.tell(telling(2, sums={"n": 1}))
    await until(lambda: not client.up)
    await asyncio.to_thread(server.start)  # empty, as it keeps nothing
    await until(lambda: client.up)
    await store.tell(telling(2, sums={"n": 1}))
    assert (await store.sums("move"), await store.names()) == ({"n": 1}, ["move"])
    await store.close()


async def test_a_file_that_is_locked_gone_full_or_none_is_said_and_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "e.sqlite3"
    store = SqliteStore(file)
    with pytest.raises(StoreUnavailable, match="unable to open"):
        await store.open()
    file.parent.mkdir()
    await store.tell(telling(1, sums={"n": 1}))
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("begin immediate")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.tell(telling(2, sums={"n": 1}))
    await store.tell(telling(2, sums={"n": 1}))
    assert await store.sums("move") == {"n": 2}
    for path in file.parent.iterdir():
        path.unlink()
    await store.tell(telling(3, sums={"n": 1}))
    assert await store.sums("move") == {"n": 1}
    await store.close()
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await store.tell(telling(4, sums={"n": 1}))


async def test_a_full_disk_takes_nothing_by_halves(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "e")
    await store.tell(telling(1, sums={"n": 1}))
    connection = store._connected()
    (pages,) = connection.execute("pragma page_count").fetchone()
    connection.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        await store.tell(telling(2, sums={f"field-{number}": 1 for number in range(5000)}))
    await store.tell(telling(2, sums={"n": 1}))
    assert await store.sums("move") == {"n": 2}
    await store.close()
