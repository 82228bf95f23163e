"""What goes on beside a request ends by itself, and takes its own end only."""

import asyncio

import pytest

from gateway.http.cancel import CancelScope
from gateway.http.context import RequestContext, Timing
from gateway.http.errors import EngineTimeout
from gateway.proxy.subrequest import SubRequest
from gateway.services import Services, make
from tests.support.harness import configured


def services() -> Services:
    return make(configured("http://127.0.0.1:9"))


def parent() -> RequestContext:
    task = asyncio.current_task()
    assert task is not None
    return RequestContext("x", "POST", "/generate", b"/generate", {}, Timing(0.0), CancelScope(task))


async def test_a_sub_request_that_is_cut_short_as_it_ends_does_not_cancel_its_request() -> None:
    """Its deadline may come at the very moment of its answer: then the time is over, and nothing else is."""
    above, made = parent(), services()
    with pytest.raises(EngineTimeout):
        async with SubRequest("/tokenize", above, made) as context:
            context.scope.cancel(EngineTimeout("late"))  # and no wait in which that could arrive
    await asyncio.sleep(0)  # where a cancellation that was left behind would
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert made.sweep.open == set()


async def test_a_sub_request_ends_with_its_request_and_not_behind_it() -> None:
    above, made = parent(), services()
    above.timing.deadline = made.clock() + 5.0
    async with SubRequest("/tokenize", above, made, limit=100.0) as context:
        assert context.timing.deadline == above.timing.deadline
    async with SubRequest("/tokenize", above, made, limit=1.0) as context:
        assert context.timing.deadline < above.timing.deadline
