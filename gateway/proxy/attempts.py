"""An attempt: the permit that it takes from admission and gives back, and what the circuit breaker is told."""

import logging
from collections.abc import Sequence

from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import blames_engine
from gateway.services import Services
from gateway.upstream.models import Candidate

log = logging.getLogger("pointsman")


async def acquire(candidates: Sequence[Candidate], context: RequestContext, services: Services) -> Attempt:
    """Wait for a permit at the first of the candidates that has one; return the attempt that holds it.

    A request's first attempt takes a permit of the worker's, too. Raises Unavailable if there is no room in time.
    """
    candidate = await services.admission.acquire(candidates, context.tier, not context.admitted)
    context.admitted = True
    return begin(candidate, context, services)


def begin(candidate: Candidate, context: RequestContext, services: Services) -> Attempt:
    """Return the attempt at a deployment where the request has its permit; it is the one to be named to the client."""
    now = services.clock()
    endpoint = candidate.endpoint
    if not context.attempts:
        context.timing.mark_stage("queue", now)
    probes = endpoint.breaker.allows(now) and endpoint.begin_attempt(now)
    attempt = Attempt(candidate, next(context.attempt_numbers), now, probes)
    context.attempts.append(attempt)
    context.answering = attempt
    return attempt


def untried(candidates: Sequence[Candidate], context: RequestContext) -> Sequence[Candidate]:
    """Return the deployments that have not been asked yet."""
    if not context.attempts:
        return candidates
    tried = {id(attempt.candidate) for attempt in context.attempts}
    return [candidate for candidate in candidates if id(candidate) not in tried]


def resolve_probe(attempt: Attempt, services: Services) -> None:
    """Note an answer that has begun well; a half-open probe is decided then: the rest of a stream may take long."""
    attempt.candidate.endpoint.heard(services.clock())
    if attempt.half_open_probe:
        _record_success(attempt, services.clock())
        attempt.half_open_probe = False


def finish(attempt: Attempt, failure: BaseException | None, services: Services) -> None:
    """Note how an attempt ended, and give its permit back; nothing more happens the second time."""
    if attempt.ended:
        return
    now = attempt.ended = services.clock()
    attempt.failure = failure
    endpoint = attempt.candidate.endpoint
    breaker = endpoint.breaker
    if failure is None:
        _record_success(attempt, now)
    elif not blames_engine(failure):
        breaker.record_ignored(attempt.half_open_probe)
    elif breaker.record_failure(attempt.half_open_probe, now):
        log.warning("%s: circuit open for %.1f s: %s", endpoint.name, breaker.open_until - now, failure)
    services.admission.release(attempt.candidate)


def release_all(context: RequestContext, services: Services) -> None:
    """Give back all permits that a request still holds."""
    for attempt in context.attempts:
        finish(attempt, context.failure, services)
    if context.admitted:
        context.admitted = False
        services.admission.leave()


def _record_success(attempt: Attempt, now: float) -> None:
    endpoint = attempt.candidate.endpoint
    if endpoint.breaker.record_success(attempt.half_open_probe, now):
        endpoint.mark_recovered(now)
