"""The collaborators of a request, in one typed place: made at the start, closed at the end, and told of changes."""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from gateway.access import limits
from gateway.access.keys import Keyring
from gateway.access.limits import Limiter
from gateway.cache import policy as cached
from gateway.cache.policy import Cache
from gateway.config import Config
from gateway.http.deadlines import DeadlineSweeper
from gateway.http.errors import RETRY_AFTER, ShuttingDown
from gateway.observe import tracing
from gateway.observe.access_recorder import AccessRecorder
from gateway.observe.gauges import RedisHealth, readings
from gateway.observe.logs import RequestLog
from gateway.observe.metrics import Metrics
from gateway.observe.tracing import Tracer
from gateway.proxy.admission import Admission
from gateway.proxy.retry import Budget
from gateway.server.file_watcher import FileWatcher
from gateway.upstream.connection import Upstream
from gateway.upstream.discovery import Discovery, resolve
from gateway.upstream.health import HealthChecker
from gateway.upstream.models import Catalog

log = logging.getLogger("pointsman")


@dataclass(slots=True)
class Services:
    """What the steps of a request use. `clock` is monotonic, `wall` is Unix time; both in seconds.

    While `draining`, the gateway says that it is not ready, and finishes what it has.
    """

    config: Config
    catalog: Catalog
    upstream: Upstream
    admission: Admission
    budget: Budget
    sweep: DeadlineSweeper
    prober: HealthChecker
    limiter: Limiter
    cache: Cache | None
    metrics: Metrics
    records: AccessRecorder
    tracer: Tracer
    random: Random
    clock: Callable[[], float]
    wall: Callable[[], float]
    discovery: Discovery = field(init=False)
    keyring: Keyring | None = None  # none: anybody may ask
    files: list[FileWatcher] = field(default_factory=list)
    draining: bool = False
    loop: asyncio.AbstractEventLoop | None = None  # while it runs; finding it anew costs a system call

    def __post_init__(self) -> None:
        self.discovery = Discovery(self.config, self.follow, resolve)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the connections and keep the watches for as long as the server runs."""
        self.loop = asyncio.get_running_loop()
        await self.upstream.open()
        await self.limiter.open()
        if self.cache is not None:
            await self.cache.open()
        own = [self.sweep.run(), self.discovery.run(), self.limiter.run(), self.metrics.run()]
        beside = [*own, *(file.run() for file in self.files)]
        watches = [asyncio.ensure_future(one) for one in beside]
        self.follow(self.discovery.expanded())
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            if self.cache is not None:
                await self.cache.close()
            await self.prober.close()
            await self.limiter.close()
            await self.upstream.close()
            self.records.flush()
            await self.tracer.close()

    def follow(self, config: Config) -> None:
        """Put a changed configuration in force. What is in flight goes on as it began."""
        before, now = lasting(self.config), lasting(config)
        for name in before:
            if now[name] != before[name]:
                log.warning("%s: changed, and takes a restart", name)
        self.config = config
        self.catalog.replace(config)
        self.upstream.follow(config.timeouts)
        self.records.logging = config.logging.requests
        self.sweep.keep_alive = config.timeouts.keep_alive
        self.prober.health = config.health
        self.prober.follow()
        self.budget.share = config.retries.budget
        self.admission.bounds = config.admission
        self.admission.call_up()

    def stop(self) -> None:
        """End what is in flight: its time is over."""
        for context in list(self.sweep.open):
            context.scope.cancel(ShuttingDown("The gateway is shutting down.", headers={"retry-after": RETRY_AFTER}))


def lasting(config: Config) -> dict[str, object]:
    """Return what is read at the start alone."""
    server = config.server
    at_the_door = {f"server.{name}": getattr(server, name) for name in ("host", "port", "workers", "cors_origins")}
    at_the_start = {name: getattr(config, name) for name in ("limits", "cache", "telemetry")}
    return at_the_door | {"auth.keys_file": config.auth.keys_file} | at_the_start


def make(
    config: Config,
    random: Random | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    shared: Path | None = None,
) -> Services:
    """Return the services for a configuration; nothing is opened yet. `shared` is the directory of several workers."""
    random = random or Random()
    catalog = Catalog(config, int(wall()))
    upstream = Upstream(config.timeouts, clock)
    tracer = tracing.make(config.telemetry, random)
    admission = Admission(config.admission)
    limiter = limits.make(config.limits, config.server.workers, clock)
    cache = cached.make(config.cache, wall, clock)
    redis: dict[str, RedisHealth] = {"limits": limiter} if config.limits.store == "redis" else {}
    if cache is not None and cache.store.redis is not None:
        redis["cache"] = cache.store.redis
    figures = partial(readings, catalog, admission, cache, tracer, redis, clock)
    metrics = Metrics(figures, admission, limiter, wall, shared)
    upstream.connected = metrics.connected
    return Services(
        config=config,
        catalog=catalog,
        upstream=upstream,
        admission=admission,
        budget=Budget(config.retries.budget),
        sweep=DeadlineSweeper(config.timeouts, clock),
        prober=HealthChecker(catalog, upstream, config.health, clock),
        limiter=limiter,
        cache=cache,
        metrics=metrics,
        records=AccessRecorder(metrics, tracer, RequestLog(sys.stderr.buffer), config.logging.requests),
        tracer=tracer,
        random=random,
        clock=clock,
        wall=wall,
    )
