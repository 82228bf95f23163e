"""The command line, run as a user runs it: in processes of its own."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from tests.support.harness import CHAT
from tests.support.ports import free_port
from tests.support.processes import run


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command beside the test."""
    with subprocess.Popen([sys.executable, "-m", "gateway", *words], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait(url: str) -> httpx.Response:
    """Wait until a URL answers 200."""
    for _ in range(1200):
        try:
            answer = httpx.get(url, trust_env=False)
            if answer.status_code == 200:
                return answer
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} did not answer")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve"], "expected at least one engine"),
        (["serve", "--vllm", "nonsense"], "expected a URL"),
        (["serve", "--vllm", "http://x", "--port", "99999"], "--port: expected int <= 65535"),
        (["serve", "--vllm", "http://x", "--host", "0.0.0.0"], "--allow-anonymous"),
        (["serve", "--config", "missing.toml"], "missing.toml"),
        (["serve", "--colour"], "No such option"),
        (["sim", "sglang", "--port", "1"], "'vllm', 'tgi'"),
        (["serve", "--config", "."], ".: Is a directory"),
        (["serve", "--config", "/dev/null/pointsman.toml"], "Not a directory"),
        (["serve", "--vllm", "http://x", "--model", "\udcff"], "expected UTF-8"),
        (["sim", "vllm", "--port", "1", "--fault", "fire"], "overload"),
        (["sim", "vllm", "--port", "99999"], "99999 is not in the range"),
        (["sim", "vllm", "--port", "1", "--ttft-ms", "-1"], "--ttft-ms"),
        (["demo", "--port", "99999"], "99999 is not in the range"),
        (["check"], "Missing option '--config'"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_said_in_a_line_and_leaves_with_2(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_file_that_is_not_text_is_named(command: str, tmp_path: Path) -> None:
    file = tmp_path / "pointsman.toml"
    file.write_bytes(b"\xff\xfe")
    done = run(command, "--config", str(file))
    assert done.stderr == f"pointsman: {file}: not a UTF-8 text (byte 0)\n"
    assert done.returncode == (1 if command == "check" else 2)


def test_a_result_that_cannot_be_written_is_reported_in_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway", "keys", "create", "--name", "a", "--file", str(tmp_path / "keys.toml")]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == ["pointsman: No space left on device"]


def test_a_simulator_that_cannot_listen_leaves_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("sim", "vllm", "--port", str(port))
    assert done.stderr == f"pointsman: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert done.returncode == 1


def test_the_simulator_lists_its_faults() -> None:
    done = run("sim", "vllm", "--port", "1", "--fault", "help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("overload ")


def test_check_prints_every_fault_with_the_file_and_leaves_with_1(tmp_path: Path) -> None:
    file = tmp_path / "pointsman.toml"
    file.write_text('[server]\nprot = 1\n[[models]]\nname = "a"\n')
    done = run("check", "--config", str(file))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"pointsman: {file}: server.prot: unknown key; did you mean port?",
        f"pointsman: {file}: models[0].deployments: expected at least one engine",
    ]
    good = '[[models]]\nname = "a"\n[[models.deployments]]\nname = "v"\nengine = "vllm"\nurl = "http://x"\n'
    file.write_text(good)
    done = run("check", "--config", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: OK: 1 model, 1 deployment\n", "")
    file.write_text(good + '[[models.deployments]]\nname = "w"\nengine = "vllm"\nurl = "http://y"\n')
    assert run("check", "--config", str(file)).stdout == f"{file}: OK: 1 model, 2 deployments\n"


def test_each_command_has_help() -> None:
    for words in ([], ["serve"], ["check"], ["doctor"], ["compat"], ["cache"], ["keys"], ["sim"], ["engine"], ["demo"]):
        done = CliRunner().invoke(main, [*words, "--help"], catch_exceptions=False)
        assert done.exit_code == 0
        assert "--help" in done.stdout


def test_a_port_that_is_taken_is_said_and_leaves_with_1() -> None:
    port = free_port()
    with started("sim", "vllm", "--port", str(port)):
        wait(f"http://127.0.0.1:{port}/health")
        done = run("serve", "--vllm", "http://127.0.0.1:1", "--port", str(port))
        assert done.returncode == 1
        assert "in use" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_one_worker_is_one_process_and_several_share_the_port_until_sigterm(workers: int) -> None:
    behind, port = free_port(), free_port()
    urls = ["--vllm", f"http://127.0.0.1:{behind}", "--port", str(port), "--workers", str(workers)]
    with started("sim", "vllm", "--port", str(behind), "--ttft-ms", "0"), started("serve", *urls) as served:
        wait(f"http://127.0.0.1:{port}/readyz")
        statuses = []
        for _ in range(10):
            answer = httpx.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=CHAT | {"model": "sim-model"}, trust_env=False
            )
            statuses.append(answer.status_code)
        assert set(statuses) <= ({200} if workers == 1 else {200, 503})  # a worker may not have asked yet
        assert 200 in statuses
        children = Path(f"/proc/{served.pid}/task/{served.pid}/children")
        if children.exists():
            assert (len(children.read_text().split()) > 0) == (workers > 1)
        served.send_signal(signal.SIGTERM)
        assert served.wait(20) == 0


def test_the_demo_says_that_its_engines_are_simulated_and_shows_who_answered() -> None:
    done = run("demo", "--once", "--port", str(free_port()))
    assert done.returncode == 0
    assert "SIMULATED" in done.stdout
    assert "200 -> vllm" in done.stdout
    assert "200 -> tgi" in done.stdout
    assert "vllm (simulated)" in done.stdout
