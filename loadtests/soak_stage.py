"""The stage of a soak: two simulators that fail now and then, a gateway over them, and a look at its process."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

FAULTS = {
    "vllm": ["overload@0.02", "error:3@0.01", "cut:3@0.01"],
    "tgi": ["overload@0.02", "half-event:4@0.01", "error:0@0.01"],
}
PATIENCE = 20.0  # seconds for all of it to come up
IN_FLIGHT = re.compile(rb"^pointsman_in_flight ([0-9.]+)$", re.MULTILINE)


@contextmanager
def stage() -> Iterator[tuple[str, int]]:
    """Run it; give the gateway's URL and process id."""
    with ExitStack() as stack:
        flags = []
        for engine, faults in FAULTS.items():
            port = free_port()
            wanted = [word for fault in faults for word in ("--fault", fault)]
            stack.enter_context(
                process("sim", engine, "--port", str(port), "--ttft-ms", "20", "--itl-ms", "4", *wanted)
            )
            flags += [f"--{engine}", f"http://127.0.0.1:{port}"]
        port = free_port()
        pid = stack.enter_context(process("serve", *flags, "--model", "soak", "--port", str(port)))
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        yield url, pid


@contextmanager
def process(*words: str) -> Iterator[int]:
    """Run one of our commands, silently; give its process id."""
    child = subprocess.Popen(
        [sys.executable, "-m", "gateway", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def wait_ready(url: str) -> None:
    """Wait until the gateway is ready. Raises TimeoutError."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            with urlopen(f"{url}/readyz", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise TimeoutError(f"{url} is not ready")


def in_flight(url: str) -> int:
    """Return how many requests the gateway has, as it says itself."""
    with urlopen(f"{url}/metrics", timeout=10) as answer:
        found = IN_FLIGHT.search(answer.read())
    return int(float(found[1])) if found else -1


def rss(pid: int) -> float:
    """Return the resident memory of a process and its children, in MiB."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * resource.getpagesize() / 2**20


def handles(pid: int) -> int:
    """Return how many files and sockets a process and its children have open."""
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in family(pid))


def family(pid: int) -> list[int]:
    """Return a process and its children, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]
