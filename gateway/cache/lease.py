"""Across gateways: of those that miss the same answer at the same time, one asks the engine, the others wait a little.

A lease is a key in Redis that only one can set, and that goes by itself (Redis documentation, "Distributed Locks with
Redis", a single instance). It saves work and guards nothing: who waits too long, or finds Redis down, asks as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import TYPE_CHECKING

from gateway.cache.entry import CachedAnswer
from gateway.cache.names import LEASE

if TYPE_CHECKING:
    from gateway.cache.redis import RedisTier
    from gateway.redis.connect import Connection

SECONDS = 5.0  # that a lease lasts, and that the others wait
POLLS = (0.01, 0.02, 0.04, 0.08, 0.16)  # seconds between two looks; then the last, again and again

RELEASE = """
if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end
return 0
"""

Look = Callable[[], Awaitable[CachedAnswer | None]]


class Lease:
    """Our turn to ask the engine. Give it back when the answer is kept, or there will be none."""

    def __init__(self, redis: "RedisTier", name: str, token: str) -> None:
        self.name = name
        self.token = token
        self._redis = redis

    def release(self) -> None:
        """Give it back, if it is still ours; behind the answer, which may wait to be written."""
        self._redis.enqueue(lambda redis: redis.eval(RELEASE, 1, self.name, self.token))


class Leases:
    """Gives the leases of one gateway. `token` draws a text that nobody else draws; `clock` is monotonic."""

    def __init__(
        self, redis: "RedisTier", token: Callable[[], str], clock: Callable[[], float], seconds: float = SECONDS
    ) -> None:
        self._redis = redis
        self._token = token
        self._clock = clock
        self._seconds = seconds

    async def acquire_or_get(self, name: str, look: Look, max_wait: float = SECONDS) -> Lease | CachedAnswer:
        """Return a lease as soon as it is our turn to ask; or the answer that another gateway has come to meanwhile.

        `look` looks the answer up where all gateways do. Nobody waits longer than a lease lasts, or than `max_wait`
        seconds.
        """
        lease = Lease(self._redis, name + LEASE, self._token())
        try:
            found = await self._settled(lease, look, min(max_wait, self._seconds))
        except BaseException:
            lease.release()
            raise
        if found is None:
            return lease
        lease.release()
        return found

    async def _settled(self, lease: Lease, look: Look, max_wait: float) -> CachedAnswer | None:
        """Return None as soon as it is our turn, or we have waited long enough; or the answer.

        Whoever gives a lease back has kept the answer before: so we look once more when we have it.
        """
        until = self._clock() + max_wait
        for pause in chain(POLLS, repeat(POLLS[-1])):
            held = await self._held(lease)
            if (found := await look()) or not held or self._clock() >= until:
                return found
            await asyncio.sleep(pause)
        raise AssertionError("the pauses do not end")

    async def _held(self, lease: Lease) -> bool:
        """Take the lease; return whether another holds it. While Redis is down nobody does."""
        return await self._redis.ask(lambda redis: self._take(redis, lease)) is False

    async def _take(self, redis: "Connection", lease: Lease) -> bool:
        return bool(await redis.set(lease.name, lease.token, nx=True, px=int(self._seconds * 1000)))
