"""Several workers on one port, under their supervisor."""

import asyncio
import logging
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from uvicorn.supervisors import Multiprocess

from gateway.server import drain
from gateway.server.run import settings
from gateway.server.uvicorn_internals import make_supervisor, supervisor_fault
from tests.support.harness import Engine, Script, configured, engine
from tests.support.processes import (
    OTHER_UVICORN,
    Served,
    answers,
    eventually,
    held,
    replace,
    run,
    served,
    streaming,
    workers,
    written,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are found by /proc")


def refuses(port: int) -> bool:
    """Return whether nobody listens on a port, not even one who never answers."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    return False


async def over(
    stack: AsyncExitStack,
    tmp_path: Path,
    script: Script,
    before: str = "",
    program: tuple[str, ...] = ("-m", "gateway"),
) -> tuple[Served, Engine, Path]:
    """Run a gateway of two workers over one scripted engine, until both workers are there."""
    behind = await stack.enter_async_context(engine(script))
    file = tmp_path / "pointsman.toml"
    file.write_text(written({"m": {"v": behind.url}}, before))
    front = await stack.enter_async_context(served(file, "--workers", "2", program=program))
    await eventually(lambda: front.said.count("v at ") == 2)  # each has heard the engine
    return front, behind, file


async def test_each_worker_answers_and_one_that_is_killed_is_replaced_by_one_that_knows_the_file_of_today(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        front, behind, file = await over(stack, tmp_path, answers())
        first, second = workers(front)
        for asleep in (first, second):  # then it is the other one who answers
            os.kill(asleep, signal.SIGSTOP)
            assert (await front.chat("m")).status_code == 200
            os.kill(asleep, signal.SIGCONT)

        replace(file, written({"m": {"v": behind.url}, "new": {"w": behind.url}}))
        await eventually(lambda: front.said.count("w at ") == 2)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(workers(front) - {first, second}) == 1)
        await eventually(lambda: front.said.count("w at ") == 3)
        os.kill(second, signal.SIGSTOP)
        assert (await front.chat("new")).status_code == 200
        os.kill(second, signal.SIGCONT)

        front.process.send_signal(signal.SIGTERM)
        assert await front.ended() == 0
        assert "Traceback" not in front.said


@pytest.mark.parametrize("to_all", [False, True], ids=["to the supervisor", "to all, as a terminal does"])
async def test_a_signal_drains_all_workers_and_their_door_is_closed(tmp_path: Path, to_all: bool) -> None:
    event = asyncio.Event()
    async with AsyncExitStack() as stack:
        front, behind, _ = await over(stack, tmp_path, held(event))
        streams = [await stack.enter_async_context(streaming(front, "m")) for _ in range(4)]
        pids = [front.process.pid, *workers(front)] if to_all else [front.process.pid]
        for pid in pids:
            os.kill(pid, signal.SIGINT)
        await eventually(lambda: refuses(front.port))
        assert front.process.returncode is None
        event.set()
        for stream in streams:
            assert (await stream).endswith("data: [DONE]\n\n")
        assert await front.ended() == 0
        assert len(behind.asked) == 4
        assert "Traceback" not in front.said


async def test_a_second_signal_to_the_supervisor_ends_its_workers_at_once(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        front, _, _ = await over(stack, tmp_path, held(asyncio.Event()), "[server]\ndrain_notice = 600")
        stream = await stack.enter_async_context(streaming(front, "m"))
        front.process.send_signal(signal.SIGTERM)
        await eventually(lambda: front.said.count("draining") == 2)
        await asyncio.sleep(drain.ONE_SIGNAL + 0.1)
        front.process.send_signal(signal.SIGTERM)
        assert "shutting down" in await stream
        assert await front.ended() == 0
        assert "Traceback" not in front.said


class Otherwise:
    """A supervisor of a later uvicorn, which ends its workers in another way."""

    def __init__(self, config: Any, sockets: list[socket.socket]) -> None:
        self.workers: list[Any] = []

    def run(self) -> None:
        """Do nothing."""


class StillCalls(Otherwise):
    """One that ends them as before, and keeps them elsewhere."""

    def run(self) -> None:
        self.terminate_all()
        self.join_all()

    def terminate_all(self) -> None:
        """Do nothing."""

    def join_all(self) -> None:
        """Do nothing."""


class AsItWas(Multiprocess):
    """uvicorn 0.50's."""

    def __init__(self, config: Any, target: Any, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)


def test_the_installed_uvicorns_supervisor_is_as_expected() -> None:
    assert supervisor_fault(Multiprocess) == ""


def test_a_supervisor_that_cannot_be_made_leaves_one_worker_which_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as listener:
        assert make_supervisor(settings(configured("http://127.0.0.1:9"), app=None), listener, AsItWas) is None
    (record,) = caplog.records
    assert "one worker serves in the place of" in record.getMessage()


@pytest.mark.parametrize(
    ("base", "fault"),
    [
        (Otherwise, "Multiprocess.run does not call terminate_all"),
        (StillCalls, "Multiprocess has no list of processes"),
    ],
)
def test_a_supervisor_that_is_not_as_expected_is_used_as_it_is_and_logged_once(
    base: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as listener:
        made = make_supervisor(settings(configured("http://127.0.0.1:9"), app=None), listener, base)
    assert type(made) is base
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert fault in record.getMessage()


async def test_under_a_uvicorn_that_is_not_as_expected_workers_still_finish_what_they_have(tmp_path: Path) -> None:
    event = asyncio.Event()
    async with AsyncExitStack() as stack:
        front, _, _ = await over(stack, tmp_path, held(event), program=("-c", OTHER_UVICORN))
        streams = [await stack.enter_async_context(streaming(front, "m")) for _ in range(2)]
        front.process.send_signal(signal.SIGTERM)
        await eventually(lambda: front.said.count("draining") == 2)
        event.set()
        for stream in streams:
            assert (await stream).endswith("data: [DONE]\n\n")
        assert await front.ended() == 0
        assert "is not as expected (it is another one): a second signal does not end its workers" in front.said
        assert "Traceback" not in front.said


async def test_workers_that_share_limits_without_redis_are_told_of_by_check_and_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "pointsman.toml"
    (tmp_path / "keys.toml").write_text("")
    auth = '[auth]\nkeys_file = "keys.toml"\n[server]\nworkers = 2'
    file.write_text(written({"m": {"v": "http://127.0.0.1:1"}}, auth))
    note = "limits.store: without Redis each of the 2 workers enforces its share of the keys' limits"
    done = await asyncio.to_thread(run, "check", "--config", str(file))
    assert done.returncode == 0
    assert f"{file}: note: {note}" in done.stdout
    async with served(file, ready=False) as front:
        await eventually(lambda: note in front.said)


@pytest.mark.parametrize(("count", "host"), [("1", "127.0.0.1"), ("2", "127.0.0.1"), ("1", "192.0.2.1")])
def test_a_door_that_cannot_be_opened_is_said_in_one_line_and_leaves_with_1(count: str, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["--host", host, "--port", port, "--workers", count, "--allow-anonymous"]
        done = run("serve", "--vllm", "http://127.0.0.1:1", *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"cannot listen on {host} port {port}" in line
