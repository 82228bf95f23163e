"""Redis killed, or hung, and brought back under load: requests go on or are refused, as configured; then all count."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

import pytest

from gateway.access.limits.redis import RedisLimiter
from gateway.config.tables import LimitsConfig
from tests.faults.scenario import Scenario, assert_clean, scenario
from tests.support import redis_servers
from tests.support.harness import CHAT, configured, engine, until
from tests.support.keys import GOOD, changed, ring
from tests.support.processes import answers

CLIENTS = 20
ENOUGH = 100  # answers in each act
DEADLINE = 2.0  # seconds for Redis, which no busy machine needs
SLOWEST = 20.0  # seconds that a request may take, whatever Redis does, on a busy machine: it may hang for ever
BOUNDED = {"requests_per_minute": 1_000_000, "tokens_per_minute": 1_000_000_000, "max_in_flight": 10_000}


@dataclass
class Load:
    """Clients that ask again and again, and what they got: since the last look, and the longest wait of all."""

    here: Scenario
    statuses: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0

    async def run(self) -> None:
        """Ask until cancelled."""
        client = await self.here.client()
        while True:
            began = monotonic()
            self.here.send(client, CHAT, key=GOOD)
            answer = await asyncio.shield(client.answer())
            self.longest = max(self.longest, monotonic() - began)
            self.statuses[answer.status] += 1

    async def act(self, holds: Callable[[], Any]) -> set[int]:
        """Wait for a condition, and for the answers that were under way; return the statuses of those that follow."""
        await until(holds)
        for _ in range(2):
            self.statuses.clear()
            await until(lambda: self.statuses.total() > ENOUGH)
        return set(self.statuses)


async def under_load(here: Scenario, play: Callable[[Load], Awaitable[None]]) -> Load:
    """Play while clients ask; each gets the answer to its last question before it goes."""
    load = Load(here)
    clients = [asyncio.ensure_future(load.run()) for _ in range(CLIENTS)]
    try:
        await play(load)
    finally:
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
    return load


@pytest.mark.parametrize(("when_down", "meanwhile"), [("open", 200), ("closed", 503)])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
async def test_redis_goes_and_comes_back_under_load(
    when_down: Literal["open", "closed"], meanwhile: int, how: signal.Signals
) -> None:
    with redis_servers.single() as server:
        limits = LimitsConfig(store="redis", url=server.url, when_down=when_down)
        async with engine(answers()) as behind, scenario(configured(behind.url, limits=limits)) as here:
            here.front.services.keyring = ring(changed(**BOUNDED))
            limiter = here.front.services.limiter
            assert isinstance(limiter, RedisLimiter)
            limiter.client.deadline = DEADLINE

            async def play(load: Load) -> None:
                assert await load.act(lambda: limiter.up) == {200}
                server.send(how)
                assert await load.act(lambda: not limiter.up) == {meanwhile}
                await asyncio.to_thread(server.start) if how is signal.SIGKILL else server.send(signal.SIGCONT)
                assert await load.act(lambda: limiter.up) == {200}

            load = await under_load(here, play)
            assert load.longest < SLOWEST
            assert (limiter.unchecked > 0) == (when_down == "open")
            await assert_clean(here)
            assert int(server.ask("DBSIZE").lstrip(":")) > 0, "nothing was counted since it is back"
            assert (await here.ask(CHAT, key=GOOD)).headers["x-ratelimit-limit-requests"] == "1000000"
