"""Tier 2: values in Redis, shared by all gateways. It never raises and never makes a request wait for long.

Reads of one moment go together, in one question. Writes wait in a short queue in the background. While Redis is down
(`gateway.redis.client`) nothing is asked, and so nothing costs.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import unquote

from gateway.cache.names import LEASE, PREFIX, of_model
from gateway.redis.client import RedisClient, RedisUnavailable, within
from gateway.redis.connect import Connection

DEADLINE = 0.02  # seconds for a read
WRITE_TIMEOUT = 1.0  # seconds for what nobody waits for
WHILE_DOWN = "answers are kept in memory alone"
MAX_READ = 64  # keys in one question
MAX_READS = 4  # questions at once; what is wanted meanwhile goes together in the next
MAX_WRITES = 256  # that wait
MAX_WRITE_BYTES = 64 * 2**20
PAGE = 500  # keys to look at or delete in one go

log = logging.getLogger("pointsman")

T = TypeVar("T")
Write = Callable[[Connection], Awaitable[Any]]
WantedValue = tuple[str, "asyncio.Future[bytes | None]"]


def shared_cache(url: str) -> "RedisTier":
    """Return the tier for a Redis; nothing is opened yet. Raises ValueError if the URL is none."""
    return RedisTier(RedisClient(url, "cache", WHILE_DOWN, DEADLINE))


class RedisTier:
    """Values in one Redis. Counts what it read, the writes that it dropped and those that wait."""

    def __init__(
        self, client: RedisClient, max_writes: int = MAX_WRITES, max_write_bytes: int = MAX_WRITE_BYTES
    ) -> None:
        self.client = client
        self.hits = self.misses = self.dropped = self.waiting = 0
        self._wanted: deque[WantedValue] = deque()
        self._reads: set[asyncio.Task[None]] = set()
        self._writes: asyncio.Queue[tuple[int, Write]] = asyncio.Queue(max_writes)
        self._write_bytes = 0
        self._max_write_bytes = max_write_bytes
        self._writing: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether Redis answers."""
        return self.client.up

    async def open(self) -> None:
        """Connect, if Redis is there, and take writes from then on."""
        await self.client.open()
        self._writing = asyncio.create_task(self._write_all())

    async def close(self) -> None:
        """Write what waits, if that takes no longer than a moment, and leave nothing behind."""
        if self.up:
            try:
                await within(WRITE_TIMEOUT, self._writes.join())
            except TimeoutError:
                log.warning("cache: closed before Redis had taken all answers; %d were not written", self.waiting)
        tasks = [*self._reads, *([self._writing] if self._writing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()

    async def get(self, name: str) -> bytes | None:
        """Return a value; None if there is none, or Redis does not say in time."""
        if not self.up:
            return None
        loop = asyncio.get_running_loop()
        if not self._wanted:
            loop.call_soon(self._read_wanted)
        value: asyncio.Future[bytes | None] = loop.create_future()
        self._wanted.append((name, value))
        return await value

    def put(self, name: str, value: bytes, ttl: float) -> None:
        """Have a value written, for `ttl` seconds."""
        self.enqueue(lambda redis: redis.set(name, value, px=max(1, int(ttl * 1000))), len(value))

    def enqueue(self, write: Write, size: int = 0) -> None:
        """Have something done behind all that waits. It is dropped if Redis is down, or too much waits already.

        `write` is called with redis-py's client; `size` is what it holds in memory meanwhile, in bytes.
        """
        if not self.up or self._writes.full() or self._write_bytes + size > self._max_write_bytes:
            self.dropped += 1
            return
        self.waiting += 1
        self._write_bytes += size
        self._writes.put_nowait((size, write))

    async def ask(self, question: Callable[[Connection], Awaitable[T]]) -> T | None:
        """Return the answer to any other question, asked under the deadline; None if there is none."""
        try:
            return await self.client.ask(question)
        except RedisUnavailable:  # whatever goes wrong, it is a miss
            return None

    async def names(self, model: str | None = None) -> AsyncIterator[list[str]]:
        """Yield the names of all values, or of one model's, page by page. Raises REDIS_ERRORS."""
        page: list[str] = []
        pattern = f"{of_model(model) if model else PREFIX}*"
        async for found in self.client.redis.scan_iter(match=pattern, count=PAGE):
            if not found.endswith(LEASE.encode()):
                page.append(found.decode())
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page

    async def purge(self, model: str | None = None) -> int:
        """Delete all values, or one model's; return how many. Raises REDIS_ERRORS."""
        return sum([await self.client.redis.unlink(*page) async for page in self.names(model)])

    async def stats(self) -> dict[str, tuple[int, int]]:
        """Return how many values there are and their bytes, by model. Raises REDIS_ERRORS."""
        found: dict[str, tuple[int, int]] = {}
        async for page in self.names():
            sizes = self.client.redis.pipeline(transaction=False)
            for name in page:
                sizes.strlen(name)
            for name, size in zip(page, await sizes.execute(), strict=True):
                model = unquote(name.removeprefix(PREFIX).partition(":")[0])
                entries, total = found.get(model, (0, 0))
                found[model] = entries + 1, total + size
        return found

    def _read_wanted(self) -> None:
        """Ask for what is wanted, in as many questions as may be under way; the rest waits for one to end."""
        while self._wanted and (len(self._reads) < MAX_READS or not self.up):
            some = [self._wanted.popleft() for _ in range(min(MAX_READ, len(self._wanted)))]
            reading = asyncio.create_task(self._read(some))
            self._reads.add(reading)
            reading.add_done_callback(self._read_ended)

    def _read_ended(self, reading: asyncio.Task[None]) -> None:
        self._reads.discard(reading)
        self._read_wanted()

    async def _read(self, wanted: list[WantedValue]) -> None:
        names = [name for name, _ in wanted]
        values: list[bytes | None] = [None] * len(names)
        try:
            values = await self.ask(lambda redis: _values(redis, names)) or values
        finally:
            for (_, future), value in zip(wanted, values, strict=True):
                self.hits += value is not None
                self.misses += value is None
                if not future.done():
                    future.set_result(value)

    async def _write_all(self) -> None:
        """Write what waits, one after the other, until cancelled."""
        while True:
            size, write = await self._writes.get()
            try:
                with suppress(RedisUnavailable):
                    await self.client.ask(write, WRITE_TIMEOUT)
            finally:
                self.waiting -= 1
                self._write_bytes -= size
                self._writes.task_done()


async def _values(redis: Connection, names: list[str]) -> list[bytes | None]:
    if len(names) == 1:
        return [await redis.get(names[0])]
    ask = getattr(redis, "mget_nonatomic", redis.mget)  # a Cluster's keys are on several nodes
    values: list[bytes | None] = await ask(names)
    return values
