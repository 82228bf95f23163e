"""Runs the gateway: one process for one worker, a supervisor and its children for several."""

import gc
import logging
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar
from uvicorn.supervisors import Multiprocess

from gateway import services as collaborators
from gateway.app import create_app
from gateway.config import Config, Given
from gateway.drain import Drain
from gateway.keys import Keyring
from gateway.services import Services
from gateway.watched import WatchedFile

CLIENT_KEEP_ALIVE = 75  # seconds; longer than the clients' own, so that it is they who close


def run(given: Given, config: Config) -> int:
    """Serve a configuration, and what becomes of its file, until a signal; return the exit status."""
    log_to_stderr()
    chosen = settings(config, partial(worker, given, config), factory=True)
    try:
        sockets = [chosen.bind_socket()]
    except SystemExit:  # it has said why; its status would mean something else here
        return 1
    if config.server.workers > 1:
        Multiprocess(chosen, sockets=sockets).run()
        return 0
    for stop in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when it has shut down in order
        signal.signal(stop, lambda *_: None)
    server = uvicorn.Server(chosen)
    server.run(sockets=sockets)
    return 0 if server.started else 1


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


def worker(given: Given, config: Config) -> Litestar:
    """Return a worker's application; it may be in a process of its own, which has yet to be told where to log."""
    log_to_stderr()
    services = collaborators.make(config)
    app = create_app(services)
    app.on_startup.append(Drain(services).listen)
    watch_files(given, services)
    # What is there now stays: with it out of the collector's sight, and fewer rounds, a request costs a sixth less.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    return app


def watch_files(given: Given, services: Services) -> None:
    """Have the files looked at: what changes in them is in force without a restart."""
    if given.path:
        take = services.discovery.take
        services.files.append(WatchedFile(given.path, lambda text: take(given.config(text))))
    if services.config.auth.keys_file:
        path = Path(services.config.auth.keys_file)
        services.keyring = keyring = Keyring(path.read_text())
        services.files.append(WatchedFile(path, keyring.take))


def log_to_stderr() -> None:
    """Send what the gateway and the server have to say to stderr, a line each."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pointsman").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
