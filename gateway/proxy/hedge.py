"""A second engine asked beside one that is slow to begin; the first good answer wins (J. Dean and L. Barroso, "The Tail
at Scale", 2013, "hedged requests").
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from gateway.http.context import Attempt, RequestContext
from gateway.proxy import attempts
from gateway.services import Services
from gateway.upstream.models import Candidate

T = TypeVar("T")
Ask = Callable[[Attempt], Coroutine[Any, Any, T]]


async def hedged(
    attempt: Attempt,
    candidates: Sequence[Candidate],
    ask: Ask[T],
    context: RequestContext,
    services: Services,
    after: float,
) -> T:
    """Ask one deployment; if it has not begun `after` so many seconds, a second one beside it. 0: never."""
    if not after or len(candidates) == 1:
        return await ask(attempt)
    first = asyncio.create_task(ask(attempt))
    racing = {first: attempt}
    try:
        await asyncio.wait(racing, timeout=after)
        other = None if first.done() else _begin_other(candidates, context, services)
        if other is not None:
            racing[asyncio.create_task(ask(other))] = other
        return await _winner(racing, context, services)
    finally:
        await _stop(racing, context, services)


def _begin_other(candidates: Sequence[Candidate], context: RequestContext, services: Services) -> Attempt | None:
    """Begin a second attempt, if a deployment has room now and the budget allows it."""
    now = services.clock()
    untried = attempts.untried(candidates, context)
    ready = [candidate for candidate in untried if candidate.endpoint.up and candidate.may_be_asked(now)]
    if context.assignment is not None:  # two arms that race would have one time
        ready = [candidate for candidate in ready if candidate.endpoint in context.assignment.endpoints]
    candidate = services.admission.try_acquire(ready)
    if candidate is None:
        return None
    if not services.budget.spend():
        services.admission.release(candidate)
        return None
    attempt = attempts.begin(candidate, context, services)
    context.answering = None  # until one has won, nobody's name is told
    return attempt


async def _winner(racing: "dict[asyncio.Task[T], Attempt]", context: RequestContext, services: Services) -> T:
    """Return the first good answer and forget whose it was; raise what the last one failed of if there is none."""
    while True:
        done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            attempt = racing[task]
            context.answering = attempt
            failure = task.exception()
            if failure is None:
                del racing[task]
                return task.result()
            if len(racing) == 1:
                return task.result()  # raises
            del racing[task]
            attempts.finish(attempt, failure, services)


async def _stop(racing: "dict[asyncio.Task[Any], Attempt]", context: RequestContext, services: Services) -> None:
    """End those that have not won; if nobody has, as the request was cancelled, that is why."""
    for task in racing:
        task.cancel()
    for task, attempt in list(racing.items()):
        result: Any = (await asyncio.gather(task, return_exceptions=True))[0]
        if hasattr(result, "close"):
            result.close()
        failure = result if isinstance(result, BaseException) else asyncio.CancelledError()
        attempts.finish(attempt, context.scope.reason or failure, services)
