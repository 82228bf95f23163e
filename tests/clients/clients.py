"""The foreign clients: each in an environment of its own, made on first use, and run as a process of its own.

`.venv-clients-<name>` holds what `<name>/requirements.txt` or `<name>/package-lock.json` pins. One that is there, made
from the same pins, is used as it is. OpenAI's client for Python runs in the project's own environment, and the JDK's
own needs none.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.engine.environment import uv
from tests.clients.asked import ASKED
from tests.live import vllm_engine

HERE = Path(__file__).parent
ROOT = vllm_engine.ROOT
CACHE = vllm_engine.CACHE
OLDEST_NODE = 20
PATIENCE = 300  # seconds that a script may take; a real engine on a slow machine is slow
SETTINGS = {
    "PYTHONPATH": str(HERE),  # probe.py
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list
    "LANGSMITH_TRACING": "false",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}


@dataclass(frozen=True)
class Client:
    """A client: the folder of its script, what it is asked to do, and the classes by which it tells what went wrong."""

    name: str
    probes: tuple[str, ...]
    bad_request: str = ""
    not_found: str = ""
    too_long: str = ""
    invalid: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def environment(self) -> Path:
        return ROOT / f".venv-clients-{self.name}"


def why_not(client: Client) -> str | None:
    """Why this machine cannot run the client, in one sentence; None if it can."""
    if is_java(client) and shutil.which("javac") is None:
        return f"no JDK on PATH (default-jdk-headless): {client} was left out"
    if not is_node(client):
        return None
    if missing := [tool for tool in ("node", "npm") if shutil.which(tool) is None]:
        return f"{' and '.join(missing)} not on PATH: {client} was left out"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        return f"node is {version}, and {OLDEST_NODE} is needed: {client} was left out"
    return None


def prepare(client: Client) -> None:
    """Make the client's environment, unless it is there; one process at a time does it."""
    pins = next(filter(Path.exists, (client.folder / name for name in ("requirements.txt", "package-lock.json"))), None)
    if pins is None:
        return
    CACHE.mkdir(exist_ok=True)
    wanted = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    stamp = client.environment / "installed-from"
    with (CACHE / f"clients-{client}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(client.environment, ignore_errors=True)
            (install_node if is_node(client) else install_python)(client, pins)
            stamp.write_text(wanted)


def is_node(client: Client) -> bool:
    """Whether it is a client for Node."""
    return (client.folder / "package.json").exists()


def is_java(client: Client) -> bool:
    """Whether it is a client for Java, which is run from its source."""
    return (client.folder / "script.java").exists()


def install_python(client: Client, pins: Path) -> None:
    """Install by uv, which is fast, and by pip where uv is missing or fails: pip may know a mirror that uv does not."""
    python = python_of(client)
    if tool := uv():
        run(tool, "venv", "--quiet", "--python", sys.executable, str(client.environment))
        if not run(tool, "pip", "install", "--quiet", "--python", python, "-r", str(pins), check=False):
            return
    run(sys.executable, "-m", "venv", "--clear", str(client.environment))
    run(python, "-m", "pip", "install", "--quiet", "-r", str(pins))


def install_node(client: Client, pins: Path) -> None:
    """Install by npm, exactly what the lock file says."""
    client.environment.mkdir()
    for name in ("package.json", pins.name):
        shutil.copy(client.folder / name, client.environment)
    run("npm", "ci", "--no-audit", "--no-fund", "--prefix", str(client.environment))


def run(*command: str, check: bool = True) -> int:
    """Run an installer."""
    return subprocess.run(command, check=check, stdout=sys.stderr, timeout=PATIENCE).returncode


def results(client: Client, gateway: str, engine: str) -> dict[str, Any]:
    """Run the client's script against the gateway, pinned to an engine: what each of its probes came to, by name."""
    given = json.dumps(ASKED | {"url": gateway, "engine": engine})
    finished = subprocess.run(
        command(client),
        cwd=client.environment if is_node(client) else ROOT,
        env=os.environ | SETTINGS,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    said: dict[str, Any] = json.loads(finished.stdout)
    assert said.keys() == set(client.probes), "the table in test_clients.py and the script name different probes"
    return said


def command(client: Client) -> list[str]:
    """How to run the script."""
    if is_node(client):  # a module finds its packages from where it lies
        return ["node", shutil.copy(str(client.folder / "script.mjs"), str(client.environment))]
    if is_java(client):
        return ["java", str(client.folder / "script.java")]
    return [python_of(client), str(client.folder / "script.py")]


def python_of(client: Client) -> str:
    """The Python that has the client."""
    if not (client.folder / "requirements.txt").exists():
        return sys.executable
    return str(client.environment / "bin" / "python")
