"""Engines behind a DNS name: each of its addresses is a deployment of its own, looked up again and again.

For deployments with `discover = "dns"`; the addresses of a headless service of Kubernetes are its pods. A lookup that
fails leaves the addresses known before in use; until one has succeeded, the name itself is the one deployment.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from gateway.config import DeploymentConfig, ModelConfig

INTERVAL = 5.0  # seconds
PORTS = {"http": 80, "https": 443}

log = logging.getLogger("pointsman")

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in order. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Discovery:
    """Knows the addresses of the deployments that are found by name."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._known: dict[str, list[str]] = {}  # by the deployment's URL
        self._failing: set[str] = set()

    async def run(self, models: Callable[[], list[ModelConfig]], changed: Callable[[], None]) -> None:
        """Look the names up for ever; call `changed` when an address has come or gone.

        `models` returns the models as the file has them.
        """
        while True:
            if await self.look(models()):
                changed()
            await asyncio.sleep(INTERVAL)

    async def look(self, models: list[ModelConfig]) -> bool:
        """Look up all names once; return whether an address has come or gone."""
        before = dict(self._known)
        deployments = [one for model in models for one in model.deployments if one.discover == "dns"]
        await asyncio.gather(*(self._look_up(deployment) for deployment in deployments))
        return self._known != before

    async def _look_up(self, deployment: DeploymentConfig) -> None:
        parts = urlsplit(deployment.url)
        try:
            addresses = await self._resolve(parts.hostname or "", parts.port or PORTS[parts.scheme])
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
            if deployment.url not in self._failing:
                log.warning("%s: DNS lookup of %s failed: %s", deployment.name, parts.hostname, error)
            self._failing.add(deployment.url)
            return
        self._failing.discard(deployment.url)
        if addresses != self._known.get(deployment.url):
            log.info("%s: %s resolves to %s", deployment.name, parts.hostname, ", ".join(addresses))
        self._known[deployment.url] = addresses

    def expanded(self, models: list[ModelConfig]) -> list[ModelConfig]:
        """Return the models with a deployment for each address that is known, in the place of its name."""
        return [msgspec.structs.replace(model, deployments=self._deployments(model)) for model in models]

    def _deployments(self, model: ModelConfig) -> list[DeploymentConfig]:
        found = []
        for deployment in model.deployments:
            found += [deployment] if deployment.discover == "static" else self._replicas(deployment)
        return found

    def _replicas(self, deployment: DeploymentConfig) -> list[DeploymentConfig]:
        """Return a deployment for each address; they share its weight."""
        addresses = self._known.get(deployment.url)
        if not addresses:
            return [deployment]
        return [
            msgspec.structs.replace(
                deployment,
                name=f"{deployment.name}@{address}",
                address=address,
                weight=deployment.weight / len(addresses),
            )
            for address in addresses
        ]
