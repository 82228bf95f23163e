"""Engine health: each is asked for its own health check, what it serves and its metrics, never a generation."""

import asyncio
import logging
from collections.abc import Callable

from backends.base import BackendError
from gateway.config import HealthConfig
from gateway.http.errors import EngineFailed, PointsmanError, UpstreamConnectError
from gateway.upstream.connection import Upstream
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Catalog

DOWN_INTERVAL = 1.0
PROBE_TIMEOUT = 10.0

log = logging.getLogger("pointsman")


class HealthChecker:
    """Asks each engine how it is and what it serves: until it answers, and again and again after that.

    Its own health check, what it serves, and its metrics: never a generation.
    """

    def __init__(self, catalog: Catalog, upstream: Upstream, health: HealthConfig, clock: Callable[[], float]) -> None:
        self.health = health
        self._catalog = catalog
        self._upstream = upstream
        self._clock = clock
        self._asking: dict[Endpoint, asyncio.Task[None]] = {}

    def follow(self) -> None:
        """Ask the engines that the catalog has now, and none that it has no more."""
        for endpoint in set(self._asking) - set(self._catalog.endpoints):
            self._asking.pop(endpoint).cancel()
        for endpoint in set(self._catalog.endpoints) - set(self._asking):
            self._asking[endpoint] = asyncio.ensure_future(self._ask_on(endpoint))

    async def close(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        self._asking.clear()

    async def _ask_on(self, endpoint: Endpoint) -> None:
        """Ask one engine for ever."""
        while True:
            try:
                await self.ask(endpoint)
            except Exception:  # whatever it is, the next engine and the next time must not suffer
                endpoint.lost("it could not be asked: a fault of the gateway's")
                log.exception("asking %s failed", endpoint.name)
            await asyncio.sleep(self.health.interval if endpoint.up else min(DOWN_INTERVAL, self.health.interval))

    async def ask(self, endpoint: Endpoint) -> None:
        """Ask one engine once, and note what it says."""
        backend = endpoint.backend
        path = backend.health_path
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                if path:
                    await self._got(endpoint, path)
                path = backend.facts_path
                served = backend.served(await self._got(endpoint, path))
        except UpstreamConnectError:
            return  # which has been noted
        except (PointsmanError, BackendError, TimeoutError) as error:
            endpoint.lost(f"{endpoint.url}{path} does not say that all is well: {_words(error)}")
            return
        if endpoint.heard(served, self._clock()):
            self._catalog.refresh()
        if backend.load.path:
            await self._ask_load(endpoint)

    async def _ask_load(self, endpoint: Endpoint) -> None:
        """Ask for the engine's own figures; one that keeps them to itself is not worse for it."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                body = await self._got(endpoint, endpoint.backend.load.path)
        except (PointsmanError, BackendError, TimeoutError):
            body = b""
        endpoint.figures = endpoint.backend.load.read(body)

    async def _got(self, endpoint: Endpoint, path: str) -> bytes:
        reply = await self._upstream.get(endpoint, path)
        body = await reply.read()
        if reply.status == 200:
            return body
        failure = endpoint.backend.failure(None, None, reply.status, reply.headers, body)
        raise EngineFailed(getattr(failure, "message", ""))


def _words(error: Exception) -> str:
    return (
        error.message if isinstance(error, PointsmanError | BackendError) else f"no answer within {PROBE_TIMEOUT:.0f} s"
    )
