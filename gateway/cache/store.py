"""Both tiers as one. Whatever is wrong with what they hold is a miss, counted by kind, and logged once in a while."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from gateway.cache.entry import CachedAnswer
from gateway.cache.memory import MemoryTier
from gateway.cache.names import name_of
from gateway.cache.packed import UnreadableEntry, pack, unpack

if TYPE_CHECKING:
    from gateway.cache.redis import RedisTier

QUIET = 10.0  # seconds between two lines in the log about the same kind of fault

log = logging.getLogger("pointsman")


class Tier(Struct, frozen=True):
    """What one tier holds: how many answers, and their bytes."""

    entries: int
    bytes: int


class Store:
    """Answers by their keys. `wall` is Unix time, which all gateways share.

    `faults` counts what could not be used: corrupt, version, oversize, poisoned (kept under another's key), clock.
    """

    def __init__(self, memory: MemoryTier, redis: "RedisTier | None", wall: Callable[[], float]) -> None:
        self.memory = memory
        self.redis = redis
        self.faults: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()  # by tier: memory, redis
        self.misses = 0
        self._wall = wall
        self._logged: dict[str, float] = {}

    async def open(self) -> None:
        """Connect to Redis."""
        if self.redis is not None:
            await self.redis.open()

    async def close(self) -> None:
        """Write what waits, and close the connections."""
        if self.redis is not None:
            await self.redis.close()

    async def get(self, digest: bytes, model: str) -> CachedAnswer | None:
        """Return the answer that is kept for a model under a digest, from the nearest tier that has it."""
        entry = self.near(digest)
        tier = "memory"
        if entry is None:
            entry = await self.shared(digest, model)
            tier = "redis"
        if entry is None:
            self.misses += 1
        else:
            self.hits[tier] += 1
        return entry

    def near(self, digest: bytes) -> CachedAnswer | None:
        """Return what is kept here."""
        return self.memory.get(digest, self._wall())

    async def shared(self, digest: bytes, model: str) -> CachedAnswer | None:
        """Return what Redis has, and keep it here too, for as long as it is still good."""
        if self.redis is None:
            return None
        value = await self.redis.get(name_of(model, digest))
        if value is None:
            return None
        try:
            entry = unpack(value, digest)
        except UnreadableEntry as error:
            self._fault(error.fault, digest)
            return None
        if not entry.label.fresh(self._wall()):
            self._fault("clock", digest)
            return None
        self.memory.put(entry)
        return entry

    def put(self, entry: CachedAnswer) -> None:
        """Keep an answer in both tiers: here at once, in Redis in a moment."""
        self.memory.put(entry)
        if self.redis is None:
            return
        label = entry.label
        try:
            self.redis.put(name_of(label.model, label.digest), pack(entry), label.ttl)
        except UnreadableEntry as error:
            self._fault(error.fault, label.digest)

    async def purge(self, model: str | None = None) -> int:
        """Forget everything, or one model's answers; return how many Redis held. Raises REDIS_ERRORS."""
        self.memory.purge(model, self._wall())
        return 0 if self.redis is None else await self.redis.purge(model)

    def held(self) -> Tier:
        """Return what this process holds."""
        return Tier(self.memory.entries, self.memory.size)

    def _fault(self, kind: str, digest: bytes) -> None:
        self.faults[kind] += 1
        now = self._wall()
        if abs(now - self._logged.get(kind, 0.0)) >= QUIET:
            self._logged[kind] = now
            log.warning("cache: %s is no answer (%s); %d so far", digest.hex()[:16], kind, self.faults[kind])
