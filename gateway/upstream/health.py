"""Engine health: each engine is asked for its health check, what it serves and its metrics, never for a generation.

An engine to which no connection can be made is down at once. One whose answers are late or bad is so after several in a
row, as a busy engine may be late: what it answers to clients meanwhile counts as health, too (`Endpoint.heard`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from backends.base import BackendError
from gateway.config import HealthConfig
from gateway.http.errors import EngineFailed, PointsmanError, UpstreamConnectError
from gateway.upstream.client import Upstream
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Catalog

MAX_DOWN_INTERVAL = 1.0  # seconds between two checks of an engine that is down

log = logging.getLogger("pointsman")

# Starts a background task by name, as `gateway.server.supervise.TaskSupervisor.start` does.
Start = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], "asyncio.Task[None]"]


class HealthChecker:
    """Checks each engine of the catalog, in a task of its own: until it answers, and again and again after that."""

    def __init__(
        self, catalog: Catalog, upstream: Upstream, health: HealthConfig, clock: Callable[[], float], start: Start
    ) -> None:
        self.health = health
        self._catalog = catalog
        self._upstream = upstream
        self._clock = clock
        self._start = start
        self._checks: dict[Endpoint, asyncio.Task[None]] = {}

    def follow(self, health: HealthConfig) -> None:
        """Take over a changed `[health]`: all engines are checked now, and by the new interval from then on."""
        self.health = health
        if self._checks:
            self._cancel(list(self._checks))
            self.refresh()

    def refresh(self) -> None:
        """Check the engines that the catalog has now, and none that it has no more. Needs a running event loop."""
        endpoints = self._catalog.endpoints
        self._cancel(self._checks.keys() - set(endpoints))
        for endpoint in endpoints:
            if endpoint not in self._checks:
                check = partial(self._check_forever, endpoint)
                self._checks[endpoint] = self._start(f"health check of {endpoint.name}", check)

    async def close(self) -> None:
        """End all checks."""
        await asyncio.gather(*self._cancel(list(self._checks)), return_exceptions=True)

    def _cancel(self, endpoints: Iterable[Endpoint]) -> "list[asyncio.Task[None]]":
        cancelled = [self._checks.pop(endpoint) for endpoint in endpoints]
        for check in cancelled:
            check.cancel()
        return cancelled

    async def _check_forever(self, endpoint: Endpoint) -> None:
        while True:
            try:
                await self.check(endpoint)
            except Exception:
                why = "health check failed: internal error of the gateway; its log has the traceback"
                endpoint.mark_down(why, why)
                raise  # to the supervisor, which logs it and starts this again
            interval = self.health.interval
            await asyncio.sleep(interval if endpoint.up else min(interval, MAX_DOWN_INTERVAL))

    async def check(self, endpoint: Endpoint) -> None:
        """Check one engine once, and note what it says."""
        backend, began = endpoint.backend, self._clock()
        path = backend.health_path
        try:
            async with asyncio.timeout(self.health.timeout):
                if path:
                    await self._get(endpoint, path)
                path = backend.facts_path
                served = backend.served(await self._get(endpoint, path))
        except UpstreamConnectError:
            endpoint.found_dead = True  # why, has been noted
            return
        except (PointsmanError, BackendError, TimeoutError) as error:
            why = f"health check failed: GET {endpoint.url}{path}: {self._reason(error)}"
            endpoint.record_miss(why, f"health check failed: GET {path}", began, self.health.misses)
            return
        if endpoint.mark_up(served, self._clock()):
            self._catalog.refresh()
        if backend.load.path:
            await self._read_load(endpoint)

    async def _read_load(self, endpoint: Endpoint) -> None:
        """Ask for the engine's own metrics; one without them is as healthy."""
        try:
            async with asyncio.timeout(self.health.timeout):
                body = await self._get(endpoint, endpoint.backend.load.path)
        except (PointsmanError, BackendError, TimeoutError):
            body = b""
        endpoint.figures = endpoint.backend.load.read(body)

    async def _get(self, endpoint: Endpoint, path: str) -> bytes:
        """Return the body of a path. Raises EngineFailed if the status is not 200, and as `Upstream.get` does."""
        reply = await self._upstream.get(endpoint, path)
        body = await reply.read()
        if reply.status == 200:
            return body
        failure = endpoint.backend.failure(None, None, reply.status, reply.headers, body)
        raise EngineFailed(getattr(failure, "message", ""))

    def _reason(self, error: Exception) -> str:
        if isinstance(error, PointsmanError | BackendError):
            return error.message
        return f"no answer within {self.health.timeout:g} s"
