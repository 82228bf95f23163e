"""Runs produced arguments through the parser of an installed vLLM (`pointsman migrate --check`)."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

# Runs in vLLM's own Python: reads a JSON list of lists of arguments, writes one of what was wrong with each ("" is
# nothing), and the version. It loads no model, and needs no GPU.
_PROGRAM = """
import contextlib, io, json, sys
asked = json.load(sys.stdin)
with contextlib.redirect_stdout(sys.stderr):
    import vllm
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    parser = make_arg_parser(FlexibleArgumentParser(prog="vllm serve"))
    wrong = []
    for arguments in asked:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                validate_parsed_serve_args(parser.parse_args(arguments))
            wrong.append("")
        except SystemExit:
            wrong.append(said.getvalue().strip().splitlines()[-1].partition(": error: ")[2] or said.getvalue().strip())
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")
json.dump({"version": vllm.__version__, "wrong": wrong}, sys.stdout)
"""
PATIENCE = 600  # seconds; vLLM is large: its parser takes half a minute to load, and minutes on a busy machine


class ParserVerdict(Struct):
    """What a vLLM's parser says: its version, and what is wrong with each list of arguments; nothing if it takes it."""

    version: str
    wrong: list[str]


class NoVllm(Exception):
    """There is no vLLM whose parser could be asked, or it did not answer; the message says why."""


def installed_python() -> str:
    """Return the Python of an installed vLLM: our own, or that of the `vllm` on PATH. Raises NoVllm."""
    if find_spec("vllm") is not None:
        return sys.executable
    program = shutil.which("vllm")
    if program is None:
        raise NoVllm("--check needs an installed vLLM: its environment active, so that `vllm` is on PATH")
    beside = Path(program).resolve().with_name("python")
    if not beside.exists():
        raise NoVllm(f"--check: {program} has no Python beside it")
    return str(beside)


def ask(python: str, arguments: Sequence[Sequence[str]], patience: float = PATIENCE) -> ParserVerdict:
    """Return what the parser says of lists of arguments of `vllm serve`. Raises NoVllm."""
    command = [python, "-c", _PROGRAM]
    try:
        asked = json.dumps(arguments)
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=patience, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoVllm(f"--check: {python}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise NoVllm(f"--check: vLLM's parser cannot be loaded: {said[-1] if said else f'status {done.returncode}'}")
    answer = json.loads(done.stdout)
    return ParserVerdict(answer["version"], answer["wrong"])
