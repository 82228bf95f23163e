"""The client of one Redis: asked under a deadline, by a few at a time, and not at all while it does not answer.

A Redis that is down costs requests nothing: they are told so at once. A task in the background asks it again every
`retry_interval`, and it is up when a probe is answered within the deadline. While it is up the same task asks it when
nobody else may, so that `up` is true to life on an idle gateway, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from gateway.redis.connect import Connection, connect, is_refusal
from gateway.redis.health import MAX_FAILURES, RedisAvailability

RETRY_INTERVAL = 1.0  # seconds between two questions of the background task
CONNECT_TIMEOUT = 1.0  # seconds to connect, and for what nobody waits for
MAX_CONCURRENT = 8  # questions at once, and as many connections: a burst waits for its turn, where no deadline runs
PROBE = "pointsman:probe"  # a key that is never there; of a Cluster one node is asked, which tells about all

T = TypeVar("T")
Question = Callable[[Connection], Awaitable[T]]
Script = Callable[[Sequence[str], Sequence[Any]], Awaitable[Any]]


class RedisUnavailable(Exception):
    """Redis does not answer, or has not lately."""


class RedisRefused(RedisUnavailable):
    """Redis answers, and does not do what it was asked: it has no memory left, or gives no permission."""


class RedisClient:
    """One Redis, for one use: "cache" or "limits". `deadline` is for each answer, in seconds.

    `while_down` says in the log what happens to requests while Redis is down. `deadline` and `retry_interval` may be
    changed at any time. `redis` is redis-py's client, for what is asked without a deadline.
    Raises ValueError if the URL is none.
    """

    def __init__(
        self,
        url: str,
        use: str,
        while_down: str,
        deadline: float,
        retry_interval: float = RETRY_INTERVAL,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_failures: int = MAX_FAILURES,
    ) -> None:
        self.redis = connect(url, connect_timeout)
        self.health = RedisAvailability(use, while_down, max_failures)
        self.deadline = deadline
        self.retry_interval = retry_interval
        self.connect_timeout = connect_timeout
        self._probes = max_failures
        self._permits = asyncio.Semaphore(MAX_CONCURRENT)
        self._scripts: list[str] = []
        self._watching: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether Redis answers."""
        return self.health.up

    async def open(self) -> None:
        """Connect, if Redis is there, which takes no longer than a moment; and keep up with it from then on."""
        await self._probe()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Ask nothing more, and close the connections."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        self.health.up = False
        with suppress(Exception):  # what is being left cannot be mended
            await within(self.connect_timeout, self.redis.aclose())

    def script(self, text: str) -> Script:
        """Return a Lua script to ask with, by its keys and its arguments. It is there whenever Redis is up."""
        self._scripts.append(text)
        script: Script = self.redis.register_script(text)
        return script

    async def ask(self, question: Question[T], deadline: float | None = None) -> T:
        """Return the answer to a question, which is asked only while Redis is up.

        `question` is called with redis-py's client; `deadline` is in seconds, the client's own if there is none.
        Raises RedisUnavailable, whatever went wrong, and RedisRefused if Redis answers and refuses.
        """
        async with self._permits:
            if not self.up:
                raise RedisUnavailable("Redis does not answer")
            try:
                answer = await within(deadline or self.deadline, question(self.redis))
            except Exception as error:
                if is_refusal(error):
                    self.health.refused(error)
                    raise RedisRefused(str(error)) from error
                self.health.failed(error)
                raise RedisUnavailable(str(error)) from error
        self.health.answered()
        return answer

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.retry_interval)
            if not self.up:
                await self._probe()
                continue
            with suppress(RedisUnavailable):
                await self.ask(_ping)

    async def _probe(self) -> None:
        """Connect, and see whether an answer comes within the deadline."""
        try:
            await within(self.connect_timeout, self._connect())
            await self._answers_in_time()
        except Exception as error:
            self.health.down(error)
        else:
            self.health.recovered()

    async def _connect(self) -> None:
        """Make the connections and load the scripts, which would cost the first requests their deadline.

        The first goes alone: redis-py looks for a Cluster's nodes then, and may fail what is asked meanwhile.
        """
        await _ping(self.redis)
        pings = (_ping(self.redis) for _ in range(MAX_CONCURRENT))
        for outcome in await asyncio.gather(*pings, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        for text in self._scripts:
            await _unless_refused(self.redis.script_load(text))

    async def _answers_in_time(self) -> None:
        """Have one of as many probes answered as failures make it down: this process may be busy itself."""
        for left in reversed(range(self._probes)):
            try:
                await within(self.deadline, _ping(self.redis))
            except TimeoutError:
                if not left:
                    raise
            else:
                return


async def within(seconds: float, asked: Awaitable[T]) -> T:
    """Return an answer. Raises TimeoutError if there is none in time, and what the question raises.

    It has a task of its own: redis-py may swallow a cancellation while it connects, and with it the deadline, and the
    end of the request. (`asyncio.wait` would do as well, at twice the cost, which each request feels.)
    """
    loop = asyncio.get_running_loop()
    asking = asyncio.ensure_future(asked)
    over: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(seconds, _end, over)
    asking.add_done_callback(lambda _: _end(over))
    try:
        await over
    finally:
        timer.cancel()
        if not asking.done():
            asking.cancel()
            asking.add_done_callback(_drop)
    if not asking.done():
        raise TimeoutError(f"no answer within {seconds * 1000:g} ms")
    return asking.result()


def _end(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)


def _drop(late: "asyncio.Future[Any]") -> None:
    """Take what comes too late, so that asyncio does not complain that nobody did."""
    if not late.cancelled():
        late.exception()


async def _ping(redis: Connection) -> None:
    await _unless_refused(redis.get(PROBE))


async def _unless_refused(asked: Awaitable[Any]) -> None:
    """Wait for an answer; a refusal is one, too."""
    try:
        await asked
    except Exception as error:
        if not is_refusal(error):
            raise
