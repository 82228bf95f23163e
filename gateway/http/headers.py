"""The answer's headers that say who answered, from where, and what the gateway itself took."""

from gateway.experiments.assignment import ARM_HEADER
from gateway.http.context import RequestContext

Headers = list[tuple[bytes, bytes]]


def answer_headers(context: RequestContext, now: float) -> Headers:
    """Return the headers of an answer that goes out now, by the monotonic clock."""
    return early_headers(context, now) + _of_source(context)


def early_headers(context: RequestContext, now: float) -> Headers:
    """Return the headers of an answer of which it is not known yet whose it will be."""
    headers = [(b"x-request-id", context.request_id.encode())]
    if context.closing:
        headers.append((b"connection", b"close"))
    if context.rate_limit is not None:
        headers += context.rate_limit.headers(now)
    if context.cache:
        headers.append((b"x-pointsman-cache", context.cache.encode()))
    assignment = context.assignment
    if assignment is not None and assignment.arm is not None:
        headers.append((ARM_HEADER, assignment.arm.encode()))
    return headers


def _of_source(context: RequestContext) -> Headers:
    headers = []
    if context.cache in ("hit", "coalesced"):
        headers.append((b"x-pointsman-engine", b"cache"))
    if context.cache == "hit":
        headers.append((b"age", b"%d" % context.age))
    attempt = context.answering
    if attempt is not None:
        headers += attempt.candidate.endpoint.answer_headers
        headers.append((b"x-pointsman-overhead-ms", b"%.3f" % (context.timing.overhead * 1000)))
        if attempt.adapted:
            headers.append((b"x-pointsman-adapted", ",".join(attempt.adapted).encode()))
    return headers
