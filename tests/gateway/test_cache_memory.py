"""Tier 1: within its bytes, for its time, and what is asked for often stays."""

from __future__ import annotations

from gateway.cache.entry import CachedAnswer, Label
from gateway.cache.memory import OVERHEAD, MemoryTier, weight


def entry(number: int, size: int = 100, created: float = 100.0, ttl: float = 60.0, model: str = "m") -> CachedAnswer:
    return CachedAnswer(Label(number.to_bytes(32, "big"), model, created, ttl), b"x" * size, b"")


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_what_was_put_is_got_until_its_time_is_over() -> None:
    memory = MemoryTier(100_000)
    memory.put(entry(1))
    assert memory.get(key(1), 100.0) == entry(1)
    assert memory.get(key(1), 159.9) == entry(1)
    assert memory.get(key(2), 100.0) is None
    assert memory.get(key(1), 160.0) is None
    assert memory.get(key(1), 100.0) is None  # gone for good


def test_an_entry_from_the_future_is_none() -> None:
    memory = MemoryTier(100_000)
    memory.put(entry(1, created=1000.0))
    assert memory.get(key(1), 100.0) is None


def test_keys_and_objects_count_and_the_bound_always_holds() -> None:
    memory = MemoryTier(100_000)
    assert weight(key(1), entry(1, 50)) == OVERHEAD + 32 + 50
    for number in range(1000):
        memory.put(entry(number, number * 7 % 5000))
        assert memory.size <= 100_000
    assert memory.entries > 10
    assert memory.evicted == 1000 - memory.entries


def test_an_entry_larger_than_all_is_not_kept_and_drives_nothing_out() -> None:
    memory = MemoryTier(10_000)
    memory.put(entry(1))
    memory.put(entry(2, 20_000))
    assert memory.get(key(2), 100.0) is None
    assert memory.get(key(1), 100.0) is not None


def test_a_scan_of_new_answers_does_not_drive_out_those_that_are_asked_for() -> None:
    memory = MemoryTier(20 * weight(key(0), entry(0)))
    for number in range(20):
        memory.put(entry(number))
    for number in [*range(10)] * 5:
        memory.get(key(number), 100.0)
    for number in range(1000, 2000):
        memory.get(key(number), 100.0)
        memory.put(entry(number))
    assert sum(memory.get(key(number), 100.0) is not None for number in range(10)) >= 9


def test_an_answer_put_again_is_the_newer_one() -> None:
    memory = MemoryTier(100_000)
    memory.put(entry(1, 10))
    memory.put(entry(1, 20))
    assert memory.get(key(1), 100.0) == entry(1, 20)
    assert memory.entries == 1


def test_one_models_answers_are_forgotten_and_those_that_come_later_kept() -> None:
    memory = MemoryTier(100_000)
    memory.put(entry(1, model="a"))
    memory.put(entry(2, model="b"))
    memory.purge("a", 110.0)
    assert memory.get(key(1), 111.0) is None
    assert memory.get(key(2), 111.0) is not None
    memory.put(entry(1, model="a", created=112.0))
    assert memory.get(key(1), 113.0) is not None
    memory.purge(None, 114.0)
    assert memory.get(key(2), 115.0) is None
    assert memory.entries == 0
