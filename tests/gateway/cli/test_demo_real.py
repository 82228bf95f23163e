"""`pointsman demo --real` up to the engine: a simulator stands where its cache folder has vLLM."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.cli.demo import free_port
from gateway.cli.engine import environment, small_model

pytestmark = pytest.mark.process

SIMULATOR = """#!/bin/sh
while [ "$1" != --port ]; do shift; done
exec {python} -m gateway sim vllm --model smollm2 --port "$2" --ttft-ms 1 --itl-ms 1
"""


def demo(program: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Run the demo for one round, with this script as the Python of vLLM's environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(environment, "obstacle", lambda cache: "")
    python = environment.python(cache / "pointsman")
    python.parent.mkdir(parents=True)
    python.write_text(program)
    python.chmod(0o755)
    (python.parents[1] / environment.COMPLETE).touch()
    model = small_model.folder(cache / "pointsman")
    model.mkdir()
    (model / "config.json").write_text("{}")
    done = CliRunner().invoke(main, ["demo", "--real", "--once", "--port", str(free_port())])
    return done.exit_code, done.output


def test_the_real_demo_shows_what_the_model_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = demo(SIMULATOR.format(python=sys.executable), tmp_path, monkeypatch)
    assert status == 0, said
    assert said.count("200 -> vllm") == 6
    assert said.count("400 -> none") == 1
    assert "get_weather({" in said
    assert "vllm (real)" in said
    assert "SIMULATED" not in said


def test_an_engine_that_ends_is_said_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = demo("#!/bin/sh\necho no memory; exit 3\n", tmp_path, monkeypatch)
    log = tmp_path / "pointsman" / "demo-vllm.log"
    assert status == 1
    assert "".join(f"the engine ended with status 3: see {log}".split()) in "".join(said.split())
    assert log.read_text() == "no memory\n"
