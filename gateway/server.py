"""Runs the gateway: one process for one worker, a supervisor and its children for several."""

import logging
import sys
from functools import partial

import uvicorn
from litestar import Litestar
from uvicorn.supervisors import Multiprocess

from gateway.app import create_app
from gateway.config import Config

CLIENT_KEEP_ALIVE = 75  # seconds; longer than the clients' own, so that it is they who close


def run(config: Config) -> int:
    """Serve until a signal; return the exit status."""
    log_to_stderr()
    settings = uvicorn.Config(
        partial(worker, config),
        factory=True,
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
        timeout_keep_alive=CLIENT_KEEP_ALIVE,
    )
    if config.server.workers > 1:
        Multiprocess(settings, sockets=[settings.bind_socket()]).run()
        return 0
    server = uvicorn.Server(settings)
    server.run()
    return 0 if server.started else 1


def worker(config: Config) -> Litestar:
    """Return a worker's application; it may be in a process of its own, which has yet to be told where to log."""
    log_to_stderr()
    return create_app(config)


def log_to_stderr() -> None:
    """Send what the gateway and the server have to say to stderr, a line each."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pointsman").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)
