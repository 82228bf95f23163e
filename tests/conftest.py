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
    """Mark what runs processes, and put the tests in their order."""
    for item in items:
        if str(item.path.relative_to(HERE)).startswith(PROCESSES):
            item.add_marker("process")
    items.sort(key=lambda item: [bool(item.get_closest_marker(name)) for name in ("live", "process")])
