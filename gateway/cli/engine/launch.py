"""How an engine is started: a command line and its environment, as a line to paste or as what this process becomes."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from gateway.cli.exit_status import CommandFailed, ExitStatus, reason

# Run by the Python of a vLLM: the names that its own parser knows.
PARSER = """
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError:  # before 0.32
    from vllm.entrypoints.openai.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
print(*(name for action in parser._actions for name in action.option_strings))
"""
MISSING = {
    "vllm": "vllm is not on PATH: install it (pip install vllm), use --profile cpu, or print the line with --dry-run",
    "tgi": "text-generation-launcher is not on PATH: TGI has no wheel, but an image (deploy/tgi says how it is run "
    "with a profile), or print the line with --dry-run",
}


class LaunchCommand(Struct, frozen=True):
    """A command line, and the variables that it needs beside those that are there."""

    words: tuple[str, ...]
    environment: dict[str, str]

    def line(self) -> str:
        """Return it as one line for a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.words)])

    def become(self) -> NoReturn:
        """Replace this process by the engine, which gets its signals and whose exit status is the command's.

        Raises CommandFailed if it cannot be started.
        """
        try:
            os.execvpe(self.words[0], list(self.words), {**os.environ, **self.environment})
        except OSError as error:
            raise CommandFailed(ExitStatus.FAILED, f"{self.words[0]}: {reason(error)}") from error


def unset(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those variables that the user has not set: theirs win."""
    return {name: value for name, value in variables.items() if name not in os.environ}


def cache_folder() -> Path:
    """Return where Pointsman keeps what it has downloaded or made, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pointsman"


def hub_folder() -> Path:
    """Return where HuggingFace's libraries keep models."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def check_installed(program: str, engine: str) -> None:
    """Raise CommandFailed if an engine's program cannot be run."""
    if shutil.which(program) is None:
        raise CommandFailed(ExitStatus.FAILED, MISSING[engine])


def installed_names() -> set[str]:
    """Return the names that the parser of the vLLM on PATH knows (this takes seconds); none if there is no vLLM."""
    program = shutil.which("vllm")
    python = Path(program).resolve().parent / "python" if program else Path("/nonexistent")
    return set(_output([str(python), "-c", PARSER])) if python.exists() else set()


def gpu_memories() -> list[int]:
    """Return the memory of each GPU in bytes, by nvidia-smi; none where there is none."""
    said = _output(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"])
    return [int(word) * 2**20 for word in said if word.isdigit()]


def _output(command: Sequence[str]) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []
