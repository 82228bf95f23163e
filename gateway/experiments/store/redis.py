"""The record in Redis, for gateways on several hosts: one hash an experiment, and a bitmap for each kind of first.

    pointsman:experiment:{NAME}                 numbers by field
    pointsman:experiment:{NAME}:notes           notes by name
    pointsman:experiment:{NAME}:places:MAP      bits, by place
    pointsman:experiments                       the names

A telling is one script, so that it is taken at once or not at all. The braces keep an experiment on one node of a
Cluster. Numbers go as text: in Lua a whole number is exact up to 2^53 only, HINCRBY's are to 2^63.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gateway.experiments.store.base import SCHEMA, SCHEMA_NOTE, TOLD, StoreUnavailable, Telling
from gateway.experiments.store.upgrade import FromLater, upgraded
from gateway.redis.client import RedisClient, RedisUnavailable

T = TypeVar("T")

DEADLINE = 1.0  # seconds: nobody waits for it
NAMES = "pointsman:experiments"
TELL = """
local sums, notes, place = KEYS[1], KEYS[2], 0
local function take() place = place + 1; return ARGV[place] end
local version, told, number = take(), take(), take()
local schema = redis.call('HGET', notes, 'schema')
if schema and schema ~= version then return {err = 'SCHEMA the record is of version ' .. schema} end
redis.call('HSET', notes, 'schema', version)
local last = redis.call('HGET', notes, told)
if last and tonumber(number) <= tonumber(last) then return 0 end
for _ = 1, tonumber(take()) do
  local field, by = take(), take()
  redis.call('HINCRBY', sums, field, by)
end
for _ = 1, tonumber(take()) do
  local map, bit, field = take(), take(), take()
  if redis.call('SETBIT', sums .. ':places:' .. map, bit, 1) == 0 then redis.call('HINCRBY', sums, field, 1) end
end
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
for _ = 1, tonumber(take()) do
  local field, value = take(), take()
  redis.call('HSET', notes, field, value)
end
for _ = 1, tonumber(take()) do redis.call('HSET', notes, take(), now) end
for _ = 1, tonumber(take()) do
  local field, value = take(), take()
  redis.call('HSETNX', notes, field, (string.gsub(value, '@now', now)))
end
redis.call('HSET', notes, told, number)
return 1
"""
READ = """return {redis.call('TIME'), redis.call('HGETALL', KEYS[1])}"""
UPGRADE = """
local sums, notes = KEYS[1], KEYS[2]
if redis.call('HGET', notes, 'schema') ~= ARGV[1] then return 0 end
redis.call('DEL', sums)
for index = 3, #ARGV, 2 do redis.call('HSET', sums, ARGV[index], ARGV[index + 1]) end
redis.call('HSET', notes, 'schema', ARGV[2])
return 1
"""


def shared_store(url: str) -> "RedisStore":
    """Return the store of a Redis; nothing is opened yet. Raises ValueError if the URL is none."""
    return RedisStore(RedisClient(url, "experiments", "what is counted waits here", DEADLINE))


class RedisStore:
    """One Redis, or a Cluster."""

    def __init__(self, client: RedisClient) -> None:
        self.client = client
        self._tell = client.script(TELL)
        self._read = client.script(READ)
        self._upgrade = client.script(UPGRADE)
        self._known: set[str] = set()

    async def open(self) -> None:
        """Connect."""
        await self.client.open()

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def tell(self, telling: Telling) -> None:
        """Take a telling in one script."""
        if telling.name not in self._known:
            await self._asked(lambda redis: redis.sadd(NAMES, telling.name))
            await self._bring_up_to_date(telling.name)
            self._known.add(telling.name)
        await self._asked(lambda _: self._tell(_keys(telling.name), _arguments(telling)))

    async def notes(self, name: str) -> tuple[float, dict[str, str]]:
        """Return Redis's time, and the notes."""
        (seconds, micros), fields = await self._asked(lambda _: self._read(_keys(name)[1:], []))
        pairs = zip(fields[::2], fields[1::2], strict=True)
        return int(seconds) + int(micros) / 1e6, {field.decode(): value.decode() for field, value in pairs}

    async def sums(self, name: str) -> dict[str, int]:
        """Return all numbers."""
        found = await self._asked(lambda redis: redis.hgetall(_keys(name)[0]))
        return {field.decode(): int(value) for field, value in found.items()}

    async def names(self) -> list[str]:
        """Return the names."""
        return sorted(name.decode() for name in await self._asked(lambda redis: redis.smembers(NAMES)))

    async def _bring_up_to_date(self, name: str) -> None:
        """Upgrade what an older version has written."""
        written = await self._asked(lambda redis: redis.hget(_keys(name)[1], SCHEMA_NOTE))
        if written is None or int(written) == SCHEMA:
            return
        try:
            new = upgraded(int(written), await self.sums(name))
        except FromLater as error:
            raise StoreUnavailable(str(error)) from error
        arguments = [written.decode(), str(SCHEMA), *(str(part) for pair in new.items() for part in pair)]
        await self._asked(lambda _: self._upgrade(_keys(name), arguments))

    async def _asked(self, question: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await self.client.ask(question)
        except RedisUnavailable as error:
            self._known.clear()  # it may come back with nothing in it
            raise StoreUnavailable(str(error)) from error


def _keys(name: str) -> list[str]:
    """Return where an experiment's numbers and its notes are."""
    key = f"pointsman:experiment:{{{name}}}"
    return [key, f"{key}:notes"]


def _arguments(telling: Telling) -> list[str]:
    """Return the script's arguments: each list with its length before it."""
    sums = [part for field, by in telling.sums.items() for part in (field, str(by))]
    firsts = [part for one in telling.firsts for part in (f"{telling.maps}/{one.kind}", str(one.place), one.field)]
    notes = [part for pair in telling.notes.items() for part in pair]
    marks = [part for pair in telling.marks.items() for part in pair]
    parts = ((sums, 2), (firsts, 3), (notes, 2), (list(telling.stamps), 1), (marks, 2))
    told = TOLD + telling.teller
    return [str(SCHEMA), told, str(telling.number), *(one for part, width in parts for one in _listed(part, width))]


def _listed(part: list[str], width: int) -> list[str]:
    return [str(len(part) // width), *part]
