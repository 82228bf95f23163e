"""Engines behind a DNS name: each of its addresses is a deployment of its own, looked up again and again.

`discover = "dns"` at a deployment says so; with a headless service of Kubernetes, the addresses are its pods. A look-up
that fails leaves what was known in force; until one has succeeded, the name itself is the one deployment.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import msgspec

from gateway.config import Config, DeploymentConfig, ModelConfig

INTERVAL = 5.0  # seconds
PORTS = {"http": 80, "https": 443}

log = logging.getLogger("pointsman")

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name, in order. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Discovery:
    """The configuration as it was written, and the one with each address in the place of its name."""

    def __init__(self, config: Config, changed: Callable[[Config], None], resolve: Resolve) -> None:
        self.config = config
        self._changed = changed
        self._resolve = resolve
        self._known: dict[str, list[str]] = {}
        self._failing: set[str] = set()

    def take(self, config: Config) -> None:
        """Follow a changed configuration."""
        self.config = config
        self._changed(self.expanded())

    async def run(self) -> None:
        """Look the names up for ever."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    async def look(self) -> None:
        """Look up all names once; if an address has come or gone, say so."""
        before = dict(self._known)
        deployments = [one for model in self.config.models for one in model.deployments if one.discover == "dns"]
        await asyncio.gather(*(self._look_up(deployment) for deployment in deployments))
        if self._known != before:
            self._changed(self.expanded())

    async def _look_up(self, deployment: DeploymentConfig) -> None:
        parts = urlsplit(deployment.url)
        try:
            addresses = await self._resolve(parts.hostname or "", parts.port or PORTS[parts.scheme])
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
            if deployment.url not in self._failing:
                log.warning("%s: %s cannot be looked up: %s", deployment.name, parts.hostname, error)
            self._failing.add(deployment.url)
            return
        self._failing.discard(deployment.url)
        if addresses != self._known.get(deployment.url):
            log.info("%s: %s is %s", deployment.name, parts.hostname, ", ".join(addresses))
        self._known[deployment.url] = addresses

    def expanded(self) -> Config:
        """Return the configuration with the deployments that are there now."""
        models = [msgspec.structs.replace(model, deployments=self._deployments(model)) for model in self.config.models]
        return msgspec.structs.replace(self.config, models=models)

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
