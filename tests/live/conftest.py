"""What the live tests stand on: real engines, the real gateway in front of them, OpenAI's own client.

`POINTSMAN_LIVE_VLLM` and `POINTSMAN_LIVE_TGI` name engines that already run and serve the same model with a context of
1,024 tokens (model.py makes it). Without the first the session starts a vLLM of its own; without the second TGI's half
is left out, and says so. `POINTSMAN_LIVE_SMALL` is a vLLM that serves SmolLM2 by the profile `cpu`, in float32.
Logs: `.cache/live-vllm.log`, `.cache/live-small.log`, `.cache/live-gateway.log`.
"""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import httpx
import openai
import pytest

from tests.live import vllm_engine
from tests.live.direct import Engine, engine_at
from tests.support.collector import Collector, over_http
from tests.support.ports import free_port

MODEL = "live"
NAMES = ["vllm", "tgi"]


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Leave out a test whose engine is missing; here, and not in a fixture, so that the summary says it in one line."""
    callspec = getattr(item, "callspec", None)
    wanted = [callspec.params["engine"]] if callspec and "engine" in callspec.params else []
    for name in NAMES if "twins" in item.fixturenames else wanted:
        if reason := missing(name):
            pytest.skip(reason)


@cache
def missing(name: str) -> str | None:
    """Why the session goes without this engine; None if it is there, or can be started."""
    if os.environ.get(f"POINTSMAN_LIVE_{name.upper()}"):
        return None
    if name == "tgi":
        return "POINTSMAN_LIVE_TGI is not set: the TGI half was left out"
    reason = vllm_engine.why_not()
    return reason and f"{reason}: the vLLM half was left out"


@pytest.fixture(scope="session")
def engines() -> Iterator[dict[str, Engine]]:
    """The engines by their names: those that a URL was given for, and a vLLM started here if it was not."""
    urls = {name: url for name in NAMES if (url := os.environ.get(f"POINTSMAN_LIVE_{name.upper()}"))}
    vllm_engine.CACHE.mkdir(exist_ok=True)
    with ExitStack() as stack:
        if "vllm" not in urls and missing("vllm") is None:
            log = stack.enter_context((vllm_engine.CACHE / "live-vllm.log").open("wb"))
            urls["vllm"] = stack.enter_context(vllm_engine.serving(free_port(), log))
        yield {name: engine_at(name, url) for name, url in urls.items()}


@dataclass
class Traced:
    """A vLLM that says what it does to a collector."""

    url: str
    collector: Collector


@pytest.fixture(scope="session")
def traced() -> Iterator[Traced]:
    """A second vLLM, beside the session's; it sends its traces to a collector here."""
    if reason := vllm_engine.why_not():
        pytest.skip(f"{reason}: a second vLLM was left out")
    with ExitStack() as stack:
        collector = stack.enter_context(over_http())
        log = stack.enter_context((vllm_engine.CACHE / "live-vllm-2.log").open("wb"))
        traces = f"{collector.url}/v1/traces"
        yield Traced(stack.enter_context(vllm_engine.serving(free_port(), log, traces)), collector)


@pytest.fixture(scope="session")
def small() -> Iterator[Engine]:
    """A vLLM with a real small model, SmolLM2 135M: for what depends on what a model says."""
    if url := os.environ.get("POINTSMAN_LIVE_SMALL"):
        yield engine_at("vllm", url)
        return
    if reason := vllm_engine.why_not():
        pytest.skip(f"{reason}: the small model was left out")
    with (vllm_engine.CACHE / "live-small.log").open("wb") as log, vllm_engine.serving_small(free_port(), log) as url:
        yield engine_at("vllm", url)


@pytest.fixture(params=NAMES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Engine]) -> Engine:
    """Each engine in turn; the clients below pin their requests to it."""
    return engines[request.param]


@pytest.fixture
def twins(engines: dict[str, Engine]) -> list[Engine]:
    """Both engines at once."""
    return [engines[name] for name in NAMES]


@pytest.fixture(scope="session")
def gateway(engines: dict[str, Engine]) -> Iterator[str]:
    """The URL of a gateway process in front of the engines, both behind one model's name."""
    port = free_port()
    urls = [word for engine in engines.values() for word in (f"--{engine.name}", engine.url)]
    command = [sys.executable, "-m", "gateway", "serve", *urls, "--model", MODEL, "--port", str(port)]
    with (vllm_engine.CACHE / "live-gateway.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=vllm_engine.ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            vllm_engine.stop(process)


@pytest.fixture
def client(gateway: str, engine: Engine) -> Iterator[openai.OpenAI]:
    """OpenAI's client, pinned to the engine; it repeats nothing, so that a fault is seen."""
    pin = {"x-pointsman-engine": engine.name}
    with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, default_headers=pin) as client:
        yield client


@pytest.fixture
async def async_client(gateway: str, engine: Engine) -> AsyncIterator[openai.AsyncOpenAI]:
    """The same, asynchronous."""
    pin = {"x-pointsman-engine": engine.name}
    async with openai.AsyncOpenAI(
        base_url=f"{gateway}/v1", api_key="none", max_retries=0, default_headers=pin
    ) as client:
        yield client


@pytest.fixture
def http(gateway: str, engine: Engine) -> Iterator[httpx.Client]:
    """Plain HTTP to the gateway, for what OpenAI's client hides: bytes, headers, the end of a stream."""
    pin = {"x-pointsman-engine": engine.name}
    with httpx.Client(base_url=gateway, headers=pin, timeout=60, trust_env=False) as client:
        yield client


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, patience: float = 30) -> None:
    """Return once /readyz says that no engine is missing; fail if the gateway ends or does not get there."""
    until = time.monotonic() + patience
    last = "no answer"
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"the gateway ended with status {process.returncode}: see .cache/live-gateway.log")
        try:
            response = httpx.get(f"{url}/readyz", trust_env=False)
        except httpx.TransportError:
            pass
        else:
            if response.status_code == 200 and not response.json()["missing"]:
                return
            last = f"{response.status_code} {response.text}"
        time.sleep(0.1)
    pytest.fail(f"the gateway was not ready after {patience:.0f} s: {last}")
