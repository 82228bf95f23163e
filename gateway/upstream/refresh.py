"""What the engines serve is asked once more before a client is told that a model does not exist.

Adapters are loaded into running engines (vLLM's `/v1/load_lora_adapter`), and a client may ask for one before the next
health check has seen it. Names that nobody serves must not burden the engines: however many requests wait, all engines
are asked at most once in each `INTERVAL`, for all of them together.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable

from backends.base import BackendError, ServedModel
from gateway.http.errors import PointsmanError
from gateway.upstream.client import Upstream
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Catalog

INTERVAL = 1.0  # seconds from one time that the engines are asked to the next
ANSWER_TIMEOUT = 1.0  # seconds: an engine lists its models at once, whatever it works on


class CatalogRefresh:
    """Asks the engines that say themselves what they serve.

    `clock` is monotonic, in seconds; an engine's answer is waited for `patience` seconds.
    """

    def __init__(
        self,
        catalog: Catalog,
        upstream: Upstream,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        patience: float = ANSWER_TIMEOUT,
    ) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._turn = asyncio.Lock()
        self._asked_at = -math.inf
        self._answered = -math.inf  # when the engines were asked whose answers are in the catalog

    async def wait(self) -> None:
        """Return when the catalog holds what the engines serve now, as far as they answer in time."""
        came_at = self._clock()
        async with self._turn:
            if self._answered >= came_at:  # for another request, while this one waited
                return
            await self._sleep(max(0.0, self._asked_at + INTERVAL - self._clock()))
            asked_at = self._asked_at = self._clock()
            await self._ask_engines()
            self._answered = asked_at

    async def _ask_engines(self) -> None:
        endpoints = [endpoint for endpoint in self._catalog.discovering if endpoint.up]
        served = await asyncio.gather(*(self._ask(endpoint) for endpoint in endpoints))
        now, news = self._clock(), False
        for endpoint, models in zip(endpoints, served, strict=True):
            if models is not None and endpoint.up:  # else it has been found dead meanwhile
                news |= endpoint.mark_up(models, now)
        if news:
            self._catalog.refresh()

    async def _ask(self, endpoint: Endpoint) -> list[ServedModel] | None:
        """Return what an engine serves, or None: whether it is well is for the health check to judge."""
        backend = endpoint.backend
        try:
            async with asyncio.timeout(self._patience):
                reply = await self._upstream.get(endpoint, backend.facts_path)
                body = await reply.read()
            return backend.served(body) if reply.status == 200 else None
        except (PointsmanError, BackendError, TimeoutError):
            return None
