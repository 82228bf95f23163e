"""The limits of several gateways, counted together in Redis; and what holds while Redis does not answer."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, Literal, cast

from limits.aio.storage import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.storage import storage_from_string
from redis import asyncio as asyncio_redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import RedisClusterException, RedisError

from gateway.access.limits import scripts
from gateway.access.limits.health import RETRY_INTERVAL, Health
from gateway.access.limits.lease import RateLimitLease, refusal
from gateway.access.limits.quota import Quota
from gateway.access.principal import Principal
from gateway.http.errors import RETRY_AFTER, Unavailable

DEADLINE = 0.05  # seconds for an answer
MAX_CONCURRENT = 8  # questions at once: a burst waits here for its turn, where no deadline runs
LEASE = 30_000  # ms, after which the places of a gateway that was killed are free again
RENEWAL = 10.0  # seconds
CONNECT_TIMEOUT = 1.0  # seconds, on opening

FAULTS = (RedisError, RedisClusterException, OSError)

MEANWHILE = {"open": "let in unchecked", "closed": "refused"}


class Down(Exception):
    """Redis does not answer, or has not lately."""


class Redis:
    """The Limiter of several gateways. A request costs a question on entry, and one that nobody waits for at the end.

    The addresses are those that `limits` knows: redis, rediss, redis+unix, redis+sentinel and redis+cluster. While
    Redis is down requests are let in uncounted or refused, as `when_down` says.
    """

    def __init__(self, url: str, when_down: Literal["open", "closed"], clock: Callable[[], float]) -> None:
        self.unchecked = 0
        self._when_down = when_down
        self._clock = clock
        self._health = Health(MEANWHILE[when_down])
        storage = cast(RedisStorage, storage_from_string(f"async+{url}", implementation="redispy", protocol=2))
        self._client = cast(asyncio_redis.Redis, cast(RedispyBridge, storage.bridge).get_connection())
        self._client.set_retry(Retry(NoBackoff(), 1))
        self._enter: AsyncScript = self._client.register_script(scripts.ENTER)
        self._leave: AsyncScript = self._client.register_script(scripts.LEAVE)
        self._renew: AsyncScript = self._client.register_script(scripts.RENEW)
        self._turns = asyncio.Semaphore(MAX_CONCURRENT)
        self._name = secrets.token_hex(8)
        self._numbers = count()
        self._leases: defaultdict[str, set[str]] = defaultdict(set)
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def up(self) -> bool:
        """Whether Redis answers."""
        return self._health.up

    async def enter(self, principal: Principal, now: float) -> RateLimitLease:
        """Count a request: Redis looks at all limits and takes, in one script."""
        key, places = principal.id, principal.max_in_flight
        limits = principal.requests_per_minute, principal.tokens_per_minute, places
        standing = RateLimitLease(key, now)
        if not any(limits):
            return standing
        lease = f"{self._name}-{next(self._numbers)}"
        try:
            reached, *windows = await self._ask(self._enter, key, now, *limits, lease, LEASE)
        except Down:
            return self._unasked(standing)
        except asyncio.CancelledError:
            self._spawn(self._undone(key, now, lease))
            raise
        standing.requests, standing.tokens = _quota(limits[0], windows[:4]), _quota(limits[1], windows[4:])
        if reached:
            raise refusal(reached.decode(), standing, places)
        if places:
            standing.lease = lease
            self._leases[key].add(lease)
        return standing

    def leave(self, standing: RateLimitLease, tokens: int, now: float) -> None:
        """Have the place given back and the tokens debited."""
        debit = tokens if standing.tokens is not None else 0
        if standing.lease is not None or debit:
            self._spawn(self._left(standing.key, now, debit, standing.lease or ""))
        if standing.lease is not None:
            self._forget(standing.key, standing.lease)
            standing.lease = None

    async def open(self) -> None:
        """Connect and leave the scripts there, which would cost the first requests their deadline."""
        with suppress(*FAULTS):
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.gather(*(self._client.ping() for _ in range(MAX_CONCURRENT)))
                for script in (self._enter, self._leave, self._renew):
                    await self._client.script_load(script.script)

    async def run(self) -> None:
        """Renew the leases of the requests that are open, and see whether Redis answers when no request asks it."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(RETRY_INTERVAL)
            now = self._clock()
            with suppress(Down):
                await self._told(self._client.ping, now)
            if now - renewed >= RENEWAL:
                renewed = now
                await self.renew(now)

    async def renew(self, now: float) -> None:
        """Renew them once."""
        for key in tuple(self._leases):
            if leases := self._leases.get(key):
                with suppress(Down):
                    await self._ask(self._renew, key, now, LEASE, *leases)

    async def close(self) -> None:
        """Wait for what is still to be told, and close the connections."""
        await asyncio.gather(*self._leaving)
        await self._client.aclose()

    async def _ask(self, script: AsyncScript, key: str, now: float, *args: Any) -> Any:
        """Ask Redis for a key, if that makes sense. Raises Down."""
        return await self._told(lambda: script(_keys(key), args), now)

    async def _told(self, question: Callable[[], Awaitable[Any]], now: float) -> Any:
        """Return the answer to a question. Raises Down.

        The question has a task of its own: redis-py may swallow a cancellation while it connects, and would so the
        deadline, and the end of the request.
        """
        async with self._turns:
            if not self._health.allows(now):
                raise Down
            asking = asyncio.ensure_future(question())
            try:
                await asyncio.wait((asking,), timeout=DEADLINE)
            finally:
                asking.cancel()  # if it is not done
        return self._answer(asking, now)

    def _answer(self, asking: "asyncio.Future[Any]", now: float) -> Any:
        try:
            if not asking.done():
                raise TimeoutError(f"no answer within {DEADLINE * 1000:g} ms")
            reply = asking.result()
        except FAULTS as error:
            self._health.failed(now, error)
            raise Down from error
        self._health.answered()
        return reply

    def _unasked(self, standing: RateLimitLease) -> RateLimitLease:
        if self._when_down == "closed":
            message = "The limits of this key cannot be counted now. Please try again in 1s."
            raise Unavailable(message, headers={"retry-after": RETRY_AFTER})
        self.unchecked += 1
        return standing

    async def _left(self, key: str, now: float, tokens: int, lease: str) -> None:
        with suppress(Down):
            await self._ask(self._leave, key, now, tokens, lease)

    async def _undone(self, key: str, now: float, lease: str) -> None:
        """Give back the place that a request cancelled on entry may have got, or is just getting."""
        await asyncio.sleep(DEADLINE)
        await self._left(key, now, 0, lease)

    def _forget(self, key: str, lease: str) -> None:
        self._leases[key].discard(lease)
        if not self._leases[key]:
            del self._leases[key]

    def _spawn(self, telling: Any) -> None:
        task = asyncio.ensure_future(telling)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


def _keys(key: str) -> list[str]:
    """Return a key's names in Redis; the braces keep them on one node of a cluster."""
    of = f"pointsman:limits:{{{key}}}"
    return [f"{of}:requests/-1", f"{of}:requests", f"{of}:tokens/-1", f"{of}:tokens", f"{of}:leases"]


def _quota(limit: int, window: list[Any]) -> Quota | None:
    """Return the quota by what Redis says: a count is None if it is 0; a time is in ms, below 0 if there is none."""
    if not limit:
        return None
    previous, previous_ms, current, current_ms = (max(0, int(figure or 0)) for figure in window)
    return Quota(limit, previous, previous_ms / 1000, current, current_ms / 1000)
