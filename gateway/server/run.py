"""Runs the gateway: one process for one worker, a supervisor and its children for several."""

import gc
import logging
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from gateway import services as collaborators
from gateway.access.keys import Keyring
from gateway.app import create_app
from gateway.config import Config, ConfigSource, notes
from gateway.observe.logs import to_stderr
from gateway.server.drain import Drain
from gateway.server.file_watcher import FileWatcher
from gateway.services import Services

CLIENT_KEEP_ALIVE = 75  # seconds; longer than the clients' own, so that it is they who close
BACKLOG = 2048
STOPS = {signal.SIGTERM, signal.SIGINT}

log = logging.getLogger("pointsman")


def run(given: ConfigSource, config: Config, shared: Path | None) -> int:
    """Serve a configuration, and what becomes of its file, until a signal; return the exit status.

    `shared` is the directory where the figures of several workers meet.
    """
    to_stderr(sys.stderr)
    chosen = settings(config, partial(worker, given, config, shared), factory=True)
    try:
        door = bound(config.server.host, config.server.port)
    except OSError as error:
        log.error("cannot listen on %s port %d: %s", config.server.host, config.server.port, error)
        return 1
    for note in notes(config):
        log.warning("%s", note)
    log.info("listening on %s port %d", *door.getsockname()[:2])
    return supervise(chosen, door) if config.server.workers > 1 else serve(chosen, door)


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises OSError."""
    if ":" not in host:
        return socket.create_server((host, port), backlog=BACKLOG)
    both = socket.has_dualstack_ipv6()  # "::" is every address, of either kind
    return socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=both)


def serve(chosen: uvicorn.Config, door: socket.socket) -> int:
    """Serve in this process until a signal; return the exit status."""
    for stop in STOPS:  # uvicorn raises those that came before the drain listened once more, at its end
        signal.signal(stop, lambda *_: None)
    server = uvicorn.Server(chosen)
    try:
        server.run(sockets=[door])
    except SystemExit:  # it has said why; its status would mean something else here
        return 1
    return 0 if server.started and not server.lifespan.should_exit else 1  # it started, and ended in order


def supervise(chosen: uvicorn.Config, door: socket.socket) -> int:
    """Serve in workers until a signal; return the exit status."""
    supervisor = Supervisor(chosen, sockets=[door])
    supervisor.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes) else 0


class Supervisor(Multiprocess):
    """uvicorn's, which starts another worker for one that died; it ends as a single server does."""

    def terminate_all(self) -> None:
        """Have the workers drain. The door is theirs alone from now on, so that it closes when they close it."""
        for door in self.sockets:
            door.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for the workers; a second signal is for them, too."""
        while any(process.process.is_alive() for process in self.processes):
            time.sleep(0.1)
            if not STOPS.isdisjoint(self.signal_queue):
                self.signal_queue.clear()
                self.terminate_all()


def settings(config: Config, app: Any, factory: bool = False) -> uvicorn.Config:
    """Return how the server is set: fast, silent, and without headers that name it."""
    return uvicorn.Config(
        app,
        factory=factory,
        host=config.server.host,
        port=config.server.port,
        workers=config.server.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=CLIENT_KEEP_ALIVE,
    )


def worker(given: ConfigSource, config: Config, shared: Path | None) -> Litestar:
    """Return a worker's application; it may be in a process of its own, which has yet to be told where to log."""
    to_stderr(sys.stderr)
    services = collaborators.make(config, shared=shared)
    app = create_app(services)
    drain = Drain(services)
    app.on_startup.append(drain.listen)
    services.supervisor.gave_up = drain.begin
    watch_files(given, services)
    # What is there now stays: with it out of the collector's sight, and fewer rounds, a request costs a sixth less.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return app


def watch_files(given: ConfigSource, services: Services) -> None:
    """Have the files looked at: what changes in them is in force without a restart."""
    if given.path:
        take = services.reload.take
        services.files.append(FileWatcher(given.path, lambda text: take(given.config(text))))
    if services.config.auth.keys_file:
        path = Path(services.config.auth.keys_file)
        services.keyring = keyring = Keyring("")  # nobody's, if the file cannot be taken now
        watched = FileWatcher(path, keyring.take)
        watched.look()
        services.files.append(watched)
