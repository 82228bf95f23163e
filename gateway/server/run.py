"""Runs the gateway: one process for one worker, a supervisor and its children for several."""

import gc
import logging
import math
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar

from gateway import services as collaborators
from gateway.access.keys import Keyring
from gateway.app import create_app
from gateway.config import Config, ConfigSource, notes
from gateway.observe.logs import to_stderr
from gateway.server import drain
from gateway.server.client_connection import ClientConnection
from gateway.server.file_watcher import FileWatcher
from gateway.server.uvicorn_internals import (
    STOP_SIGNALS,
    make_supervisor,
    shutdown_failed,
    supervise,
)
from gateway.services import Services

BACKLOG = 2048
# seconds: a worker that has not answered its supervisor by then is replaced, also while it still starts on a busy host
WORKER_START_TIMEOUT = 60

log = logging.getLogger("pointsman")


def run(given: ConfigSource, config: Config, shared: Path | None) -> int:
    """Serve a configuration, and what its file becomes, until a signal; return the exit status.

    `shared` is the directory through which several workers share their metrics.
    """
    to_stderr(sys.stderr)
    server_config = settings(config, partial(worker, given, config, shared), factory=True)
    try:
        listener = listen_on(config.server.host, config.server.port)
    except OSError as error:
        log.error("cannot listen on %s port %d: %s", config.server.host, config.server.port, error)
        return 1
    for note in notes(config):
        log.warning("%s", note)
    log.info("listening on %s port %d", *listener.getsockname()[:2])
    if config.server.workers > 1 and (supervisor := make_supervisor(server_config, listener)) is not None:
        return supervise(supervisor)
    return serve(server_config, listener)


def listen_on(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises OSError."""
    if ":" not in host:
        return socket.create_server((host, port), backlog=BACKLOG)
    both = socket.has_dualstack_ipv6()  # "::" is every address, of either kind
    return socket.create_server((host, port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=both)


def serve(server_config: uvicorn.Config, listener: socket.socket) -> int:
    """Serve in this process until a signal; return the exit status."""
    for number in STOP_SIGNALS:  # uvicorn raises those that came before the drain listened again, at its end
        signal.signal(number, lambda *_: None)
    server = uvicorn.Server(server_config)
    try:
        server.run(sockets=[listener])
    except SystemExit:  # uvicorn has logged why; its exit status would mean something else here
        return 1
    return 0 if server.started and not shutdown_failed(server) else 1


def settings(config: Config, app: Any, factory: bool = False) -> uvicorn.Config:
    """Return the server's settings: fast, silent, and without headers that name it."""
    return uvicorn.Config(
        app,
        factory=factory,
        host=config.server.host,
        port=config.server.port,
        workers=config.server.workers,
        loop="uvloop",
        http=ClientConnection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=config.server.keep_alive,  # type: ignore[arg-type]  # it takes any time in seconds
        timeout_worker_healthcheck=WORKER_START_TIMEOUT,
        # The drain ends before that; it is for the case that the drain could not take the signals over.
        timeout_graceful_shutdown=math.ceil(config.server.drain + drain.GRACE) + 1,
    )


def worker(given: ConfigSource, config: Config, shared: Path | None) -> Litestar:
    """Return a worker's application. It may run in a process of its own, whose log is not set up yet."""
    to_stderr(sys.stderr)
    services = collaborators.make(config, shared=shared)
    app = create_app(services)
    app.on_startup.append(lambda: drain.listen(services))
    watch_files(given, services)
    # What exists now stays: without looking at it again, and with fewer collections, a request costs a sixth less.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return app


def watch_files(given: ConfigSource, services: Services) -> None:
    """Have the configuration's and the keys' file watched: a change takes effect without a restart."""
    if given.path:
        take = services.reload.take
        services.files.append(FileWatcher(given.path, lambda text: take(given.config(text))))
    if services.config.auth.keys_file:
        path = Path(services.config.auth.keys_file)
        services.keyring = keyring = Keyring("")  # lets nobody in, if the file is invalid now
        watched = FileWatcher(path, keyring.take)
        watched.look()
        services.files.append(watched)
