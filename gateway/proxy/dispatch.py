"""One deployment after the other, until one succeeds or a retry cannot help."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from gateway.http.context import Attempt, RequestContext, stay
from gateway.http.errors import RETRY_AFTER, Unavailable
from gateway.proxy import attempts
from gateway.proxy.hedge import hedged
from gateway.proxy.retry import wait
from gateway.services import Services
from gateway.upstream.models import Candidate

T = TypeVar("T")
Ask = Callable[[Attempt], Coroutine[Any, Any, T]]


async def dispatch(
    candidates: Sequence[Candidate], ask: Ask[T], context: RequestContext, services: Services, hedge_after: float = 0.0
) -> T:
    """Ask the deployments in order; return the first good answer. Raises the last one's PointsmanError.

    Where one has not begun after `hedge_after` seconds, a second one is asked beside it; 0: never. A client that had
    its 200 by a keep-alive has not been told of an engine: any of them may still answer.
    """
    services.budget.earn()
    context.can_move = partial(_is_elsewhere, candidates, context, services)
    following = candidates
    while True:
        attempt = await attempts.acquire(following, context, services)
        try:
            _check_circuit(attempt)
            answer = await hedged(attempt, candidates, ask, context, services, hedge_after)
        except (Exception, asyncio.CancelledError) as error:
            failure = context.scope.explain(error)
            attempts.finish(attempt, failure, services)
            following = _next(candidates, context, services.clock())
            pause = _pause(failure, following, context, services)
            if pause is None:
                raise
        else:
            context.can_move = stay
            attempts.resolve_probe(context.answering or attempt, services)
            return answer
        context.answering = None
        if pause:
            await asyncio.sleep(pause)
            following = _next(candidates, context, services.clock()) or candidates


def _next(candidates: Sequence[Candidate], context: RequestContext, now: float) -> Sequence[Candidate]:
    """Return the deployments to be asked next: the untried ones, or all again; none whose circuit is open."""
    allowed = [candidate for candidate in candidates if candidate.endpoint.breaker.allows(now)]
    allowed.sort(key=lambda candidate: not candidate.endpoint.up)  # some may have gone down since they were chosen
    return attempts.untried(allowed, context) or allowed


def _is_elsewhere(candidates: Sequence[Candidate], context: RequestContext, services: Services) -> bool:
    """Whether the request could be tried once more, at a deployment that is well."""
    now, tries = services.clock(), services.config.retries.attempts
    others = attempts.untried(candidates, context)
    return len(context.attempts) < tries and any(candidate.endpoint.ready(now) for candidate in others)


def _check_circuit(attempt: Attempt) -> None:
    """See that the circuit has not opened since the permit was waited for. Raises Unavailable."""
    endpoint = attempt.candidate.endpoint
    if endpoint.breaker.open_until and not attempt.half_open_probe:
        raise Unavailable(f"The engine {endpoint.name} has failed too often.", headers={"retry-after": RETRY_AFTER})


def _pause(
    failure: BaseException, following: Sequence[Candidate], context: RequestContext, services: Services
) -> float | None:
    """Return how many seconds to wait before the next attempt, or None if there is to be none."""
    if context.scope.reason is not None or not following:
        return None
    elsewhere = all(attempt.candidate is not following[0] for attempt in context.attempts)
    rules = services.config.retries
    return wait(failure, len(context.attempts), elsewhere, rules, services.budget, services.random)
