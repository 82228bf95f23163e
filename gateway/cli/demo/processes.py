"""The processes of the demo: this same command with other words, an engine, and the wait until they answer."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx

from gateway.cli.exit_status import CommandFailed, ExitStatus

Process = subprocess.Popen[bytes]
PATIENCE = 20.0  # seconds, to end by itself


@contextmanager
def ours(*words: str) -> Iterator[Process]:
    """Run this command with other words, for as long as the context lasts."""
    with running([sys.executable, "-m", "gateway", *words], {}, subprocess.DEVNULL) as child:
        yield child


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | int) -> Iterator[Process]:
    """Run a command, with further variables, for as long as the context lasts. It writes to a file, or nowhere.

    It is a session of its own, so that all that it has started is ended with it: an engine has processes that live on.
    """
    variables = {**os.environ, **environment}
    child = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield child
    finally:
        _end(child)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make of SIGTERM, and of a terminal that is closed, what Ctrl-C is: nothing that was started is left running."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(child: Process) -> None:
    """End a process and all of its session: first asked, then killed."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def wait_ready(client: httpx.Client, seconds: float, engine: Process | None = None, log: Path | None = None) -> None:
    """Wait until the gateway has heard its engines.

    Raises CommandFailed if that takes longer, or if the engine's process ends before; `log` is what it wrote.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if engine and engine.poll() is not None:
            raise CommandFailed(ExitStatus.FAILED, f"the engine ended with status {engine.returncode}: see {log}")
        if _is_ready(client):
            return
        time.sleep(0.1)
    raise CommandFailed(ExitStatus.FAILED, f"the gateway and its engines were not ready within {seconds:g} s")


def _is_ready(client: httpx.Client) -> bool:
    try:
        answer = client.get("/readyz")
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and not answer.json()["missing"]


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free, or else one that is."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])
