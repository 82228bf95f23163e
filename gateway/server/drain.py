"""The end of a worker. At SIGTERM it reports that it is not ready, then stops listening, and finishes what it has.

    signal ── drain_notice ──► port closed ── drain ──► what is still in flight ends in an error,
      /readyz says 503,          requests in flight         and the process with status 0
      still serving              go on

The notice is for load balancers, which take some seconds to look at `/readyz`. Each answer of it ends its connection
and says so (`Connection: close`), so that clients that keep theirs come back elsewhere. A second signal cuts all of it
short.
"""

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial

from gateway.server.uvicorn_internals import STOP_SIGNALS, RunningServer, running_server
from gateway.services import Services

# A terminal, or systemd, signals the supervisor and its workers, and the supervisor its workers once more.
ONE_SIGNAL = 1.0  # seconds, in which further signals are the same one
GRACE = 2.0  # seconds, in which a client may read the error that ends its request

log = logging.getLogger("pointsman")


def listen(services: Services, find: Callable[[], RunningServer | None] = running_server) -> None:
    """Take the signals over from the server, or leave them to it if it cannot be found.

    The worker drains, too, if its supervisor gives up. To be called in the server's event loop, once it has started.
    """
    server = find()
    if server is None:
        services.supervisor.gave_up = partial(signal.raise_signal, signal.SIGTERM)
        return
    drain = Drain(services, server)
    services.supervisor.gave_up = drain.begin
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, drain.begin)


class Drain:
    """Stands between the signals and the server, which would stop listening at once and wait without a bound."""

    def __init__(self, services: Services, server: RunningServer) -> None:
        self._services = services
        self._server = server
        self._began = 0.0

    def begin(self) -> None:
        """Begin to drain at the first signal; at the second, end."""
        services, loop = self._services, asyncio.get_running_loop()
        if services.draining:
            if services.clock() - self._began > ONE_SIGNAL:
                self._end()
            return
        services.draining = True
        for context in services.sweep.open:
            context.closing = True
        self._began = services.clock()
        server = services.config.server
        log.info("draining: %d requests in flight have %g s to finish", len(services.sweep.open), server.drain)
        loop.call_later(server.drain_notice, self._server.close)
        loop.call_later(server.drain_notice + server.drain, self._end)

    def _end(self) -> None:
        """End what is in flight in an error; clients that do not read it within the grace are disconnected."""
        self._server.close()
        self._services.stop()
        asyncio.get_running_loop().call_later(GRACE, self._server.hang_up)
