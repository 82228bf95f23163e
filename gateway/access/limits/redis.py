"""The limits of several gateways, counted together in Redis; and what holds while Redis does not answer."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count
from typing import Any, Literal
from urllib.parse import quote

from gateway.access.limits import scripts
from gateway.access.limits.lease import RateLimitLease, refusal
from gateway.access.limits.quota import Quota
from gateway.access.principal import Principal
from gateway.http.errors import RETRY_AFTER, Unavailable
from gateway.redis.client import RedisClient, RedisRefused, RedisUnavailable, Script

DEADLINE = 0.05  # seconds for an answer
PERMIT_TTL = 30.0  # seconds, after which the permits of a gateway that was killed are free again
RENEW_INTERVAL = 10.0  # seconds

WHILE_DOWN = {"open": "requests are let in unchecked", "closed": "requests are refused"}

WhenDown = Literal["open", "closed"]


def shared_limiter(url: str, when_down: WhenDown) -> "RedisLimiter":
    """Return the limiter for a Redis; nothing is opened yet. Raises ValueError if the URL is none."""
    return RedisLimiter(RedisClient(url, "limits", WHILE_DOWN[when_down], DEADLINE), when_down)


class RedisLimiter:
    """The Limiter of several gateways. A request costs a question on entry, and one that nobody waits for at the end.

    While Redis is down, or refuses to count, requests are let in uncounted or refused, as `when_down` says. A permit
    lasts for `permit_ttl` seconds unless it is renewed, which `run` does every `renew_interval`.
    """

    def __init__(
        self,
        client: RedisClient,
        when_down: WhenDown,
        permit_ttl: float = PERMIT_TTL,
        renew_interval: float = RENEW_INTERVAL,
    ) -> None:
        self.unchecked = 0
        self.client = client
        self.permits: defaultdict[str, set[str]] = defaultdict(set)  # of the requests in flight, by account
        self.leaving: set[asyncio.Task[None]] = set()  # what Redis is still to be told
        self._when_down = when_down
        self._permit_ttl_ms = int(permit_ttl * 1000)
        self._renew_interval = renew_interval
        self._refused = False
        self._enter = client.script(scripts.ENTER)
        self._look = client.script(scripts.LOOK)
        self._leave = client.script(scripts.LEAVE)
        self._renew = client.script(scripts.RENEW)
        self._name = secrets.token_hex(8)
        self._numbers = count()

    @property
    def up(self) -> bool:
        """Whether Redis answers, and counts."""
        return self.client.up and not self._refused

    async def enter(self, principal: Principal, now: float) -> RateLimitLease:
        """Count a request: Redis looks at all limits and takes, in one script."""
        account, max_in_flight = principal.account, principal.max_in_flight
        limits = principal.requests_per_minute, principal.tokens_per_minute, max_in_flight
        lease = RateLimitLease(account, now)
        if not principal.counted:
            return lease
        permit = f"{self._name}-{next(self._numbers)}"
        try:
            reached, *windows = await self._ask(self._enter, account, *limits, permit, self._permit_ttl_ms)
        except RedisUnavailable:
            return self._uncounted(lease) if principal.limited else lease
        except asyncio.CancelledError:
            self._spawn(self._undo(account, permit))
            raise
        _put_quotas(lease, principal, windows)
        if reached:
            raise refusal(reached.decode(), lease, max_in_flight)
        lease.permit = permit
        self.permits[account].add(permit)
        return lease

    async def look(self, principal: Principal, now: float) -> RateLimitLease:
        """Ask Redis how the key's limits stand; while it is down, say nothing of them."""
        lease = RateLimitLease(principal.account, now)
        with suppress(RedisUnavailable):
            _put_quotas(lease, principal, await self._ask(self._look, principal.account))
        return lease

    def leave(self, lease: RateLimitLease, tokens: int, now: float) -> None:
        """Have the permit given back and the tokens debited."""
        if lease.permit is not None or tokens:
            self._spawn(self._release(lease.account, tokens, lease.permit or ""))
        if lease.permit is not None:
            self._forget(lease.account, lease.permit)
            lease.permit = None

    async def open(self) -> None:
        """Connect, and leave the scripts there."""
        await self.client.open()

    async def run(self) -> None:
        """Renew the permits of the requests that are in flight, until cancelled."""
        while True:
            await asyncio.sleep(self._renew_interval)
            await self.renew()

    async def renew(self) -> None:
        """Renew them once."""
        for account in tuple(self.permits):
            if permits := self.permits.get(account):
                with suppress(RedisUnavailable):
                    await self._ask(self._renew, account, self._permit_ttl_ms, *permits)

    async def close(self) -> None:
        """Wait for what is still to be told, and close the connections."""
        await asyncio.gather(*self.leaving)
        await self.client.close()

    async def _ask(self, script: Script, account: str, *args: Any) -> Any:
        """Run a script on what is counted of a tenant. Raises RedisUnavailable."""
        try:
            answer = await self.client.ask(lambda _: script(_names(account), args))
        except RedisRefused:
            self._refused = True
            raise
        self._refused = False
        return answer

    def _uncounted(self, lease: RateLimitLease) -> RateLimitLease:
        if self._when_down == "closed":
            message = "The limits of this key cannot be counted now. Please try again in 1s."
            raise Unavailable(message, headers={"retry-after": RETRY_AFTER})
        self.unchecked += 1
        return lease

    async def _release(self, account: str, tokens: int, permit: str) -> None:
        with suppress(RedisUnavailable):
            await self._ask(self._leave, account, tokens, permit)

    async def _undo(self, account: str, permit: str) -> None:
        """Give back the permit that a request cancelled on entry may have got, or is just getting."""
        await asyncio.sleep(self.client.deadline)
        await self._release(account, 0, permit)

    def _forget(self, account: str, permit: str) -> None:
        self.permits[account].discard(permit)
        if not self.permits[account]:
            del self.permits[account]

    def _spawn(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(telling)
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)


def _names(account: str) -> list[str]:
    """Return a tenant's names in Redis; the braces keep them on one node of a cluster, so the tenant's are escaped."""
    prefix = f"pointsman:limits:{{{quote(account, safe='')}}}"
    return [f"{prefix}:{name}" for name in ("requests/-1", "requests", "tokens/-1", "tokens", "leases")]


def _put_quotas(lease: RateLimitLease, principal: Principal, windows: list[Any]) -> None:
    """Note how the key's limits stand, by what Redis says of both windows."""
    lease.requests = _quota(principal.requests_per_minute, windows[:4])
    lease.tokens = _quota(principal.tokens_per_minute, windows[4:])


def _quota(limit: int, window: list[Any]) -> Quota | None:
    """Return the quota by what Redis says: a count is None if it is 0; a time is in ms, below 0 if there is none."""
    if not limit:
        return None
    previous, previous_ms, current, current_ms = (max(0, int(figure or 0)) for figure in window)
    return Quota(limit, previous, previous_ms / 1000, current, current_ms / 1000)
