"""Background tasks: each runs until the worker ends. One that dies is logged and started again.

An essential one without which a worker must not go on (nothing would end what takes too long) is started again a few
times only. Then the worker ends, so that another takes its place: it drains, as at SIGTERM, and its exit status is 1.
Any other is started again for as long as the worker runs: requests can be answered without it, if not as well.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

FIRST_PAUSE = 1.0  # seconds before a task is started again; doubled each time
MAX_PAUSE = 30.0  # seconds
STEADY = 60.0  # seconds; a task that ran so long begins anew with the first pause
MAX_DEATHS = 5  # of an essential task, one soon after the other

Job = Callable[[], Coroutine[Any, Any, None]]

log = logging.getLogger("pointsman")


class WorkerFailed(Exception):
    """The worker ended because an essential background task kept dying."""


class TaskSupervisor:
    """Runs background tasks. A job is a function that returns a new coroutine, which is not meant to end.

    `clock` is monotonic, in seconds. `gave_up` is called when the worker has to end, once for each essential task
    that kept dying; `failed` holds their names.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self.gave_up: Callable[[], None] = lambda: None
        self.failed: list[str] = []
        self._clock = clock
        self._sleep = sleep
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, job: Job) -> "asyncio.Task[None]":
        """Run a task until it is cancelled, or `stop` is called. `name` is for the log."""
        return self._start(name, job, math.inf)

    def start_essential(self, name: str, job: Job) -> "asyncio.Task[None]":
        """Run a task that the worker cannot go on without."""
        return self._start(name, job, MAX_DEATHS)

    async def stop(self) -> None:
        """Cancel all tasks, and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, name: str, job: Job, max_deaths: float) -> "asyncio.Task[None]":
        task = asyncio.ensure_future(self._keep_running(name, job, max_deaths))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _keep_running(self, name: str, job: Job, max_deaths: float) -> None:
        deaths = 0
        while deaths < max_deaths:
            if deaths:
                await self._sleep(_pause(deaths))
            began = self._clock()
            death = await _death_of(job)
            deaths = 1 if self._clock() - began >= STEADY else deaths + 1
            then = f"starting it again in {_pause(deaths):g} s" if deaths < max_deaths else "this worker ends"
            log.error("background task %s died; %s", name, then, exc_info=death)
        self.failed.append(name)
        self.gave_up()


def _pause(deaths: int) -> float:
    """Return how many seconds to wait after so many deaths, one soon after the other."""
    return float(min(FIRST_PAUSE * 2.0 ** min(deaths - 1, 30), MAX_PAUSE))


async def _death_of(job: Job) -> BaseException:
    """Run a job once; return what it died of. Raises CancelledError if it is its own task that was cancelled."""
    try:
        await job()
    except asyncio.CancelledError as error:  # or what it waited for was cancelled, which is a death like another
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return error
    except Exception as error:
        return error
    return RuntimeError("it returned, which a background task does not")
