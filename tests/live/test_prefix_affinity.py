"""Two real vLLM processes behind one model: the policy `prefix` finds more of each prompt in their KV caches.

The workload: many prompts that share one of a few long heads, in random order. Asked in turn, each of the two engines
has to read each head once; with affinity one of them does, and the other never sees it.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.live import vllm_engine
from tests.live.conftest import Traced, missing, wait_until_ready
from tests.live.direct import Engine
from tests.support.ports import free_port

HEADS = 12
PROMPTS = 4  # with each head
HEAD_BYTES = 600

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]


@pytest.fixture
def pair(engines: dict[str, Engine], traced: Traced) -> list[str]:
    """The URLs of two vLLMs."""
    if reason := missing("vllm"):
        pytest.skip(reason)
    return [engines["vllm"].url, traced.url]


@contextmanager
def gateway(pair: list[str], policy: str, directory: Path) -> Iterator[str]:
    """A gateway process in front of both, with a policy."""
    deployments = "".join(
        f'[[models.deployments]]\nname = "v{i}"\nengine = "vllm"\nurl = "{url}"\n' for i, url in enumerate(pair)
    )
    file = directory / f"{policy}.toml"
    file.write_text(f'[[models]]\nname = "live"\npolicy = "{policy}"\n{deployments}')
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(file), "--port", str(port)],
        cwd=vllm_engine.ROOT,
        start_new_session=True,
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        until_both_are_up(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        vllm_engine.stop(process)


def until_both_are_up(url: str) -> None:
    for _ in range(100):
        if httpx.get(f"{url}/readyz", trust_env=False).json()["missing"] == {}:
            return
    pytest.fail("one of the engines did not come up")


def counted(url: str) -> tuple[float, float]:
    """Return how many prompt tokens an engine has found in its prefix cache, and how many it looked up."""
    said = httpx.get(f"{url}/metrics", trust_env=False).text
    found = [
        re.findall(rf"^vllm:prefix_cache_{name}_total\S* (\S+)$", said, re.MULTILINE) for name in ("hits", "queries")
    ]
    hits, queries = (sum(map(float, values)) for values in found)
    return hits, queries


def prompts(seed: int) -> list[str]:
    """Return the workload; another seed is another workload, of which no engine has seen anything."""
    random = Random(seed)
    heads = [
        f"{seed}-{i} " + " ".join(str(random.randrange(10**6)) for _ in range(HEAD_BYTES // 7)) for i in range(HEADS)
    ]
    asked = [f"{head} question {i}" for head in heads for i in range(PROMPTS)]
    random.shuffle(asked)
    return asked


def hit_share(pair: list[str], policy: str, seed: int, directory: Path) -> float:
    """Return the share of the prompt tokens that the two engines found in their caches."""
    before = [counted(url) for url in pair]
    with gateway(pair, policy, directory) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        for prompt in prompts(seed):
            body = {"model": "live", "prompt": prompt, "max_tokens": 1, "temperature": 0}
            assert client.post("/v1/completions", json=body).status_code == 200
    after = [counted(url) for url in pair]
    hits, queries = (sum(late[i] - early[i] for late, early in zip(after, before, strict=True)) for i in (0, 1))
    return hits / queries


def test_prefix_affinity_finds_more_in_the_engines_caches_than_asking_in_turn(pair: list[str], tmp_path: Path) -> None:
    in_turn = hit_share(pair, "round_robin", 1, tmp_path)
    by_prefix = hit_share(pair, "prefix", 2, tmp_path)
    print(f"prefix cache hits: round robin {in_turn:.1%}, prefix {by_prefix:.1%}")
    assert by_prefix > in_turn + 0.1
