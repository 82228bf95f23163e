"""The end of a worker: at SIGTERM it is not ready any more, then takes nothing new, and finishes what it has in time.

    signal ── drain_notice ──► no new connections ── drain ──► what is still in flight ends in an error
      not ready, still serving      uvicorn waits for it           and the process with status 0

The notice is for load balancers, which take some seconds to look at `/readyz`. A second signal cuts all of it short.
"""

import asyncio
import logging
import signal
from typing import Any

from gateway.services import Services

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A terminal, or systemd, signals the supervisor and its workers, and the supervisor its workers once more.
ONE_SIGNAL = 1.0  # seconds
GRACE = 2.0  # seconds, in which clients may take the news that it is over

log = logging.getLogger("pointsman")


class Drain:
    """Stands between the signals and the server, which would close its doors at once and wait for ever."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._server: Any = None  # uvicorn's
        self._began = 0.0

    async def listen(self) -> None:
        """Take the signals over from the server; to be called in its event loop."""
        loop = asyncio.get_running_loop()
        self._server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if self._server is not None:
            for number in SIGNALS:
                loop.add_signal_handler(number, self.begin)

    def begin(self) -> None:
        """Begin to drain at the first signal; at the second, end."""
        services, loop = self._services, asyncio.get_running_loop()
        if services.draining:
            if services.clock() - self._began > ONE_SIGNAL:
                self._end()
            return
        services.draining = True
        self._began = services.clock()
        server = services.config.server
        log.info("draining: %d requests in flight have %g s", len(services.sweep.open), server.drain)
        loop.call_later(server.drain_notice, self._close)
        loop.call_later(server.drain_notice + server.drain, self._end)

    def _close(self) -> None:
        """Take no new connections; the server ends when it has none left."""
        self._server.should_exit = True

    def _end(self) -> None:
        """End what is in flight; who does not take the news in time is hung up on."""
        self._close()
        self._services.stop()
        asyncio.get_running_loop().call_later(GRACE, self._hang_up)

    def _hang_up(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
