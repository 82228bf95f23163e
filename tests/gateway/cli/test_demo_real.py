"""`pointsman demo --real` up to the engine: a simulator stands where its cache folder has vLLM."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.cli.demo import free_port
from gateway.cli.demo.processes import ended_by_signals, running
from gateway.cli.engine import environment, small_model
from tests.support.harness import until

pytestmark = pytest.mark.process

# What it starts beside itself lives on when it has ended, as a vLLM's processes do.
SIMULATOR = """#!/bin/sh
sleep 600 &
echo $!
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


async def test_the_real_demo_shows_what_the_model_said_and_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = demo(SIMULATOR.format(python=sys.executable), tmp_path, monkeypatch)
    assert status == 0, said
    assert said.count("200 -> vllm") == 6
    assert said.count("400 -> none") == 1
    assert "get_weather({" in said
    assert "vllm (real)" in said
    assert "SIMULATED" not in said
    left = int((tmp_path / "pointsman" / "demo-vllm.log").read_text().split()[0])
    await until(lambda: is_gone(left))


def is_gone(process: int) -> bool:
    """Whether a process has ended; one that nobody has asked for its status has, too."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_engine_that_ends_is_said_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = demo("#!/bin/sh\necho no memory; exit 3\n", tmp_path, monkeypatch)
    log = tmp_path / "pointsman" / "demo-vllm.log"
    assert status == 1
    assert "".join(f"the engine ended with status 3: see {log}".split()) in "".join(said.split())
    assert log.read_text() == "no memory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_was_started_too(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with (
        pytest.raises(KeyboardInterrupt),
        ended_by_signals(),
        running(["sleep", "600"], {}, subprocess.DEVNULL) as child,
    ):
        signal.raise_signal(number)
    assert child.returncode == -signal.SIGTERM
    assert signal.getsignal(number) == before
