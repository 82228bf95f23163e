"""The collaborators of a request, in one typed place: made at the start, closed at the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from gateway.catalog import Catalog
from gateway.config import Config
from gateway.upstream import Upstream
from gateway.watch import Prober, Sweep


@dataclass(frozen=True, slots=True)
class Services:
    """What the steps of a request use. `clock` is monotonic, `wall` is Unix time; both in seconds."""

    config: Config
    catalog: Catalog
    upstream: Upstream
    sweep: Sweep
    random: Random
    clock: Callable[[], float]
    wall: Callable[[], float]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the connections and keep the watches for as long as the server runs."""
        await self.upstream.open()
        prober = Prober(self.catalog, self.upstream)
        watches = [asyncio.create_task(prober.run(target)) for target in self.catalog.targets]
        watches.append(asyncio.create_task(self.sweep.run()))
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await self.upstream.close()


def make(config: Config, random: Random, clock: Callable[[], float], wall: Callable[[], float]) -> Services:
    """Return the services for a configuration; nothing is opened yet."""
    return Services(
        config=config,
        catalog=Catalog(config.models, int(wall())),
        upstream=Upstream(config.timeouts),
        sweep=Sweep(config.timeouts, clock),
        random=random,
        clock=clock,
        wall=wall,
    )
