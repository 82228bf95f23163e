"""Real Redis servers for tests, on free ports: one; a primary, a replica and three Sentinels; a Cluster of three."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.ports import free_port

SERVICE = "answers"
SLOTS = 16384
PATIENCE = 30.0  # seconds for servers to come up and find each other
UNHURRIED = 20.0  # seconds to connect, which no busy machine needs


def program() -> str:
    """Return the redis-server of this machine; without one the test is left out."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


@dataclass
class Server:
    """One redis-server, in a directory of its own."""

    directory: str
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, or start it again on the same port, and wait until it answers."""
        command = [program(), *self.options, "--port", str(self.port), "--bind", "127.0.0.1"]
        settled = ["--dir", self.directory, "--daemonize", "no"]
        if "--sentinel" not in self.options:
            settled += ["--save", "", "--appendonly", "no"]
        with Path(self.directory, f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *settled], stdout=log, stderr=log)
        wait(lambda: self.ask("PING") == "PONG")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal: SIGKILL is dead at once, SIGSTOP takes connections and says nothing."""
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()

    def close(self) -> None:
        """End it, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ask(self, *words: str) -> str:
        """Return what it answers to a command, as text; bulk strings and arrays as they stand on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"*%d\r\n" % len(words))
            for word in words:
                connection.sendall(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()))
            return connection.recv(65536).decode().strip().lstrip("+")


def wait(holds: Callable[[], object]) -> None:
    """Wait until a condition holds; a server that does not answer yet is a condition that does not."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if holds():
                return
        time.sleep(0.02)
    raise AssertionError("the servers did not come to it")


@contextlib.contextmanager
def single() -> Iterator[Server]:
    """Run one server."""
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        try:
            server.start()
            yield server
        finally:
            server.close()


@dataclass
class Watched:
    """A primary, its replica, and the Sentinels that know them as SERVICE."""

    primary: Server
    replica: Server
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"


@contextlib.contextmanager
def sentinels() -> Iterator[Watched]:
    """Run a primary, a replica and three Sentinels that fail over after half a second."""
    with contextlib.ExitStack() as stack:
        first = _started(stack, "--repl-diskless-sync-delay", "0")
        second = _started(stack, "--replicaof", "127.0.0.1", str(first.port))
        wait(lambda: "master_link_status:up" in second.ask("INFO", "replication"))
        watchers = [_sentinel(stack, first) for _ in range(3)]
        for one in watchers:
            wait(partial(_sees, one))
        yield Watched(first, second, watchers)


def _sees(sentinel: Server) -> bool:
    reply = sentinel.ask("SENTINEL", "MASTER", SERVICE)
    return all(_number(reply, name) for name in ("num-slaves", "num-other-sentinels"))


def _number(reply: str, name: str) -> int:
    """Return a figure of an array of names and values, as it stands on the wire."""
    lines = reply.split("\r\n")
    return int(lines[lines.index(name) + 2]) if name in lines else 0


def _sentinel(stack: contextlib.ExitStack, primary: Server) -> Server:
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    settings = Path(directory, "sentinel.conf")
    settings.write_text(
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2\n"
        f"sentinel down-after-milliseconds {SERVICE} 500\n"
        f"sentinel failover-timeout {SERVICE} 2000\n"
    )
    server = Server(directory, (str(settings), "--sentinel"))
    stack.callback(server.close)
    server.start()
    return server


@dataclass
class Cluster:
    """Three nodes that share the slots."""

    nodes: list[Server]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a Cluster of three primaries; it goes on with the slots it has when one is gone."""
    with contextlib.ExitStack() as stack:
        buses = [free_port() for _ in range(3)]
        settings = (
            "--cluster-enabled",
            "yes",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-node-timeout",
            "500",
        )
        nodes = [_started(stack, *settings, "--cluster-port", str(bus)) for bus in buses]
        bounds = [SLOTS * place // 3 for place in range(4)]
        for place, node in enumerate(nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(bounds[place]), str(bounds[place + 1] - 1))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(place + 1))
            for other, bus in zip(nodes, buses, strict=True):
                node.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(bus))
        for node in nodes:
            wait(partial(_joined, node))
        yield Cluster(nodes)


def _joined(node: Server) -> bool:
    info = node.ask("CLUSTER", "INFO")
    return all(word in info for word in ("cluster_state:ok", f"cluster_slots_ok:{SLOTS}", "cluster_known_nodes:3"))


def _started(stack: contextlib.ExitStack, *options: str) -> Server:
    server = Server(stack.enter_context(tempfile.TemporaryDirectory()), options)
    stack.callback(server.close)
    server.start()
    return server
