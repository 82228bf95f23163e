"""The processes of the demo: this same command with other words, an engine, and the wait until they answer."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from gateway.cli.exit_status import CommandFailed, ExitStatus

Process = subprocess.Popen[bytes]


@contextmanager
def ours(*words: str) -> Iterator[Process]:
    """Run this command with other words, for as long as the context lasts."""
    with running([sys.executable, "-m", "gateway", *words], {}, subprocess.DEVNULL) as child:
        yield child


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | int) -> Iterator[Process]:
    """Run a command, with further variables, for as long as the context lasts. It writes to a file, or nowhere."""
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


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
