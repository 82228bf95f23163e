"""What the clients run against: a gateway in front of both simulators, and one in front of real engines.

The real engines are those of tests/live: named by `POINTSMAN_LIVE_VLLM` and `POINTSMAN_LIVE_TGI`, or a vLLM that the
session starts, once for both folders. Logs: `.cache/clients-*.log`.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.clients import clients
from tests.clients.asked import CONTEXT, MODEL
from tests.clients.clients import Client
from tests.live import vllm_engine
from tests.live.conftest import NAMES, missing
from tests.live.conftest import engines as live_engines  # a fixture
from tests.live.direct import Engine, engine_at
from tests.support.ports import free_port

__all__ = ["live_engines"]

FAST = ["--ttft-ms", "0", "--itl-ms", "0", "--max-model-len", str(CONTEXT)]


@dataclass(frozen=True)
class World:
    """A gateway and the engines behind it, all behind one model's name."""

    gateway: str
    engines: dict[str, Engine]
    real: bool


Ask = Callable[[World, Client, str], dict[str, Any]]


def given(item: pytest.Item) -> dict[str, Any]:
    """The parameters of a test."""
    return item.callspec.params if hasattr(item, "callspec") else {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what needs real engines last, and before tests/live, which then finds the vLLM that was started here."""
    items.sort(key=lambda item: (item.get_closest_marker("live") is not None, given(item).get("world") != "real"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose engine or client is missing; here, so that the summary says it in one line."""
    engines = [given(item)["engine"]] if "engine" in given(item) else NAMES
    reasons = [missing(name) for name in engines if given(item).get("world") == "real"]
    reasons += [clients.why_not(one) for one in given(item).values() if isinstance(one, Client)]
    for reason in filter(None, reasons):
        pytest.skip(reason)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """The world of that name, below."""
    made: World = request.getfixturevalue(request.param)
    return made


@pytest.fixture(scope="session")
def simulated() -> Iterator[World]:
    """Both simulators, which know one another's texts: to the same prompt they answer the same."""
    with ExitStack() as stack:
        engines = {}
        for name in NAMES:
            port = free_port()
            url = stack.enter_context(started(f"sim-{name}", "/health", port, "sim", name, *FAST))
            engines[name] = engine_at(name, url)
        yield stack.enter_context(behind("simulated", engines))


@pytest.fixture(scope="session")
def real(live_engines: dict[str, Engine]) -> Iterator[World]:
    """The real engines, of which tests/live is told too."""
    with pytest.MonkeyPatch.context() as patch, behind("real", live_engines) as made:
        for name, engine in live_engines.items():
            patch.setenv(f"POINTSMAN_LIVE_{name.upper()}", engine.url)
        yield made


@pytest.fixture(scope="session")
def ask() -> Ask:
    """Run a client's script, once for each engine of each world; the first failure is that of all its tests."""
    results: dict[tuple[str, Client, str], dict[str, Any] | AssertionError] = {}

    def asked(world: World, client: Client, engine: str) -> dict[str, Any]:
        key = (world.gateway, client, engine)
        if key not in results:
            clients.prepare(client)
            try:
                results[key] = clients.results(client, world.gateway, engine)
            except AssertionError as error:
                results[key] = error
        result = results[key]
        if isinstance(result, AssertionError):
            raise result
        return result

    return asked


@contextmanager
def behind(name: str, engines: dict[str, Engine]) -> Iterator[World]:
    """A gateway in front of these engines, with one model."""
    urls = [word for engine in engines.values() for word in (f"--{engine.name}", engine.url)]
    with started(name, "/readyz", free_port(), "serve", *urls, "--model", MODEL) as url:
        yield World(url, engines, name == "real")


@contextmanager
def started(name: str, sign: str, port: int, *command: str, patience: float = 60) -> Iterator[str]:
    """The URL of a process of ours, once it answers with 200 at the path `sign`."""
    url = f"http://127.0.0.1:{port}"
    clients.CACHE.mkdir(exist_ok=True)
    path = clients.CACHE / f"clients-{name}.log"
    with path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *command, "--port", str(port)],
            cwd=clients.ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + patience
            while not answers(url + sign):
                if process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"{' '.join(command)} is not ready: see .cache/{path.name}")
                time.sleep(0.1)
            yield url
        finally:
            vllm_engine.stop(process)


def answers(url: str) -> bool:
    """Whether this says 200."""
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
