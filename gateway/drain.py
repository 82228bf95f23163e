"""The end of a worker: at SIGTERM it is not ready any more, then takes nothing new, and finishes what it has in time.

    signal ── drain_notice ──► no new connections ── drain ──► what is still in flight ends in an error
      not ready, still serving      uvicorn waits for it           and the process with status 0

The notice is for load balancers, which take some seconds to look at `/readyz`. A second signal cuts all of it short.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from gateway.services import Services

SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger("pointsman")


class Drain:
    """Stands between the signals and the server, which would close its doors at once and wait for ever."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._servers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    async def listen(self) -> None:
        """Take the signals over from the server; to be called in its event loop."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            servers = signal.getsignal(number)
            if callable(servers):
                self._servers[number] = servers
                loop.add_signal_handler(number, self.begin, number)

    def begin(self, number: int) -> None:
        """Begin to drain at the first signal; at the second, end."""
        services, loop = self._services, asyncio.get_running_loop()
        if services.draining:
            services.stop()
            self._servers[number](number, None)
            return
        services.draining = True
        server = services.config.server
        log.info("draining: %d requests in flight have %g s", len(services.sweep.open), server.drain)
        loop.call_later(server.drain_notice, self._servers[number], number, None)
        loop.call_later(server.drain_notice + server.drain, services.stop)
