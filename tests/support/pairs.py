"""A gateway over two scripted engines, the first of which is asked first: for tests of what fails over to the other."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from gateway import config
from gateway.upstream.breaker import Breaker
from gateway.upstream.endpoints import Endpoint
from tests.support.harness import MODEL, Engine, Gateway, Script, checked, engine, gateway, until

ONE_STRIKE = config.BreakerConfig(failures=1, open=60.0, most_open=60.0)

Kind = Literal["vllm", "tgi"]


@dataclass
class Pair:
    """A gateway over two engines, the first of which is asked first."""

    front: Gateway
    first: Engine
    second: Engine

    @property
    def endpoints(self) -> list[Endpoint]:
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


def settings(urls: list[tuple[str, str]], hedge_after: float = 0.0, busy: int = 0, **more: Any) -> config.Config:
    """Return the configuration of engines by kind and URL, asked in that order."""
    rows = [
        config.DeploymentConfig(name=name, engine=kind, url=url, weight=weight, max_in_flight=busy)
        for name, weight, (kind, url) in zip(("first", "second"), (1.0, 0.0), urls, strict=False)
    ]
    model = config.ModelConfig(name=MODEL, deployments=rows, hedge_after=hedge_after)
    return checked(config.Config(models=[model], **({"breaker": ONE_STRIKE} | more)))


@contextlib.asynccontextmanager
async def pair(first: Script, second: Script, kinds: tuple[Kind, Kind], **more: Any) -> AsyncIterator[Pair]:
    async with engine(first) as one, engine(second) as two:
        urls: list[tuple[str, str]] = list(zip(kinds, (one.url, two.url), strict=True))
        async with gateway(settings(urls, **more)) as front:
            made = Pair(front, one, two)
            yield made
            await until(made.idle)


@contextlib.asynccontextmanager
async def single(script: Script, **more: Any) -> AsyncIterator[Pair]:
    async with engine(script) as one, gateway(settings([("vllm", one.url)], **more)) as front:
        made = Pair(front, one, one)
        yield made
        await until(made.idle)
