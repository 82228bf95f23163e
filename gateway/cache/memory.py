"""Tier 1: entries in this process, within so many bytes. What is asked for often stays, not what came last.

Eviction is W-TinyLFU (Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM TOS 2017),
by moka: of the libraries for Python the one that has it and weighs entries. Its own clock is not used: an entry knows
how long it is good, and is looked at with the time that is passed in.
"""

from moka_py import Moka

from gateway.cache.entry import CachedAnswer

NEVER = float("-inf")
OVERHEAD = 1000  # bytes of an entry beside its answer: the objects here, and moka's node and sketch


def weight(digest: bytes, entry: CachedAnswer) -> int:
    """Return what an entry takes, in bytes."""
    return OVERHEAD + len(digest) + len(entry.whole) + len(entry.lines)


class MemoryTier:
    """A bounded map from digests to entries. `evicted` counts what had to go, or was not let in."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.evicted = 0
        self._kept: Moka[bytes, CachedAnswer] = Moka(max_bytes, weigher=weight, eviction_listener=self._gone)
        self._purged: dict[str, float] = {}  # when, by model

    def get(self, digest: bytes, now: float) -> CachedAnswer | None:
        """Return the entry that is kept under a digest, if it is still good."""
        entry = self._kept.get(digest)
        if entry is None:
            return None
        label = entry.label
        if label.fresh(now) and label.created > self._purged.get(label.model, NEVER):
            return entry
        self._kept.remove(digest)
        return None

    def put(self, entry: CachedAnswer) -> None:
        """Keep an entry, if it is worth its room. The bound holds as soon as this returns."""
        self._kept.set(entry.label.digest, entry)
        self._kept.run_pending_tasks()

    def purge(self, model: str | None, now: float) -> None:
        """Forget everything, or one model's answers."""
        if model is None:
            self._kept.clear()
            self._kept.run_pending_tasks()
        else:
            self._purged[model] = now

    @property
    def entries(self) -> int:
        """How many there are."""
        return self._kept.count()

    @property
    def size(self) -> int:
        """What they take, in bytes."""
        return self._kept.weighted_size()

    def _gone(self, digest: bytes, entry: CachedAnswer, cause: str) -> None:
        self.evicted += cause == "size"
