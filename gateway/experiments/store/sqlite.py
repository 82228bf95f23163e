"""The record in a SQLite file, for the workers of one host. Each question is asked in a thread of its own.

A file that is locked is waited for a moment; one that is gone, full or broken is said to be unavailable, and opened
anew the next time. In WAL mode a reader does not hold up who writes (SQLite, "Write-Ahead Logging").
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.experiments.store.base import NOW, SCHEMA, SCHEMA_NOTE, TOLD, StoreUnavailable, Telling
from gateway.experiments.store.upgrade import FromLater, upgraded

T = TypeVar("T")

PATIENCE = 1.0  # seconds for a file that another process has locked
SETUP = """
create table if not exists sums (name text, field text, value integer, primary key (name, field)) without rowid;
create table if not exists notes (name text, field text, value text, primary key (name, field)) without rowid;
create table if not exists places (map text, place integer, primary key (map, place)) without rowid;
"""
ADD = """insert into sums values (?, ?, ?) on conflict do update set value = value + excluded.value"""
NOTE = """insert into notes values (?, ?, ?) on conflict do update set value = excluded.value"""
MARK = """insert or ignore into notes values (?, ?, ?)"""
PLACE = """insert or ignore into places values (?, ?)"""


class SqliteStore:
    """A file; it is made where there is none."""

    def __init__(self, file: str | Path, wall: Callable[[], float] = time.time) -> None:
        self._file = Path(file)
        self._wall = wall
        self._connection: sqlite3.Connection | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Open the file, and bring it up to this version."""
        await self._asked(lambda _: None)

    async def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def tell(self, telling: Telling) -> None:
        """Take a telling in one transaction."""
        await self._asked(lambda connection: self._take(connection, telling))

    async def notes(self, name: str) -> tuple[float, dict[str, str]]:
        """Return this host's time, and the notes."""
        found = await self._asked(
            lambda one: one.execute("select field, value from notes where name = ?", [name]).fetchall()
        )
        return self._wall(), dict(found)

    async def sums(self, name: str) -> dict[str, int]:
        """Return all numbers."""
        return dict(
            await self._asked(
                lambda one: one.execute("select field, value from sums where name = ?", [name]).fetchall()
            )
        )

    async def names(self) -> list[str]:
        """Return the names."""
        found = await self._asked(
            lambda one: one.execute("select distinct name from notes where name <> ''").fetchall()
        )
        return sorted(name for (name,) in found)

    async def _asked(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Return the answer to a question, asked in a thread. Raises StoreUnavailable."""
        async with self._turn:
            return await asyncio.to_thread(self._ask, question)

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._connected()
            with connection:
                return question(connection)
        except (sqlite3.Error, OSError, FromLater) as error:
            self._drop()
            raise StoreUnavailable(f"{self._file}: {error}") from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None or not self._file.exists():  # one that was deleted would be written to unseen
            self._drop()
            self._connection = sqlite3.connect(self._file, PATIENCE, check_same_thread=False)
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = normal")
            self._connection.executescript(SETUP)
            with self._connection:
                self._connection.execute("begin immediate")
                _upgrade(self._connection)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _take(self, connection: sqlite3.Connection, telling: Telling) -> None:
        name, told = telling.name, TOLD + telling.teller
        connection.execute("begin immediate")
        last = connection.execute("select value from notes where name = ? and field = ?", (name, told)).fetchone()
        if last is not None and telling.number <= int(last[0]):
            return
        sums = dict(telling.sums)
        for first in telling.firsts:
            place = (f"{name}/{telling.maps}/{first.kind}", first.place)
            if connection.execute(PLACE, place).rowcount:
                sums[first.field] = sums.get(first.field, 0) + 1
        connection.executemany(ADD, [(name, field, by) for field, by in sums.items()])
        now = repr(self._wall())
        notes = {**telling.notes, **dict.fromkeys(telling.stamps, now), told: str(telling.number)}
        connection.executemany(NOTE, [(name, field, value) for field, value in notes.items()])
        connection.executemany(MARK, [(name, field, value.replace(NOW, now)) for field, value in telling.marks.items()])


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring the file up to this version. Raises FromLater."""
    found = connection.execute("select value from notes where name = '' and field = ?", [SCHEMA_NOTE]).fetchone()
    version = int(found[0]) if found is not None else SCHEMA
    if version != SCHEMA:
        names = connection.execute("select distinct name from sums").fetchall()
        for (name,) in names:
            old = dict(connection.execute("select field, value from sums where name = ?", [name]).fetchall())
            connection.execute("delete from sums where name = ?", [name])
            new = upgraded(version, old)
            connection.executemany("insert into sums values (?, ?, ?)", [(name, *row) for row in new.items()])
    connection.execute(NOTE, ("", SCHEMA_NOTE, str(SCHEMA)))
