"""The limits of one gateway, counted in its memory."""

import asyncio
import threading

from limits.storage import MemoryStorage

from gateway.limits.quota import WINDOW, Quota
from gateway.limits.standing import Reached, Standing, refusal
from gateway.principal import Principal

UNBOUNDED = 2**53


class NoTimer(threading.Timer):
    """Stands where MemoryStorage keeps the thread that it starts, every 10 ms of traffic, to look through all keys.

    That thread costs a request 45 to 80 µs, and with 20,000 keys 1.7 ms; `Memory.run` does its work once a minute.
    """

    def is_alive(self) -> bool:
        """Say that a thread is there, so that none is started."""
        return True


class Memory:
    """The Limiter of one gateway. Of several without Redis, or of one's workers, each enforces its share, rounded up.

    The windows are of Unix time. If the clock jumps, counting begins anew in another window, so that no key is shut
    out for longer than the two minutes that a window counts.
    """

    def __init__(self, workers: int = 1) -> None:
        self.up = True
        self.unchecked = 0
        self._workers = workers
        self._in_flight: dict[str, int] = {}
        self._windows = MemoryStorage()
        self._windows.timer.cancel()
        self._windows.timer = NoTimer(0, self.sweep)

    async def enter(self, principal: Principal, now: float) -> Standing:
        """Count a request: look at all limits first, then take. Nothing else runs in between."""
        key, places = principal.id, self._share(principal.max_in_flight)
        requests = self._quota(key, "requests", principal.requests_per_minute)
        tokens = self._quota(key, "tokens", principal.tokens_per_minute)
        standing = Standing(key, now, requests, tokens)
        if (reached := self._reached(standing, places)) is not None:
            raise refusal(reached, standing, places)
        if requests is not None:
            self._debit(key, "requests", 1)
            standing.requests = requests._replace(current=requests.current + 1)
        if places:
            self._in_flight[key] = self._in_flight.get(key, 0) + 1
            standing.lease = key
        return standing

    def leave(self, standing: Standing, tokens: int, now: float) -> None:
        """Give back the place and debit the tokens."""
        if standing.lease is not None:
            left = self._in_flight.pop(standing.key) - 1
            if left:
                self._in_flight[standing.key] = left
            standing.lease = None
        if tokens and standing.tokens is not None:
            self._debit(standing.key, "tokens", tokens)

    async def open(self) -> None:
        """There is nothing to open."""

    async def run(self) -> None:
        """Forget, once a minute, what counts no more."""
        while True:
            await asyncio.sleep(WINDOW)
            self.sweep()

    async def close(self) -> None:
        """There is nothing to close."""

    def sweep(self) -> None:
        """Forget the windows that count no more; MemoryStorage drops such a one when asked for it."""
        for window in tuple(self._windows.expirations):
            self._windows.get(window)

    def _reached(self, standing: Standing, places: int) -> Reached | None:
        if places and self._in_flight.get(standing.key, 0) >= places:
            return "in flight"
        if standing.tokens is not None and not standing.tokens.remaining:
            return "tokens"
        if standing.requests is not None and not standing.requests.remaining:
            return "requests"
        return None

    def _quota(self, key: str, what: str, limit: int) -> Quota | None:
        if not limit:
            return None
        return Quota(self._share(limit), *self._windows.get_sliding_window(f"{key}/{what}", WINDOW))

    def _debit(self, key: str, what: str, amount: int) -> None:
        self._windows.acquire_sliding_window_entry(f"{key}/{what}", UNBOUNDED, WINDOW, amount)

    def _share(self, limit: int) -> int:
        return -(-limit // self._workers)
