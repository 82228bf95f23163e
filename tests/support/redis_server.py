"""A real redis-server for tests, on a port of its own, to be killed and stopped at will."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from pathlib import Path
from time import sleep
from typing import Any

import redis

from tests.support.ports import free_port
from tests.support.redis_servers import program


class RedisServer:
    """A server in a directory; with `cluster` it is a cluster of one. It keeps nothing when it is killed."""

    def __init__(self, directory: Path, cluster: bool = False) -> None:
        self._directory = directory
        self._cluster = cluster
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, on the same port each time, and wait until it answers: 2 s for a cluster."""
        enabled = "yes" if self._cluster else "no"
        command = [program(), "--bind", "127.0.0.1", "--port", str(self.port), "--save", ""]
        command += ["--dir", str(self._directory), "--cluster-enabled", enabled, "--cluster-port", str(free_port())]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        for _ in range(3000):
            if self._ready():
                return
            sleep(0.01)
        raise AssertionError("redis-server does not answer")

    def _ready(self) -> bool:
        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return self._joined(client) if self._cluster else bool(client.ping())
        return False

    def _joined(self, client: Any) -> bool:
        """Whether the cluster is one: all slots have to be given out first."""
        said = client.execute_command("CLUSTER INFO")
        if said["cluster_slots_assigned"] == "0":
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        return bool(said["cluster_state"] == "ok")

    def kill(self) -> None:
        """Kill it: no farewell to anybody."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, such as SIGSTOP to have it hang."""
        self._process.send_signal(number)
