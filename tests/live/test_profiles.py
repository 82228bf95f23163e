"""The options of the profiles, and the names of all options, against vLLM's own parser."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from backends.vllm_options import NAMES, SHORT
from gateway.__main__ import main
from gateway.cli.engine import launch, profiles
from tests.live import vllm_engine
from tests.live.conftest import missing
from tests.support.checkpoints import KINDS, LLAMA_8B, save

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

# Run after what `pointsman engine` asks a vLLM: what its parser makes of each line on stdin.
READ = """
import json, sys
read = {name: vars(parser.parse_args(words)) for name, words in json.load(sys.stdin).items()}
print(json.dumps(read, default=str))
"""


def words(profile: str, folder: Path) -> list[str]:
    """Return the options in the line that a dry run prints."""
    settings = profiles.load(profile).vllm
    assert settings
    model = save(folder, LLAMA_8B, KINDS.get(next(iter(settings.checkpoint), "")))
    asked = ["engine", "vllm", "--dry-run", "--model", model, "--profile", profile, "--gpu-memory", "80GiB"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.stderr
    line = shlex.split(done.stdout)
    return line[line.index(model) + 1 :]


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """Return the names that vLLM's parser knows, and what it reads in each profile's line."""
    if reason := missing("vllm"):
        pytest.skip(reason)
    vllm_engine.prepare()
    lines = {name: words(name, tmp_path_factory.mktemp(name)) for name in profiles.names()}
    done = subprocess.run(
        [vllm_engine.PYTHON, "-c", launch.PARSER + READ],
        input=json.dumps(lines),
        env=os.environ | vllm_engine.SETTINGS | {"VLLM_LOGGING_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    *_, names, read = done.stdout.splitlines()
    return names.split(), json.loads(read)


def test_the_names_of_vllms_options_are_those_of_its_parser(
    parsed: tuple[list[str], dict[str, dict[str, Any]]],
) -> None:
    assert set(parsed[0]) == (NAMES | set(SHORT)) - {"-O"}  # which its parser takes before the others


@pytest.mark.parametrize("profile", profiles.names())
def test_vllms_parser_reads_each_profile_as_it_was_meant(
    profile: str, parsed: tuple[list[str], dict[str, dict[str, Any]]]
) -> None:
    settings = profiles.load(profile).vllm
    assert settings
    read = parsed[1][profile]
    assert {name: read[name.replace("-", "_")] for name in settings.options} == settings.options
