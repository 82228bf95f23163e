"""The cache as the pipeline meets it: what a call asks of it, and what is kept of an answer."""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from backends.base import Call, Event
from backends.schema import Usage
from gateway.cache.control import CacheControl, words
from gateway.cache.entry import CachedAnswer, Label, of_stream, of_whole
from gateway.cache.key import cacheable, digest
from gateway.cache.names import name_of
from gateway.cache.single_flight import Flights
from gateway.config.tables import CacheConfig, duration, size
from gateway.upstream.models import ModelRoute

if TYPE_CHECKING:
    from gateway.cache.lease import Lease, Leases
    from gateway.cache.store import Store


log = logging.getLogger("pointsman")

# seconds, for another gateway's answer; who wants a stream would rather have its first token
WHOLE_ANSWERS_WAIT = 5.0
STREAMS_WAIT = 1.0


class CacheLookup(Struct, frozen=True):
    """What a call asks of the cache: the answer under a digest, to be kept so long (such as "10m"), by its words."""

    digest: bytes
    model: str
    ttl: str
    control: CacheControl


class Cache:
    """Both tiers, and what is in flight. `leases` are there where several gateways share a Redis."""

    def __init__(
        self, settings: CacheConfig, store: "Store", leases: "Leases | None", wall: Callable[[], float]
    ) -> None:
        self.settings = settings
        self.store = store
        self.leases = leases
        self.flights: Flights[Any] = Flights()  # of gateway.cache.coalesce.SharedUpstream
        self._wall = wall

    def asked(
        self, call: Call, headers: Mapping[bytes, bytes], tenant: str, model: ModelRoute, engine: str, arm: str = ""
    ) -> CacheLookup | None:
        """Return what a call asks of the cache; None if the cache has nothing to do with it."""
        said = words(headers)
        if not (said.lookup or said.store) or not cacheable(call, said.forced):
            return None
        key = digest(call, tenant=tenant, model=model.name, served=model.served, engine=engine, arm=arm)
        return CacheLookup(key, model.name, model.settings.cache_ttl or self.settings.ttl, said)

    async def get(self, asked: CacheLookup) -> CachedAnswer | None:
        """Return the answer that is kept, if it may be looked up."""
        return await self.store.get(asked.digest, asked.model) if asked.control.lookup else None

    async def turn(self, asked: CacheLookup, stream: bool) -> "Lease | CachedAnswer | None":
        """Return the answer, if it has come meanwhile. Else it is our turn to ask; by a lease, if gateways share."""
        entry = self.store.near(asked.digest)
        if entry is not None or self.leases is None:
            return entry
        name, patience = name_of(asked.model, asked.digest), STREAMS_WAIT if stream else WHOLE_ANSWERS_WAIT
        return await self.leases.acquire_or_get(name, lambda: self.store.shared(asked.digest, asked.model), patience)

    def keep(self, asked: CacheLookup, call: Call, events: Sequence[Event], usage: Usage | None) -> None:
        """Keep a finished answer: the chunks of a stream, or the only one of a whole answer."""
        label = Label(asked.digest, asked.model, self._wall(), duration(asked.ttl) or 0.0)
        try:
            entry = of_stream(call, events, usage, label) if call.stream else of_whole(call, events[0], usage, label)
            if entry is not None:
                self.store.put(entry)
        except Exception:  # a fault of the cache's is no fault of the answer's
            log.exception("cache: an answer could not be kept")

    async def open(self) -> None:
        """Connect."""
        await self.store.open()

    async def close(self) -> None:
        """End what is in flight, and write what waits."""
        await self.flights.close()
        await self.store.close()


def make(settings: CacheConfig, wall: Callable[[], float], clock: Callable[[], float]) -> Cache | None:
    """Return the cache that is configured, or None. Nothing is opened yet."""
    if settings.store == "off":
        return None
    # What follows is imported by those who use it alone: Redis's client takes 0.3 s and 20 MB.
    from gateway.cache.memory import MemoryTier  # noqa: PLC0415
    from gateway.cache.store import Store  # noqa: PLC0415

    memory = MemoryTier(size(settings.max_bytes) or 0)
    if settings.store == "memory":
        return Cache(settings, Store(memory, None, wall), None, wall)
    from gateway.cache.lease import Leases  # noqa: PLC0415
    from gateway.cache.redis import shared_cache  # noqa: PLC0415

    redis = shared_cache(settings.url)
    leases = Leases(redis, lambda: secrets.token_hex(8), clock)
    return Cache(settings, Store(memory, redis, wall), leases, wall)
