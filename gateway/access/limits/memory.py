"""The limits of one gateway, counted in its memory.

By the same sliding windows as in Redis, and not by the library that counts there: five times as fast, which each
request of a limited key feels, and without the thread that the library keeps for its own memory.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.access.limits.lease import RateLimitLease, Reached, refusal
from gateway.access.limits.quota import WINDOW, Quota
from gateway.access.principal import Principal


@dataclass(slots=True, eq=False)
class Windows:
    """What was counted in the current minute, which `began` then, and in the one before."""

    began: float
    current: int = 0
    previous: int = 0

    def quota(self, limit: int, now: float) -> Quota | None:
        """Return how a limit stands; None if there is none."""
        if not limit:
            return None
        self.rotate(now)
        left = self.began + WINDOW - now
        return Quota(limit, self.previous, left, self.current, left + WINDOW)

    def rotate(self, now: float) -> None:
        """Begin another minute, if this one is over."""
        passed = now - self.began
        if passed >= WINDOW:
            self.previous = self.current if passed < 2 * WINDOW else 0
            self.current = 0
            self.began += passed // WINDOW * WINDOW


@dataclass(slots=True, eq=False)
class AccountCounts:
    """What the keys of one tenant have had, and have in flight."""

    requests: Windows
    tokens: Windows
    in_flight: int = 0


@dataclass(slots=True, eq=False)
class InMemoryLimiter:
    """The Limiter of one gateway. Of several without Redis, as of workers, each enforces its share, rounded up.

    `clock` is monotonic, the same that `now` is of.
    """

    clock: Callable[[], float]
    workers: int = 1
    up: bool = True
    unchecked: int = 0
    _counts: dict[str, AccountCounts] = field(default_factory=dict)

    async def enter(self, principal: Principal, now: float) -> RateLimitLease:
        """Count a request: look at all limits first, then take. Nothing else runs in between."""
        lease, counts = await self.look(principal, now), self._of(principal.account, now)
        max_in_flight, requests = self._share(principal.max_in_flight), lease.requests
        if (reached := _reached(lease, counts, max_in_flight)) is not None:
            raise refusal(reached, lease, max_in_flight)
        counts.requests.rotate(now)
        counts.requests.current += 1
        counts.in_flight += 1
        lease.permit = principal.account
        if requests is not None:
            lease.requests = Quota(requests[0], requests[1], requests[2], requests[3] + 1, requests[4])
        return lease

    async def look(self, principal: Principal, now: float) -> RateLimitLease:
        """Return how the key's limits stand."""
        counts = self._of(principal.account, now)
        requests = counts.requests.quota(self._share(principal.requests_per_minute), now)
        tokens = counts.tokens.quota(self._share(principal.tokens_per_minute), now)
        return RateLimitLease(principal.account, now, requests, tokens)

    def leave(self, lease: RateLimitLease, tokens: int, now: float) -> None:
        """Give back the permit and debit the tokens."""
        counts = self._of(lease.account, now)
        if lease.permit is not None:
            counts.in_flight -= 1
            lease.permit = None
        if tokens:
            counts.tokens.rotate(now)
            counts.tokens.current += tokens

    async def open(self) -> None:
        """There is nothing to open."""

    async def run(self) -> None:
        """Forget, once a minute, what counts no more."""
        while True:
            await asyncio.sleep(WINDOW)
            self.sweep(self.clock())

    async def close(self) -> None:
        """There is nothing to close."""

    def sweep(self, now: float) -> None:
        """Forget those of which nothing counts any more."""
        for account, counts in list(self._counts.items()):
            last = max(counts.requests.began, counts.tokens.began)
            if not counts.in_flight and now - last >= 2 * WINDOW:
                del self._counts[account]

    def _of(self, account: str, now: float) -> AccountCounts:
        counts = self._counts.get(account)
        if counts is None:
            counts = self._counts[account] = AccountCounts(Windows(now), Windows(now))
        return counts

    def _share(self, limit: int) -> int:
        return -(-limit // self.workers)


def _reached(lease: RateLimitLease, counts: AccountCounts, max_in_flight: int) -> Reached | None:
    if max_in_flight and counts.in_flight >= max_in_flight:
        return "in flight"
    if lease.tokens is not None and not lease.tokens.remaining:
        return "tokens"
    if lease.requests is not None and not lease.requests.remaining:
        return "requests"
    return None
