"""The collaborators of a request, in one typed place: made at the start, closed at the end, and told of changes."""

import asyncio
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
from gateway.experiments.figures import Figures
from gateway.experiments.keeper import Keeper
from gateway.experiments.running import Experiments
from gateway.experiments.shadow.bounds import ShadowBounds
from gateway.experiments.store import base as kept
from gateway.experiments.versions import VersionReader
from gateway.http.deadlines import DeadlineSweeper
from gateway.http.errors import RETRY_AFTER, ShuttingDown
from gateway.observe import tracing
from gateway.observe.access_recorder import AccessRecorder
from gateway.observe.gauges import RedisHealth, readings
from gateway.observe.logs import RequestLog
from gateway.observe.metrics import Metrics
from gateway.observe.saturation import Saturation
from gateway.observe.tracing import Tracer
from gateway.proxy.admission import Admission
from gateway.proxy.retry import Budget
from gateway.server.file_watcher import FileWatcher
from gateway.server.reload import Reload
from gateway.server.supervise import TaskSupervisor, WorkerFailed
from gateway.upstream.client import Upstream
from gateway.upstream.discovery import Discovery, resolve
from gateway.upstream.health import HealthChecker
from gateway.upstream.models import Catalog
from gateway.upstream.refresh import CatalogRefresh


@dataclass(slots=True)
class Services:
    """What the steps of a request use. `clock` is monotonic, `wall` is Unix time; both in seconds.

    While `draining`, the gateway says that it is not ready, and finishes what it has.
    """

    reload: Reload
    discovery: Discovery
    supervisor: TaskSupervisor
    catalog: Catalog
    upstream: Upstream
    admission: Admission
    budget: Budget
    sweep: DeadlineSweeper
    prober: HealthChecker
    catalog_refresh: CatalogRefresh
    limiter: Limiter
    cache: Cache | None
    experiments: Experiments
    keeper: Keeper
    shadows: ShadowBounds
    figures: Figures
    metrics: Metrics
    records: AccessRecorder
    tracer: Tracer
    random: Random
    clock: Callable[[], float]
    wall: Callable[[], float]
    keyring: Keyring | None = None  # none: anybody may ask
    files: list[FileWatcher] = field(default_factory=list)
    draining: bool = False
    loop: asyncio.AbstractEventLoop | None = None  # while it runs; finding it anew costs a system call

    @property
    def config(self) -> Config:
        """The configuration in force now."""
        return self.reload.config

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the connections and run the background tasks for as long as the server runs.

        Raises WorkerFailed at the end, if it came because an essential task kept dying.
        """
        self.loop = asyncio.get_running_loop()
        await self.limiter.open()
        if self.cache is not None:
            await self.cache.open()
        self._start_background_tasks()
        await self.keeper.open()
        try:
            yield
        finally:
            await self.shadows.close()
            await self.prober.close()
            await self.supervisor.stop()
            if self.cache is not None:
                await self.cache.close()
            await self.limiter.close()
            await self.upstream.close()
            self.records.flush()
            await self.keeper.close()
            await self.tracer.close()
        if self.supervisor.failed:
            raise WorkerFailed(f"background tasks kept dying: {', '.join(self.supervisor.failed)}")

    def _start_background_tasks(self) -> None:
        start = self.supervisor.start
        self.supervisor.start_essential("deadlines", self.sweep.run)  # without it no time-out would be in force
        start("discovery", lambda: self.discovery.run(lambda: self.reload.written.models, self.reload.renew))
        start("limits", self.limiter.run)
        start("metrics", self.metrics.run)
        start("experiments", self.keeper.run)
        start("figures of experiments", self.figures.run)
        for file in self.files:
            start(f"watch of {file.path}", file.run)
        self.prober.refresh()  # starts a health check for each engine

    def stop(self) -> None:
        """End what is in flight: its time is over."""
        for context in list(self.sweep.open):
            context.scope.cancel(ShuttingDown("The gateway is shutting down.", headers={"retry-after": RETRY_AFTER}))


def make(
    config: Config,
    random: Random | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    shared: Path | None = None,
) -> Services:
    """Return the services for a configuration; nothing is opened yet. `shared` is the directory of several workers."""
    random = random or Random()
    discovery, supervisor = Discovery(resolve), TaskSupervisor(clock)
    catalog = Catalog(config, int(wall()))
    upstream = Upstream(config.timeouts, clock)
    tracer = tracing.make(config.telemetry, random)
    admission = Admission(config.admission)
    limiter = limits.make(config.limits, config.server.workers, clock)
    cache = cached.make(config.cache, wall, clock)
    experiments, keeper, figures = experimenting(config, catalog, upstream, clock, wall)
    redis = redis_health(config, limiter, cache)
    read = partial(readings, catalog, admission, cache, tracer, redis, clock, Saturation(), figures.readings)
    metrics = Metrics(read, admission, limiter, wall, shared, config.telemetry.tgi_names)
    upstream.connected = metrics.connected
    services = Services(
        reload=Reload(config, discovery.expanded),
        discovery=discovery,
        supervisor=supervisor,
        catalog=catalog,
        upstream=upstream,
        admission=admission,
        budget=Budget(config.retries.budget),
        sweep=DeadlineSweeper(config.timeouts, clock),
        prober=HealthChecker(catalog, upstream, config.health, clock, supervisor.start),
        catalog_refresh=CatalogRefresh(catalog, upstream, clock),
        limiter=limiter,
        cache=cache,
        experiments=experiments,
        keeper=keeper,
        shadows=ShadowBounds(),
        figures=figures,
        metrics=metrics,
        records=AccessRecorder(metrics, tracer, RequestLog(sys.stderr.buffer), config.logging, experiments),
        tracer=tracer,
        random=random,
        clock=clock,
        wall=wall,
    )
    subscribe(services)
    return services


def experimenting(
    config: Config, catalog: Catalog, upstream: Upstream, clock: Callable[[], float], wall: Callable[[], float]
) -> tuple[Experiments, Keeper, Figures]:
    """Return the experiments, who tells their record, and who works out their figures."""
    experiments, versions = Experiments(config), VersionReader(catalog, upstream, clock)
    keeper = Keeper(experiments, kept.make(config.experiments), catalog, versions.read, wall)
    return experiments, keeper, Figures(experiments, keeper)


def redis_health(config: Config, limiter: Limiter, cache: Cache | None) -> dict[str, RedisHealth]:
    """Return what knows whether Redis answers, by what uses it."""
    redis: dict[str, RedisHealth] = {"limits": limiter} if config.limits.store == "redis" else {}
    if cache is not None and cache.store.redis is not None:
        redis["cache"] = cache.store.redis
    return redis


def subscribe(services: Services) -> None:
    """Say who is told of which part of the configuration when it has changed.

    The rest is read anew for each request, from `Services.config`, or needs a restart (`reload.READ_AT_START`).
    """

    def follow_engines(_: object) -> None:
        services.catalog.replace(services.config)
        services.prober.refresh()  # there may be other engines
        services.admission.admit_waiting()  # and more room at one of them

    on_change = services.reload.subscribe
    on_change(lambda config: config.timeouts, services.upstream.follow)
    on_change(lambda config: config.timeouts, services.sweep.follow)
    on_change(lambda config: config.retries.budget, services.budget.follow)
    on_change(lambda config: config.admission, services.admission.follow)
    on_change(lambda config: config.logging, services.records.follow)
    on_change(lambda config: config.health, services.prober.follow)
    on_change(lambda config: config, services.experiments.follow)
    on_change(lambda config: (config.models, config.breaker, config.health.slow_start), follow_engines)
