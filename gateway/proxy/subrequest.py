"""What goes on beside a request, on its behalf: `/info`, `/tokenize`, `/detokenize`, an answer that others share.

A sub-request has a context of its own: its own deadline, its own permits at the engines, its own attempts, each of
which has its span. It is swept for deadlines and silence like any request, and is none in the metrics and the log.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from gateway.http.cancel import CancelScope
from gateway.http.context import NEVER, Attempt, RequestContext, Timing
from gateway.proxy import attempts
from gateway.proxy.dispatch import dispatch
from gateway.proxy.engine_client import EngineClient
from gateway.services import Services
from gateway.upstream.models import Candidate

T = TypeVar("T")
Question = Callable[[EngineClient], Coroutine[Any, Any, T]]

ANSWER_TIMEOUT = 60.0  # seconds, for a question that a request waits for


class SubRequest:
    """The life of one: from here to `close`, or as long as `async with` lasts, in the task that makes it.

    It asks for `path`, and ends at its parent's deadline, after `limit` seconds at the latest.
    """

    def __init__(self, path: str, parent: RequestContext, services: Services, limit: float = NEVER) -> None:
        task = asyncio.current_task()
        assert task is not None, "a sub-request runs in a task"
        now = services.clock()
        timing = Timing(now, min(parent.timing.deadline, now + limit))
        self.context = parent.fork(path, CancelScope(task), timing)
        self._parent = parent
        self._services = services
        services.sweep.open.add(self.context)

    async def __aenter__(self) -> RequestContext:
        if self._parent.trace.notes is not None:  # its attempts will have spans
            self._parent.beside.append(self.context)
        return self.context

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        ended = error or self.context.scope.reason  # which may have come in the moment of the answer
        meaning = None if ended is None else await self.context.scope.leave(ended)
        self.close(meaning)
        if meaning is not None and meaning is not error:
            raise meaning from error

    def close(self, failure: BaseException | None) -> None:
        """Note what it came to, and give back what it holds."""
        self.context.failure = failure
        attempts.release_all(self.context, self._services)
        self._services.sweep.open.discard(self.context)
        self.context.drop_references()


async def ask_beside(
    candidates: Sequence[Candidate],
    path: str,
    question: Question[T],
    parent: RequestContext,
    services: Services,
    limit: float = ANSWER_TIMEOUT,
) -> T:
    """Put a question to the deployments, with retries, failover and a place in the queue; return the answer.

    Raises PointsmanError; an EngineTimeout after `limit` seconds.
    """
    async with SubRequest(path, parent, services, limit) as context:
        return await dispatch(
            candidates, lambda attempt: question(EngineClient(attempt, context, services, NEVER)), context, services
        )


async def ask_within(
    attempt: Attempt,
    path: str,
    question: Question[T],
    parent: RequestContext,
    services: Services,
    limit: float = ANSWER_TIMEOUT,
) -> T:
    """Put a question about an attempt to its engine; return the answer. Raises as `ask_beside` does.

    It is counted there, and waits for no room: the attempt, which waits for the answer, holds what room there is.
    """
    async with SubRequest(path, parent, services, limit) as context:
        context.can_fail_over = parent.can_fail_over
        services.admission.join(attempt.candidate)
        own = attempts.begin(attempt.candidate, context, services)
        return await question(EngineClient(own, context, services, NEVER))
