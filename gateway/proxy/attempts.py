"""An attempt: the permit that it takes from admission and gives back, and what the circuit breaker is told."""

import logging
from collections.abc import Iterator, Sequence

from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import Blame, CredentialsRefused, PointsmanError, blame
from gateway.proxy.verdict import Try, agreed, is_engines
from gateway.services import Services
from gateway.upstream import pause
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate
from gateway.upstream.pause import Pause

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
    endpoint.last_attempt_at = now
    probes = candidate.breaker.allows(now) and candidate.breaker.began(now)
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
    if failure is None:
        _record_success(attempt, now)
    else:
        _record_failure(attempt, failure, now)
        _keep_away(attempt.candidate.endpoint, failure, services)
    services.admission.release(attempt.candidate)


def settle(context: RequestContext, others: bool, services: Services) -> None:
    """Decide whose fault the failures are that were held: no other attempt can say more about them.

    `others` says whether there was another deployment to compare with.
    """
    undecided = [attempt for attempt in context.attempts if attempt.undecided]
    if not undecided:
        return
    alike, now = agreed(tries(context)), services.clock()
    for attempt in undecided:
        attempt.undecided = False
        endpoint = attempt.candidate.endpoint
        if is_engines(attempt.failure, alike, others):
            _strike(endpoint, endpoint.breaker.record_failure(False, now), attempt.failure, now)
        else:
            request = hash(context.body or context.id)
            _strike(endpoint, endpoint.breaker.record_excused(request, now), attempt.failure, now)


def tries(context: RequestContext) -> Iterator[Try]:
    """Yield where the request has been tried, and of what it failed there."""
    return ((attempt.candidate.endpoint, attempt.failure) for attempt in context.attempts)


def release_all(context: RequestContext, services: Services) -> None:
    """Give back all permits that a request still holds."""
    for attempt in context.attempts:
        finish(attempt, context.failure, services)
    settle(context, True, services)
    context.body = b""  # it may be large, and the account is kept until it has been logged
    if context.admitted:
        context.admitted = False
        services.admission.leave()


def _record_success(attempt: Attempt, now: float) -> None:
    endpoint = attempt.candidate.endpoint
    closed = [one.record_success(attempt.half_open_probe, now) for one in (endpoint.breaker, endpoint.connection)]
    endpoint.credentials_refused = False
    if any(closed):
        endpoint.mark_recovered(now)


def _record_failure(attempt: Attempt, failure: BaseException, now: float) -> None:
    """Tell the breakers of a failure, or hold it for the verdict. A half-open probe decides at once."""
    endpoint, probe = attempt.candidate.endpoint, attempt.half_open_probe
    whose = blame(failure)
    if whose is Blame.CONNECTION:
        opened = [one.record_failure(probe, now) for one in (endpoint.breaker, endpoint.connection)]
        _strike(endpoint, any(opened), failure, now)
    elif whose is not Blame.ANSWER:
        attempt.candidate.breaker.record_ignored(probe)
    elif attempt.candidate.only:
        if probe:  # the connection works, and more than that is not asked of it
            _record_success(attempt, now)
    elif probe:
        _strike(endpoint, endpoint.breaker.record_failure(probe, now), failure, now)
    else:
        attempt.undecided = True


def _strike(endpoint: Endpoint, opened: bool, failure: BaseException | None, now: float) -> None:
    if opened:
        log.warning("%s: circuit open for %.1f s: %s", endpoint.name, endpoint.breaker.open_until - now, failure)


def _keep_away(endpoint: Endpoint, failure: BaseException, services: Services) -> None:
    """Note what an engine has said of later requests: that it has no room for so long, or does not know the gateway."""
    if isinstance(failure, CredentialsRefused):
        endpoint.refuse_credentials()
    elif isinstance(failure, PointsmanError) and failure.retry_after:
        left = pause.seconds(failure.retry_after, services.wall())
        until = services.clock() + left
        if until > endpoint.pause.until and left:
            endpoint.pause = Pause(until, type(failure))
        failure.headers["retry-after"] = pause.header(left)
