"""A background task that dies is logged and started again; where an essential one keeps dying, the worker ends."""

import asyncio
import logging
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import services
from gateway.access.limits.memory import InMemoryLimiter
from gateway.http.deadlines import DeadlineSweeper
from gateway.observe.metrics import Metrics
from gateway.server.file_watcher import FileWatcher
from gateway.server.supervise import MAX_DEATHS, MAX_PAUSE, STEADY, TaskSupervisor
from gateway.upstream.discovery import Discovery
from gateway.upstream.health import HealthChecker
from tests.support.harness import configured, until
from tests.support.ports import free_port
from tests.support.processes import written


class Timeline:
    """A clock that sleepers move on: each pause is over at once, and noted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class Dying:
    """A job that dies so many times after it ran for some seconds, and then goes on for ever."""

    def __init__(self, time: Timeline, deaths: float, lasts: float = 0.0) -> None:
        self.time, self.deaths, self.lasts = time, deaths, lasts
        self.begun = 0

    async def run(self) -> None:
        self.begun += 1
        if self.begun <= self.deaths:
            self.time.now += self.lasts
            raise ValueError(f"death {self.begun}")
        await asyncio.Event().wait()


@pytest.fixture
def time() -> Timeline:
    return Timeline()


@pytest.fixture
async def supervisor(time: Timeline) -> AsyncIterator[TaskSupervisor]:
    made = TaskSupervisor(time.clock, time.sleep)
    yield made
    await made.stop()


async def test_one_that_dies_is_logged_with_its_traceback_and_started_again_after_longer_and_longer_pauses(
    supervisor: TaskSupervisor, time: Timeline, caplog: pytest.LogCaptureFixture
) -> None:
    job = Dying(time, deaths=8)
    supervisor.start("metrics", job.run)
    await until(lambda: job.begun == 9)
    assert time.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_PAUSE, MAX_PAUSE, MAX_PAUSE]
    assert [(record.levelno, record.message) for record in caplog.records[:2]] == [
        (logging.ERROR, "background task metrics died; starting it again in 1 s"),
        (logging.ERROR, "background task metrics died; starting it again in 2 s"),
    ]
    assert "Traceback" in caplog.text
    assert "ValueError: death 8" in caplog.text


async def test_pauses_begin_anew_for_one_that_ran_for_long(supervisor: TaskSupervisor, time: Timeline) -> None:
    job = Dying(time, deaths=3, lasts=STEADY)
    supervisor.start("metrics", job.run)
    await until(lambda: job.begun == 4)
    assert time.pauses == [1.0, 1.0, 1.0]


async def test_the_worker_ends_once_an_essential_one_keeps_dying(
    supervisor: TaskSupervisor, time: Timeline, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[list[str]] = []
    supervisor.gave_up = lambda: ends.append(list(supervisor.failed))
    job = Dying(time, deaths=100)
    await supervisor.start_essential("deadlines", job.run)
    assert ends == [["deadlines"]]
    assert job.begun == MAX_DEATHS
    assert caplog.records[-1].message == "background task deadlines died; this worker ends"


@pytest.mark.parametrize(("deaths", "lasts"), [(MAX_DEATHS - 1, 0.0), (3 * MAX_DEATHS, STEADY)])
async def test_the_worker_goes_on_where_an_essential_one_dies_less_often(
    supervisor: TaskSupervisor, time: Timeline, deaths: int, lasts: float
) -> None:
    job = Dying(time, deaths, lasts)
    supervisor.start_essential("deadlines", job.run)
    await until(lambda: job.begun == deaths + 1)
    assert supervisor.failed == []


async def test_the_worker_goes_on_however_often_another_dies(supervisor: TaskSupervisor, time: Timeline) -> None:
    job = Dying(time, deaths=10 * MAX_DEATHS)
    supervisor.start("metrics", job.run)
    await until(lambda: job.begun == 10 * MAX_DEATHS + 1)
    assert supervisor.failed == []


async def test_one_that_returns_and_one_whose_wait_was_cancelled_have_died_too(
    supervisor: TaskSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    begun = {"returns": 0, "waits": 0}

    async def returns() -> None:
        begun["returns"] += 1

    async def waits() -> None:
        begun["waits"] += 1
        inner = asyncio.get_running_loop().create_future()
        inner.cancel()
        await inner

    supervisor.start("one", returns)
    supervisor.start("two", waits)
    await until(lambda: min(begun.values()) > 1)
    assert "background task one died" in caplog.text
    assert "it returned" in caplog.text
    assert "background task two died" in caplog.text


async def test_at_the_end_each_is_cancelled_once_and_waited_for(
    time: Timeline, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = TaskSupervisor(time.clock, time.sleep)
    ends: list[str] = []

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ends.append("closed")

    tasks = [supervisor.start("one", job), supervisor.start_essential("two", job)]
    await asyncio.sleep(0)
    await supervisor.stop()
    assert ends == ["closed", "closed"]
    assert all(task.cancelled() for task in tasks)
    assert caplog.text == ""


async def test_one_that_is_cancelled_by_itself_is_not_started_again(supervisor: TaskSupervisor, time: Timeline) -> None:
    job = Dying(time, deaths=0)
    task = supervisor.start("health check of a", job.run)
    await until(lambda: job.begun)
    task.cancel()
    await until(task.done)
    assert (job.begun, time.pauses) == (1, [])


LOOPS: dict[str, type] = {
    "deadlines": DeadlineSweeper,
    "discovery": Discovery,
    "limits": InMemoryLimiter,
    "metrics": Metrics,
    "watch of pointsman.toml": FileWatcher,
    "health check of vllm": HealthChecker,
}


@pytest.mark.parametrize("name", LOOPS)
async def test_each_loop_of_the_gateways_is_supervised_while_it_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dies(*_: object) -> None:
        raise RuntimeError(f"no {name} today")

    loop = LOOPS[name]
    monkeypatch.setattr(loop, "check" if loop is HealthChecker else "run", dies)
    made = services.make(configured("http://127.0.0.1:9"))
    made.files.append(FileWatcher(Path("pointsman.toml"), lambda text: None))
    async with made.running():
        await until(lambda: f"background task {name} died" in caplog.text)
    assert f"RuntimeError: no {name} today" in caplog.text


BROKEN = """
import sys
from gateway.http.deadlines import DeadlineSweeper
from gateway.server import supervise

async def run(self):
    raise RuntimeError("no sweep today")

DeadlineSweeper.run = run
supervise.FIRST_PAUSE = 0.001
from gateway.__main__ import main
main()
"""


@pytest.mark.process
async def test_a_worker_without_its_deadlines_drains_and_ends_with_status_1(tmp_path: Path) -> None:
    file = tmp_path / "pointsman.toml"
    file.write_text(written({"m": {"v": f"http://127.0.0.1:{free_port()}"}}))
    words = ["serve", "--config", str(file), "--port", str(free_port())]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", BROKEN, *words, stderr=PIPE)
    _, stderr = await process.communicate()
    assert b"RuntimeError: no sweep today" in stderr
    assert b"background task deadlines died; this worker ends" in stderr
    assert b"draining: 0 requests" in stderr
    assert process.returncode == 1
