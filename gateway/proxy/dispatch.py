"""Step 7c: one deployment after the other, until one answers or nothing is to be gained by asking more.

An attempt holds its place at the deployment until it ends: when it fails, when another has won, or when the request
is over. How it ended is told to the deployment's breaker, once.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from gateway.http.context import NEVER, Attempt, RequestContext
from gateway.http.errors import RETRY_AFTER, EngineFailed, ModelFailed, Unavailable, UpstreamIdleTimeout
from gateway.proxy.retry import wait
from gateway.services import Services
from gateway.upstream.connection import UpstreamConnectError
from gateway.upstream.models import Candidate

T = TypeVar("T")
Ask = Callable[[Attempt], Coroutine[Any, Any, T]]

THE_ENGINES_DOING = (EngineFailed, UpstreamIdleTimeout, UpstreamConnectError)

log = logging.getLogger("pointsman")


async def first_good(
    candidates: Sequence[Candidate], ask: Ask[T], context: RequestContext, services: Services, patience: float = NEVER
) -> T:
    """Ask the deployments in order; return the first good answer. Raises the last one's PointsmanError.

    `patience` is how long each may be silent, in seconds. Once the client has its 200, whose headers name the engine,
    there is no other.
    """
    services.budget.earn()
    while True:
        attempt = await _begin(candidates, context, services)
        context.patience = patience
        try:
            _check_open(attempt)
            answer = await _asked(attempt, candidates, ask, context, services)
        except (Exception, asyncio.CancelledError) as error:
            failure = context.ended_by(error)
            end(attempt, failure, services)
            pause = _pause(failure, candidates, context, services)
            if pause is None:
                raise failure from error
        else:
            _settle(context.answering or attempt, services)
            return answer
        context.answering = context.stopped = None
        context.patience = NEVER
        if pause:
            await asyncio.sleep(pause)


def end(attempt: Attempt, failure: BaseException | None, services: Services) -> None:
    """Note how an attempt ended, and give its place back; nothing more happens the second time."""
    if attempt.ended:
        return
    now = attempt.ended = services.clock()
    attempt.failure = failure
    endpoint = attempt.candidate.endpoint
    if failure is None:
        _note_success(attempt, now)
    elif not isinstance(failure, THE_ENGINES_DOING) or isinstance(failure, ModelFailed):
        endpoint.breaker.record_ignored(attempt.half_open_probe)
    elif endpoint.breaker.failed(attempt.half_open_probe, now):
        log.warning("%s is left alone for %.1f s: %s", endpoint.name, endpoint.breaker.open_until - now, failure)
    services.admission.give_back(attempt.candidate)


def finish(context: RequestContext, services: Services) -> None:
    """Give back all that a request still holds."""
    if context.admitted:
        context.admitted = False
        for attempt in context.attempts:
            end(attempt, context.failure, services)
        services.admission.leave()


def _settle(attempt: Attempt, services: Services) -> None:
    """Let a half-open probe decide at the first good event: the rest of a stream may take long."""
    if attempt.half_open_probe:
        _note_success(attempt, services.clock())
        attempt.half_open_probe = False


def _note_success(attempt: Attempt, now: float) -> None:
    endpoint = attempt.candidate.endpoint
    if endpoint.breaker.succeeded(attempt.half_open_probe, now):
        endpoint.returned(now)


async def _begin(candidates: Sequence[Candidate], context: RequestContext, services: Services) -> Attempt:
    new = not context.attempts
    if not new:
        candidates = _next(candidates, context, services.clock()) or candidates
    candidate = await services.admission.take(candidates, context.tier, new)
    context.admitted = True
    return _at(candidate, context, services)


def _at(candidate: Candidate, context: RequestContext, services: Services) -> Attempt:
    now = context.heard = services.clock()
    endpoint = candidate.endpoint
    if not context.attempts:
        context.mark_stage("queue", now)
    attempt = Attempt(candidate, now, endpoint.breaker.allows(now) and endpoint.begins(now))
    context.attempts.append(attempt)
    context.answering = attempt
    return attempt


def _left(candidates: Sequence[Candidate], context: RequestContext) -> Sequence[Candidate]:
    """Return the deployments that have not been asked yet."""
    if not context.attempts:
        return candidates
    tried = {id(attempt.candidate) for attempt in context.attempts}
    return [candidate for candidate in candidates if id(candidate) not in tried]


def _next(candidates: Sequence[Candidate], context: RequestContext, now: float) -> Sequence[Candidate]:
    """Return the deployments to be asked next: those that have not been, or all again; none that is left alone."""
    allowed = [candidate for candidate in candidates if candidate.endpoint.breaker.allows(now)]
    return _left(allowed, context) or allowed


def _check_open(attempt: Attempt) -> None:
    """See that the deployment is not left alone since its place was waited for. Raises Unavailable."""
    endpoint = attempt.candidate.endpoint
    if endpoint.breaker.open_until and not attempt.half_open_probe:
        raise Unavailable(f"The engine {endpoint.name} has failed too often.", headers={"retry-after": RETRY_AFTER})


def _pause(
    failure: BaseException, candidates: Sequence[Candidate], context: RequestContext, services: Services
) -> float | None:
    """Return how long to wait before the next attempt, or None if there is to be none."""
    over = context.stopped is not None and not isinstance(context.stopped, UpstreamIdleTimeout)
    following = _next(candidates, context, services.clock())
    if over or context.status or not following:
        return None
    elsewhere = all(attempt.candidate is not following[0] for attempt in context.attempts)
    rules = services.config.retries
    return wait(failure, len(context.attempts), elsewhere, rules, services.budget, services.random)


# --- hedging --------------------------------------------------------------------------------------------------


async def _asked(
    attempt: Attempt, candidates: Sequence[Candidate], ask: Ask[T], context: RequestContext, services: Services
) -> T:
    """Ask one deployment; where the model is hedged and it is slow to begin, a second beside it."""
    after = context.hedge_after
    if not after or len(candidates) == 1:
        return await ask(attempt)
    first = asyncio.create_task(ask(attempt))
    racing = {first: attempt}
    try:
        await asyncio.wait(racing, timeout=after)
        other = None if first.done() or context.status else _another(candidates, context, services)
        if other is not None:
            racing[asyncio.create_task(ask(other))] = other
        return await _winner(racing, context, services)
    finally:
        await _stop(racing, context, services)


def _another(candidates: Sequence[Candidate], context: RequestContext, services: Services) -> Attempt | None:
    """Begin a second attempt, if a deployment has room now and the budget allows it."""
    left = [candidate for candidate in _left(candidates, context) if candidate.endpoint.ready(services.clock())]
    candidate = services.admission.take_now(left)
    if candidate is None:
        return None
    if not services.budget.spend():
        services.admission.give_back(candidate)
        return None
    attempt = _at(candidate, context, services)
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
            end(attempt, failure, services)


async def _stop(racing: "dict[asyncio.Task[Any], Attempt]", context: RequestContext, services: Services) -> None:
    """End those that have not won; if nobody has, as the request was stopped, that is why."""
    for task in racing:
        task.cancel()
    for task, attempt in list(racing.items()):
        result: Any = (await asyncio.gather(task, return_exceptions=True))[0]
        if hasattr(result, "close"):
            result.close()
        failure = result if isinstance(result, BaseException) else asyncio.CancelledError()
        end(attempt, context.stopped or failure, services)
