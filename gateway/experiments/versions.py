"""Which version each engine says that it is, where its list of models does not tell: vLLM's `/version`.

TGI's and the models' own are in what the health check reads (`upstream.models.system_fingerprint`).
"""

import asyncio
from collections.abc import Callable

import msgspec
from msgspec import Struct

from gateway.http.errors import PointsmanError
from gateway.upstream.client import Upstream
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Catalog

INTERVAL = 10.0  # seconds between two questions to an engine
PATIENCE = 2.0  # seconds for an answer
PATH = "/version"


class _Said(Struct):
    version: str = ""


class VersionReader:
    """Asks the engines now and then; one that does not say keeps what it said before. `clock` is monotonic."""

    def __init__(self, catalog: Catalog, upstream: Upstream, clock: Callable[[], float]) -> None:
        self._catalog = catalog
        self._upstream = upstream
        self._clock = clock
        self._asked_at = -INTERVAL
        self._asked: set[Endpoint] = set()
        self._known: dict[str, str] = {}

    async def read(self) -> dict[str, str]:
        """Return the versions by the names of deployments; several addresses of one may have several."""
        now = self._clock()
        engines = [one for one in self._catalog.endpoints if one.engine == "vllm" and one.up]
        if now - self._asked_at >= INTERVAL or not self._asked.issuperset(engines):
            self._asked_at, self._asked = now, set(engines)
            answers = await asyncio.gather(*(self._ask(endpoint) for endpoint in engines))
            found: dict[str, set[str]] = {}
            for endpoint, version in zip(engines, answers, strict=True):
                if version:
                    found.setdefault(endpoint.public_name, set()).add(version)
            self._known |= {name: " ".join(sorted(versions)) for name, versions in found.items()}
        return self._known

    async def _ask(self, endpoint: Endpoint) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                reply = await self._upstream.get(endpoint, PATH)
                body = await reply.read()
            return msgspec.json.decode(body, type=_Said).version if reply.status == 200 else ""
        except (PointsmanError, TimeoutError, msgspec.DecodeError):
            return ""
