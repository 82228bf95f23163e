"""Tier 2: values in Redis, shared by all gateways. It never raises and never makes a request wait for long.

Reads of one moment go together, in one question with one short deadline. Writes wait in a short line in the
background. After a few failures in a row Redis is taken for away: nothing is asked, and so nothing costs, until a
question in the background is answered within the deadline again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import unquote

from redis.exceptions import ClusterError, RedisClusterException, RedisError, ResponseError

from gateway.cache.names import LEASE, PREFIX, of_model
from gateway.redis.connect import Client, connect

DEADLINE = 0.02  # seconds for a read
WRITE_TIMEOUT = 1.0  # seconds for what nobody waits for: writes, connecting
FAILURES = 3  # in a row
RETRY_INTERVAL = 1.0  # seconds until one that is away is asked again
BATCH = 64  # keys in one question
QUESTIONS = 4  # at once, and as many connections
WAITING = 256  # writes
WAITING_BYTES = 64 * 2**20
PAGE = 500  # keys to look at or delete in one go

FAILED = (RedisError, RedisClusterException, OSError, TimeoutError)

log = logging.getLogger("pointsman")

T = TypeVar("T")
Write = Callable[[Client], Awaitable[Any]]


class Redis:
    """A client of one Redis. Counts what it read, what went wrong, the writes that it dropped and those that wait.

    Raises ValueError if the URL is none.
    """

    def __init__(self, url: str, deadline: float = DEADLINE) -> None:
        self.up = False
        self.hits = self.misses = self.errors = self.dropped = self.waiting = 0
        self.client = connect(url, WRITE_TIMEOUT)
        self._deadline = deadline
        self._failures = 0
        self._refusal = ""
        self._lost = asyncio.Event()
        self._wanted: deque[tuple[str, asyncio.Future[bytes | None]]] = deque()
        self._questions: set[asyncio.Task[None]] = set()
        self._writes: asyncio.Queue[tuple[int, Write]] = asyncio.Queue(WAITING)
        self._writes_bytes = 0
        self._background: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect, if Redis is there, and keep up with it from then on."""
        await self._look()
        self._background = [asyncio.create_task(self._watch()), asyncio.create_task(self._write())]

    async def close(self) -> None:
        """Write what waits, if that takes no longer than a moment, and leave nothing behind."""
        if self.up:
            await _within(WRITE_TIMEOUT, self._writes.join())
        self.up = False
        tasks = [*self._background, *self._questions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _within(WRITE_TIMEOUT, self.client.aclose())

    async def get(self, name: str) -> bytes | None:
        """Return a value; None if there is none, or Redis does not say in time."""
        if not self.up:
            return None
        loop = asyncio.get_running_loop()
        if not self._wanted:
            loop.call_soon(self._ask)
        wanted: asyncio.Future[bytes | None] = loop.create_future()
        self._wanted.append((name, wanted))
        return await wanted

    def put(self, name: str, value: bytes, ttl: float) -> None:
        """Have a value written, for `ttl` seconds."""
        self.later(lambda client: client.set(name, value, px=max(1, int(ttl * 1000))), len(value))

    def later(self, write: Write, size: int = 0) -> None:
        """Have something done behind all that waits. It is dropped if Redis is away, or too much waits already."""
        if not self.up or self._writes.full() or self._writes_bytes + size > WAITING_BYTES:
            self.dropped += 1
            return
        self.waiting += 1
        self._writes_bytes += size
        self._writes.put_nowait((size, write))

    async def call(self, question: Coroutine[Any, Any, T]) -> T | None:
        """Return the answer to any other question, asked under the deadline; None if there is none."""
        if not self.up:
            question.close()
            return None
        try:
            async with asyncio.timeout(self._deadline):
                answer = await question
        except Exception as error:  # whatever goes wrong, it is a miss
            self._failed(error)
            return None
        self._failures = 0
        return answer

    async def names(self, model: str | None = None) -> AsyncIterator[list[str]]:
        """Yield the names of all values, or of one model's, page by page. Raises what redis-py raises."""
        page: list[str] = []
        async for found in self.client.scan_iter(match=f"{of_model(model) if model else PREFIX}*", count=PAGE):
            if not found.endswith(LEASE.encode()):
                page.append(found.decode())
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page

    async def purge(self, model: str | None = None) -> int:
        """Delete all values, or one model's; return how many. Raises what redis-py raises."""
        return sum([await self.client.unlink(*page) async for page in self.names(model)])

    async def stats(self) -> dict[str, tuple[int, int]]:
        """Return how many values there are and their bytes, by model. Raises what redis-py raises."""
        found: dict[str, tuple[int, int]] = {}
        async for page in self.names():
            asked = self.client.pipeline(transaction=False)
            for name in page:
                asked.strlen(name)
            for name, size in zip(page, await asked.execute(), strict=True):
                model = unquote(name.removeprefix(PREFIX).partition(":")[0])
                entries, total = found.get(model, (0, 0))
                found[model] = entries + 1, total + size
        return found

    def _ask(self) -> None:
        """Ask for what is wanted, in as many questions as may be under way; the rest waits for one to end."""
        while self._wanted and (len(self._questions) < QUESTIONS or not self.up):
            some = [self._wanted.popleft() for _ in range(min(BATCH, len(self._wanted)))]
            question = asyncio.create_task(self._read(some))
            self._questions.add(question)
            question.add_done_callback(self._asked)

    def _asked(self, question: asyncio.Task[None]) -> None:
        self._questions.discard(question)
        self._ask()

    async def _read(self, wanted: list[tuple[str, asyncio.Future[bytes | None]]]) -> None:
        names = [name for name, _ in wanted]
        values: list[bytes | None] = [None] * len(names)
        try:
            values = await self.call(self._values(names)) or values
        finally:
            for (_, future), value in zip(wanted, values, strict=True):
                self.hits += value is not None
                self.misses += value is None
                if not future.done():
                    future.set_result(value)

    async def _values(self, names: list[str]) -> list[bytes | None]:
        if len(names) == 1:
            return [await self.client.get(names[0])]
        ask = getattr(self.client, "mget_nonatomic", self.client.mget)  # a Cluster's keys are on several nodes
        values: list[bytes | None] = await ask(names)
        return values

    async def _write(self) -> None:
        while True:
            size, write = await self._writes.get()
            try:
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await write(self.client)
            except Exception as error:
                self._failed(error)
            finally:
                self.waiting -= 1
                self._writes_bytes -= size
                self._writes.task_done()

    async def _watch(self) -> None:
        """While it is away, ask again and again."""
        while True:
            await self._lost.wait()
            await asyncio.sleep(RETRY_INTERVAL)
            await self._look()

    async def _look(self) -> None:
        """Connect, and see whether an answer comes within the deadline."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT):
                for outcome in await asyncio.gather(*(self._ping() for _ in range(QUESTIONS)), return_exceptions=True):
                    if isinstance(outcome, Exception):
                        raise outcome
            async with asyncio.timeout(self._deadline):
                await self._ping()
        except Exception as error:
            self._away(error)
            return
        self._failures = 0
        self._lost.clear()
        if not self.up:
            self.up = True
            log.info("cache: Redis answers")

    async def _ping(self) -> None:
        await self.client.get(PREFIX)  # of a Cluster this asks one node, and finds out about all

    def _failed(self, error: BaseException) -> None:
        self.errors += 1
        if isinstance(error, ResponseError) and not isinstance(error, ClusterError):  # it is there, and has no room
            if self._refusal != str(error):
                log.warning("cache: Redis refuses: %s", error)
            self._refusal = str(error)
            return
        self._failures += 1
        if self.up and self._failures >= FAILURES:
            self._away(error)

    def _away(self, error: BaseException) -> None:
        if self.up or not self._lost.is_set():
            log.warning("cache: Redis does not answer, and is left alone: %s", error or "no time left")
        self.up = False
        self._lost.set()


async def _within(seconds: float, doing: Coroutine[Any, Any, Any]) -> None:
    try:
        await asyncio.wait_for(doing, seconds)
    except FAILED:
        log.warning("cache: Redis was left before it had taken everything")
