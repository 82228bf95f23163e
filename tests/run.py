"""Everything that must hold, in one command, on a fresh machine: `python3 tests/run.py` (Python 3.11 is enough).

Installs redis-server, promtool and a JDK where that can be done, makes `.venv`, installs the project and its tools into
it (from the hashed lock file where there is one), and runs the linter, the formatter, the type checker and all tests,
on as many processors as there are: unit and wire tests first, then those that run processes of their own, beside those
against real engines, which mostly wait. Exits with the status of the first that failed. A second run installs nothing.
`--no-live` leaves out the tests against real engines, `--quick` all that run processes; what follows `--` goes to
pytest, which then runs once.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / "bin"
PYTHON = str(BIN / "python")
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "installed-from"  # says from which lock file and pyproject.toml
UV = "uv==0.13.9"
# What tests run, by its Debian package.
PROGRAMS = {"redis-server": "redis-server", "promtool": "prometheus", "javac": "default-jdk-headless"}
OLDEST = (3, 11)


def main() -> None:
    """Prepare, check, and exit with the first failure's status."""
    options, for_pytest = arguments()
    if sys.version_info < OLDEST:
        sys.exit(f"Python {'.'.join(map(str, OLDEST))} is needed, and this is {sys.version.split()[0]}")
    os.chdir(ROOT)
    # Some images set it, and then each of the hundreds of Pythons that the tests start compiles all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    programs()
    prepare()
    tests = [suite(options) + for_pytest] if for_pytest else suites(options)
    checks = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], *tests]
    installing = None if options.quick or for_pytest else ahead(options)
    statuses = [run(PYTHON, "-m", *check) for check in checks]
    if installing is not None:
        installing.wait()
    sys.exit(next(filter(None, statuses), 0))


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Our own options, and pytest's."""
    ours, theirs = sys.argv[1:], []
    if "--" in ours:
        cut = ours.index("--")
        ours, theirs = ours[:cut], ours[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="unit and wire tests alone: nothing that runs processes")
    parser.add_argument("--no-live", action="store_true", help="leave out the tests against real engines")
    return parser.parse_args(ours), theirs


def suite(options: argparse.Namespace) -> list[str]:
    """The tests in one run of pytest."""
    chosen = "not live and not process" if options.quick else "not live" if options.no_live else ""
    return ["pytest", *(["-m", chosen] if chosen else [])]


def suites(options: argparse.Namespace) -> list[list[str]]:
    """The tests in two runs: what is quick; what runs processes, where what shares an engine stays together."""
    quick = ["pytest", "-m", "not live and not process", "-n", "auto"]
    slow = ["pytest", "-m", "process" if options.no_live else "process or live", "-n", "auto", "--dist", "loadscope"]
    return [quick] if options.quick else [quick, slow]


def programs() -> None:
    """What the tests run beside Python, from Debian where that can be done; the tests of what is missing say so."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing:
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid():
        say(f"not installed, and their tests are left out: {', '.join(missing)}")
        return
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", apt]
    run(*quiet, "update", "-qq")
    run(*quiet, "install", "-y", "-qq", "--no-install-recommends", *missing)


def prepare() -> None:
    """An environment with the project and its tools, unless it is there as the lock file says."""
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        say(f"{VENV.name} is up to date")
        return
    if not Path(PYTHON).exists():
        must(sys.executable, "-m", "venv", "--without-pip", "--clear", str(VENV))
    if LOCK.exists():
        install("--require-hashes", "-r", LOCK.name)
        install("--no-deps", "-e", ".")
    else:
        install("-e", ".[dev]")
    STAMP.write_text(wanted)


def fingerprint() -> str:
    """What the environment depends on, as one word."""
    sources = [path.read_bytes() for path in (LOCK, ROOT / "pyproject.toml") if path.exists()]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()


def install(*what: str) -> None:
    """Install by uv, which is fast, and by pip where uv fails: pip may know a mirror that uv does not."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", os.defpath)])
    if shutil.which("uv", path=path) is None:
        pip("install", UV)
    uv = shutil.which("uv", path=path) or str(BIN / "uv")
    if run(uv, "pip", "install", "--python", PYTHON, *what):
        pip("install", *what)


def pip(*arguments: str) -> None:
    """Run pip, put into the environment first where it is missing."""
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit("this Python comes without ensurepip, so pip cannot be installed: apt-get install python3-venv")
    must(PYTHON, "-m", "ensurepip")
    must(PYTHON, "-m", "pip", *arguments)


def ahead(options: argparse.Namespace) -> "subprocess.Popen[bytes]":
    """Begin to install what the later tests run in environments of their own: downloads need no processor."""
    log = ROOT / ".cache" / "ahead.log"
    log.parent.mkdir(exist_ok=True)
    say(f"vLLM and other clients are installed meanwhile: {log.relative_to(ROOT)}")
    with log.open("wb") as sink:
        command = [PYTHON, "-m", "tests.ahead", *(["--no-live"] if options.no_live else [])]
        return subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)


def must(*command: str) -> None:
    """Run a command that the rest depends on."""
    if status := run(*command):
        sys.exit(status)


def run(*command: str) -> int:
    """Run a command, saying so, and how long it took unless it has the last word."""
    say(" ".join(command).replace(f"{ROOT}/", ""))
    started = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    if "pytest" not in command:
        say(f"{'failed with status ' + str(status) if status else 'done'} in {time.monotonic() - started:.1f} s")
    return status


def say(line: str) -> None:
    """A line of our own among those of the tools."""
    print(f"== {line}", flush=True)


if __name__ == "__main__":
    main()
