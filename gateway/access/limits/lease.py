"""What a request holds of its key's limits, once it was let in; and how it is told that it was not."""

from dataclasses import dataclass
from math import floor
from typing import Literal

from gateway.access.limits.headers import Headers, format_duration, rate_headers
from gateway.access.limits.quota import Quota
from gateway.http.errors import RateLimited

Reached = Literal["requests", "tokens", "in flight"]


@dataclass(slots=True, eq=False)
class RateLimitLease:
    """What a request holds. `account` is whose counters it is counted in; `at` is when it was let in, in seconds of the
    monotonic clock.

    The quotas are of the limits as they were then, None where there is none or it was not asked. `permit` names what
    it holds of the requests in flight, and is None if that is nothing.
    """

    account: str
    at: float
    requests: Quota | None = None
    tokens: Quota | None = None
    permit: str | None = None

    def headers(self, now: float) -> Headers:
        """Return OpenAI's x-ratelimit headers for the limits that there are."""
        return rate_headers(self.requests, self.tokens, now - self.at)


class RequestsLimited(RateLimited):
    """The key has no request left, or too many in flight. The type is as OpenAI's."""

    type = "requests"


class TokensLimited(RateLimited):
    """The key has no token left. The type is as OpenAI's."""

    type = "tokens"


def refusal(reached: Reached, lease: RateLimitLease, max_in_flight: int) -> RateLimited:
    """Return what a client is told of the limit that it reached, in OpenAI's words."""
    if reached == "requests" and lease.requests is not None:
        return _refused(RequestsLimited, "requests per min (RPM)", lease.requests, lease)
    if reached == "tokens" and lease.tokens is not None:
        return _refused(TokensLimited, "tokens per min (TPM)", lease.tokens, lease)
    message = f"Limit reached for this key on requests in flight: Limit {max_in_flight}, Used {max_in_flight}. "
    return RequestsLimited(message + "Please try again when one has ended.", headers=_headers(lease, 0.0))


def _refused(kind: type[RateLimited], what: str, quota: Quota, lease: RateLimitLease) -> RateLimited:
    message = f"Rate limit reached for this key on {what}: Limit {quota.limit}, Used {quota.used}. "
    return kind(message + f"Please try again in {format_duration(quota.wait)}.", headers=_headers(lease, quota.wait))


def _headers(lease: RateLimitLease, wait: float) -> dict[str, str]:
    """Return the headers of a refusal. Retry-After is past the wait, for at its very end one may just not fit yet."""
    headers = {name.decode(): value.decode() for name, value in lease.headers(lease.at)}
    return headers | {"retry-after": str(floor(wait + 0.001) + 1)}
