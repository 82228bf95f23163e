"""Idle time-outs and deadlines: each wait is judged by its own silence, and by nobody else's."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.http.cancel import CancelScope
from gateway.http.deadlines import IdleTimer
from gateway.http.errors import (
    ClientDisconnected,
    EngineFailed,
    EngineTimeout,
    PointsmanError,
    ShuttingDown,
    UpstreamIdleTimeout,
)


class Clock:
    """Says what a test wants."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def timer(clock: Clock, limit: float = 2.0) -> IdleTimer:
    return IdleTimer(limit, clock, lambda seconds: UpstreamIdleTimeout(f"silent for {seconds:g} s"))


def waiting(one: IdleTimer) -> "asyncio.Task[str]":
    """Begin to wait, under a timer, for what never comes."""

    async def wait() -> str:
        with one:
            await asyncio.Event().wait()
        return "it came"

    return asyncio.ensure_future(wait())


async def test_a_wait_that_takes_too_long_ends_in_the_timers_own_error() -> None:
    clock = Clock()
    one = timer(clock)
    task = waiting(one)
    await asyncio.sleep(0)
    one.check(2.0)
    await asyncio.sleep(0)
    assert not task.done(), "the limit itself is still in time"
    one.check(2.1)
    with pytest.raises(UpstreamIdleTimeout, match="silent for 2 s"):
        await task
    assert task.cancelling() == 0


async def test_two_timers_of_one_request_are_judged_apart() -> None:
    clock = Clock()
    first, second = timer(clock), timer(clock)
    one = waiting(first)
    await asyncio.sleep(0)
    clock.now = 1.5
    other = waiting(second)
    await asyncio.sleep(0)
    for each in (first, second):
        each.check(2.5)
    with pytest.raises(UpstreamIdleTimeout):
        await one
    assert not other.done()
    other.cancel()


async def test_between_two_waits_nothing_is_silent() -> None:
    one = timer(Clock())
    with one:
        await asyncio.sleep(0)
    one.check(1e9)
    await asyncio.sleep(0)  # where a cancellation would arrive


async def test_a_client_that_leaves_while_a_silence_is_dealt_with_is_not_forgotten() -> None:
    """Of two cancellations at once the wait's own is taken back, and the request's stays."""
    clock = Clock()
    one = timer(clock)
    task = waiting(one)
    scope = CancelScope(task)
    await asyncio.sleep(0)
    one.check(3.0)
    scope.cancel(ClientDisconnected())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(scope.reason, ClientDisconnected)


Reason = Callable[[], PointsmanError | ClientDisconnected]


@pytest.mark.parametrize(
    ("first", "second", "stays"),
    [
        (lambda: EngineTimeout("late"), ClientDisconnected, ClientDisconnected),
        (ClientDisconnected, lambda: EngineTimeout("late"), ClientDisconnected),
        (lambda: EngineTimeout("late"), lambda: ShuttingDown("bye"), ShuttingDown),
        (lambda: ShuttingDown("bye"), ClientDisconnected, ClientDisconnected),
        (lambda: ShuttingDown("bye"), lambda: EngineTimeout("late"), ShuttingDown),
    ],
)
async def test_of_several_reasons_the_highest_stays(first: Reason, second: Reason, stays: type[BaseException]) -> None:
    async def request() -> BaseException:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            return await scope.leave(error)
        raise AssertionError("it never ends by itself")

    task = asyncio.ensure_future(request())
    scope = CancelScope(task)
    await asyncio.sleep(0)
    scope.cancel(first())
    scope.cancel(second())
    assert isinstance(await task, stays)
    assert task.cancelling() == 0


async def test_a_reason_that_arrives_behind_another_failure_wins_and_cancels_nothing_later() -> None:
    async def request() -> BaseException:
        scope.cancel(ClientDisconnected())
        meaning = await scope.leave(EngineFailed("at the same moment"))
        await asyncio.sleep(0)
        return meaning

    task = asyncio.ensure_future(request())
    scope = CancelScope(task)
    assert isinstance(await task, ClientDisconnected)


async def test_an_outer_cancellation_passes_through_an_inner_scope_in_the_same_task() -> None:
    async def request() -> tuple[BaseException, BaseException]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            passed = await inner.leave(error)
            return passed, await outer.leave(passed)
        raise AssertionError("it never ends by itself")

    task = asyncio.ensure_future(request())
    outer, inner = CancelScope(task), CancelScope(task)
    await asyncio.sleep(0)
    inner.cancel(EngineTimeout("the sub-request's own time"))
    outer.cancel(ClientDisconnected())
    passed, meaning = await task
    assert isinstance(passed, asyncio.CancelledError)
    assert isinstance(meaning, ClientDisconnected)


async def test_a_cancellation_that_nobody_gave_a_reason_for_stays_one() -> None:
    task = asyncio.current_task()
    assert task is not None
    error = asyncio.CancelledError()
    assert await CancelScope(task).leave(error) is error


async def test_a_wait_that_fails_otherwise_as_its_time_is_over_leaves_no_cancellation_behind() -> None:
    one = timer(Clock())

    async def reworded() -> None:
        one.check(3.0)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise EngineFailed("the library's own words for it") from None

    async def wait() -> int:
        with pytest.raises(EngineFailed), one:
            await reworded()
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        return task.cancelling()

    assert await asyncio.ensure_future(wait()) == 0


async def test_a_timer_that_has_ended_one_wait_judges_the_next() -> None:
    clock = Clock()
    one = timer(clock)
    for now in (0.0, 10.0):
        clock.now = now
        task = waiting(one)
        await asyncio.sleep(0)
        one.check(now + 3.0)
        with pytest.raises(UpstreamIdleTimeout):
            await task
