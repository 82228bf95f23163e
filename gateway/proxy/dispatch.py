"""One deployment after the other, until one succeeds or a retry cannot help."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from gateway.http.context import Attempt, RequestContext, no_failover
from gateway.http.errors import RETRY_AFTER, PointsmanError, Unavailable
from gateway.proxy import attempts
from gateway.proxy.hedge import hedged
from gateway.proxy.retry import wait
from gateway.proxy.verdict import agreed
from gateway.services import Services
from gateway.upstream.models import Candidate

T = TypeVar("T")
Ask = Callable[[Attempt], Coroutine[Any, Any, T]]

RETRY_AFTER_HEADER = "retry-after"


async def dispatch(
    candidates: Sequence[Candidate], ask: Ask[T], context: RequestContext, services: Services, hedge_after: float = 0.0
) -> T:
    """Ask the deployments in order; return the first good answer. Raises the last one's PointsmanError.

    Where one has not begun after `hedge_after` seconds, a second one is asked beside it; 0: never. A client that had
    its 200 by a keep-alive has not been told of an engine: any of them may still answer.
    """
    services.budget.earn()
    context.can_fail_over = partial(_is_elsewhere, candidates, context, services)
    following = candidates
    while True:
        attempt = await attempts.acquire(following, context, services)
        try:
            _check_allowed(attempt, services.clock())
            answer = await hedged(attempt, candidates, ask, context, services, hedge_after)
        except (Exception, asyncio.CancelledError) as error:
            failure = context.scope.explain(error)
            attempts.finish(attempt, failure, services)
            following = _next(candidates, context, services.clock())
            pause = _pause(failure, following, context, services)
            if pause is None:
                _give_up(failure, following, context, services)
                raise
        else:
            context.can_fail_over = no_failover
            attempts.resolve_probe(context.answering or attempt, services)
            attempts.settle(context, True, services)
            return answer
        context.answering = None
        if pause:
            await asyncio.sleep(pause)
            following = _next(candidates, context, services.clock()) or candidates


def _next(candidates: Sequence[Candidate], context: RequestContext, now: float) -> Sequence[Candidate]:
    """Return the deployments to be asked next: the untried ones, or all again; none that is to be left alone."""
    allowed = [candidate for candidate in candidates if candidate.may_be_asked(now)]
    allowed.sort(key=lambda candidate: not candidate.endpoint.up)  # some may have gone down since they were chosen
    return attempts.untried(allowed, context) or allowed


def _is_elsewhere(candidates: Sequence[Candidate], context: RequestContext, services: Services) -> bool:
    """Whether the request could be tried once more, at a deployment that is well."""
    now, tries = services.clock(), services.config.retries.attempts
    others = attempts.untried(candidates, context)
    return len(context.attempts) < tries and any(one.endpoint.up and one.may_be_asked(now) for one in others)


def _check_allowed(attempt: Attempt, now: float) -> None:
    """See that the deployment may be asked still, as the permit may have been waited for.

    Raises Unavailable, or what the engine has said with a Retry-After.
    """
    candidate = attempt.candidate
    if candidate.breaker.open_until and not attempt.half_open_probe:
        name = candidate.endpoint.name
        raise Unavailable(f"The engine {name} has failed too often.", headers={"retry-after": RETRY_AFTER})
    if candidate.endpoint.pause.until > now:
        raise candidate.endpoint.pause.error(now)


def _pause(
    failure: BaseException, following: Sequence[Candidate], context: RequestContext, services: Services
) -> float | None:
    """Return how many seconds to wait before the next attempt, or None if there is to be none."""
    if context.scope.reason is not None or not following:
        return None
    if agreed(attempts.tries(context)) is not None:  # what two say alike, a third would say
        return None
    elsewhere = all(attempt.candidate is not following[0] for attempt in context.attempts)
    rules = services.config.retries
    return wait(failure, len(context.attempts), elsewhere, rules, services.budget, services.random)


def _give_up(
    failure: BaseException, following: Sequence[Candidate], context: RequestContext, services: Services
) -> None:
    """Settle whose fault it was, and tell a client that is to come back the shortest time of those that refused."""
    asked = [attempt.candidate for attempt in context.attempts]
    others = len({candidate.endpoint for candidate in (*asked, *following)}) > 1
    attempts.settle(context, others, services)
    if isinstance(failure, PointsmanError) and RETRY_AFTER_HEADER in failure.headers:
        waits = [_retry_after(attempt.failure) for attempt in context.attempts]
        failure.headers[RETRY_AFTER_HEADER] = min((wait for wait in waits if wait), key=int)


def _retry_after(failure: BaseException | None) -> str:
    return failure.headers.get(RETRY_AFTER_HEADER, "") if isinstance(failure, PointsmanError) else ""
