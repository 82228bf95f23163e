"""`pointsman sim`: runs a SIMULATOR of an engine, which speaks the engine's protocol without a model."""

import contextlib
import socket
from typing import Any

import click
import uvicorn

from backends.sim import SIMULATORS, Options, parse_fault
from backends.sim.faults import KINDS
from gateway.cli.exit_status import CommandFailed, ExitStatus, reason


def run(engine: str, host: str, port: int, faults: tuple[str, ...], **options: Any) -> None:
    """Serve a simulated engine until a signal.

    `faults` are as parse_fault reads them; "help" prints what there is, and serves nothing. `options` are fields of
    Options. Raises CommandFailed if a fault is unknown or the port cannot be used.
    """
    if "help" in faults:
        click.echo("\n".join(f"{kind:<14}{meaning}" for kind, meaning in KINDS.items()))
        return
    try:
        parsed = tuple(parse_fault(fault) for fault in faults)
    except ValueError as error:
        raise CommandFailed(ExitStatus.USAGE, f"--fault: {error}") from error
    app: Any = SIMULATORS[engine](Options(faults=parsed, **options))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False, lifespan="off", ws="none"))
    with _listener(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        click.echo(f"SIMULATED {engine} on http://{host}:{port}: no model in it, only the protocol. Ctrl-C ends it.")
        server.run(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises CommandFailed."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = reason(error).partition(" (while")[0]  # create_server appends the address, which is here already
        raise CommandFailed(ExitStatus.FAILED, f"cannot listen on {host} port {port}: {why}") from error
