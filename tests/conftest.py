"""In which order the tests run: unit and wire tests first, then those that run processes, then real engines."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# What runs the gateway, simulators, Redis or other languages' clients as processes of their own.
PROCESSES = (
    "clients/",
    "faults/",
    "gateway/test_cache_redis.py",
    "gateway/test_cache_store.py",
    "gateway/test_cached_redis.py",
    "gateway/test_commands.py",
    "gateway/test_doctor.py",
    "gateway/test_drain.py",
    "gateway/test_limits.py",
    "gateway/test_redis_client.py",
    "gateway/test_reload.py",
    "gateway/test_workers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs processes and what belongs together, and put the tests in their order."""
    for item in items:
        if str(item.path.relative_to(HERE)).startswith(PROCESSES):
            item.add_marker("process")
        if name := group(item):
            item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in ("live", "process")])


def group(item: pytest.Item) -> str:
    """What runs in one process, one after the other: it shares an engine, or what a client's script came to."""
    if item.get_closest_marker("live"):
        return "live"
    client = item.callspec.params.get("client") if hasattr(item, "callspec") else None
    return f"client-{client}" if client and item.get_closest_marker("process") else ""
