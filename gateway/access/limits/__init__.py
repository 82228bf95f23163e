"""Step 2c: a key's limits. How many requests and tokens it may have in a minute, and how many requests at once.

Counted is what all keys of a tenant use together; each key is held to its own limits. `memory` counts for one gateway,
`redis` for several together, by the library `limits`' scripts; both by sliding windows. Requests are counted as they
come in; tokens when they are known, at the end: on entry some only have to be left.
"""

from collections.abc import Callable
from typing import Protocol

from gateway.access.limits.lease import RateLimitLease
from gateway.access.limits.memory import InMemoryLimiter
from gateway.access.principal import Principal
from gateway.config.tables import LimitsConfig

__all__ = ["Limiter", "RateLimitLease", "make"]


class Limiter(Protocol):
    """Lets requests in, or not. `now` is of the monotonic clock, in seconds.

    `unchecked` is the number of requests let in while the limits could not be counted.
    """

    unchecked: int

    @property
    def up(self) -> bool:
        """Whether the limits can be counted now."""

    async def enter(self, principal: Principal, now: float) -> RateLimitLease:
        """Count a request of the key's tenant and return what it holds; `leave` has to follow.

        Raises RateLimited if a limit is reached, and Unavailable if none can be counted and `when_down` is "closed";
        the request has then taken nothing.
        """

    async def look(self, principal: Principal, now: float) -> RateLimitLease:
        """Return how the key's limits stand, as far as that can be said; nothing is counted."""

    def leave(self, lease: RateLimitLease, tokens: int, now: float) -> None:
        """Give back the permit, if it still has it, and debit tokens (0 if there are none).

        Twice is allowed: the tokens may be known later than the request has ended. It waits for nothing, so that it
        delays no answer and no cancellation cuts it short.
        """

    async def open(self) -> None:
        """Make ready for the first request, as far as that can be."""

    async def run(self) -> None:
        """Keep house until cancelled."""

    async def close(self) -> None:
        """Finish what is under way, and let go of connections."""


def make(limits: LimitsConfig, workers: int, clock: Callable[[], float]) -> Limiter:
    """Return the limiter that is configured; `clock` is monotonic. Without Redis each worker enforces its share."""
    if limits.store == "memory":
        return InMemoryLimiter(clock, workers)
    # What follows is imported by those who use it alone: Redis's client takes 0.3 s and 20 MB.
    from gateway.access.limits.redis import shared_limiter  # noqa: PLC0415

    return shared_limiter(limits.url, limits.when_down)
