"""A gateway over two scripted engines, or one, as a test of failover wants them: who is asked first is known."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

from gateway import config
from gateway.upstream.breaker import Breaker
from gateway.upstream.endpoints import Endpoint
from tests.support.engine_answers import DONE, TGI_CHUNK, event
from tests.support.harness import (
    ANSWER,
    MODEL,
    STREAM,
    Engine,
    Gateway,
    Script,
    checked,
    engine,
    gateway,
    says,
    streamed,
    until,
    whole,
)

# One failure of an engine's opens its circuit.
ONE_STRIKE = config.BreakerConfig(failures=1, open=60.0, most_open=60.0)
TGI_STREAM = TGI_CHUNK + event(
    {
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "b"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": None,
    }
)
TGI_USAGE = event({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}}) + DONE
Kind = Literal["vllm", "tgi"]


@dataclass
class Pair:
    """A gateway over two engines, the first of which is asked first."""

    front: Gateway
    first: Engine
    second: Engine

    @property
    def endpoints(self) -> list[Endpoint]:
        """What the gateway knows of the engines, in their order."""
        return self.front.services.catalog.endpoints

    def idle(self) -> bool:
        """Whether all places have been given back."""
        return self.front.services.admission.in_flight == 0 and all(not one.in_flight for one in self.endpoints)

    def struck(self) -> list[bool]:
        """Whether each engine's failure was counted (with ONE_STRIKE)."""
        return [one.breaker.open_until > 0 for one in self.endpoints]

    def afresh(self, first: Script, second: Script) -> None:
        """Give the engines other scripts, and forget what has been."""
        for one, script in ((self.first, first), (self.second, second)):
            one.script = script
            one.asked.clear()
        for endpoint in self.endpoints:
            endpoint.breaker = Breaker(ONE_STRIKE)


def settings(
    urls: list[tuple[str, str]],
    hedge_after: float = 0.0,
    busy: int = 0,
    tools_in_prompt: Literal["auto", "always", "never"] = "auto",
    **more: Any,
) -> config.Config:
    """Return the configuration of engines by kind and URL, asked in that order."""
    rows = [
        config.DeploymentConfig(name=name, engine=kind, url=url, weight=weight, max_in_flight=busy)
        for name, weight, (kind, url) in zip(("first", "second"), (1.0, 0.0), urls, strict=False)
    ]
    model = config.ModelConfig(name=MODEL, deployments=rows, hedge_after=hedge_after, tools_in_prompt=tools_in_prompt)
    return checked(config.Config(models=[model], **({"breaker": ONE_STRIKE} | more)))


@contextlib.asynccontextmanager
async def pair(
    first: Script, second: Script, kinds: tuple[Kind, Kind], clock: Callable[[], float] = monotonic, **more: Any
) -> AsyncIterator[Pair]:
    """Run a gateway over two engines; at the end all places have to be given back."""
    async with engine(first) as one, engine(second) as two:
        urls: list[tuple[str, str]] = list(zip(kinds, (one.url, two.url), strict=True))
        async with gateway(settings(urls, **more), clock=clock) as front:
            made = Pair(front, one, two)
            yield made
            await until(made.idle)


@contextlib.asynccontextmanager
async def single(script: Script, clock: Callable[[], float] = monotonic, **more: Any) -> AsyncIterator[Pair]:
    """Run a gateway over one engine, which is first and second."""
    async with engine(script) as one, gateway(settings([("vllm", one.url)], **more), clock=clock) as front:
        made = Pair(front, one, one)
        yield made
        await until(made.idle)


def good(kind: str, stream: bool) -> Script:
    """Return the script of an engine that answers a chat."""
    if not stream:
        return says(whole(ANSWER))
    return says(streamed(*STREAM) if kind == "vllm" else streamed(TGI_STREAM + TGI_USAGE))
