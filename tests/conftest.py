"""In which order the tests run: unit and wire tests first, then those that run processes, then real engines."""

import gc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

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


def pytest_collection_finish() -> None:
    """Have the garbage collector leave out what was collected, which stays: with it, each look takes half a second."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have `--dist loadscope` mean our groups; xdist 3.8's own, `loadgroup`, do nothing under pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Groups(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Groups(config, log) if config.getvalue("dist") == "loadscope" else None


def group(nodeid: str) -> str:
    """What runs in one process, one after the other: it shares real engines, or what a client's script came to."""
    if nodeid.startswith("tests/live/") or nodeid.endswith("-real]"):
        return "live"
    return nodeid.partition("[")[2].partition("-")[0] if nodeid.startswith("tests/clients/") else nodeid
