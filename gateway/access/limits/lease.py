"""How a request stands with its key's limits, once it was let in; and how it is told that it was not."""

from dataclasses import dataclass
from math import floor
from typing import Literal

from gateway.access.limits.headers import Headers, format_duration, rate_headers
from gateway.access.limits.quota import Quota
from gateway.http.errors import RateLimited

Reached = Literal["requests", "tokens", "in flight"]


@dataclass(slots=True, eq=False)
class RateLimitLease:
    """What a request holds. `at` is when it was let in; a limit that there is not, or that was not asked, is None.

    `lease` names its place in flight, and is None if it holds none.
    """

    key: str
    at: float
    requests: Quota | None = None
    tokens: Quota | None = None
    lease: str | None = None

    def headers(self, now: float) -> Headers:
        """Return OpenAI's x-ratelimit headers for the limits that there are."""
        return rate_headers(self.requests, self.tokens, now - self.at)


class RequestsLimited(RateLimited):
    """The key has no request left, or no place for one. The type is as OpenAI's."""

    type = "requests"


class TokensLimited(RateLimited):
    """The key has no token left. The type is as OpenAI's."""

    type = "tokens"


def refusal(reached: Reached, standing: RateLimitLease, places: int) -> RateLimited:
    """Return what a client is told of the limit that it reached, in OpenAI's words; `places` are the key's in all."""
    if reached == "requests" and standing.requests is not None:
        return _refused(RequestsLimited, "requests per min (RPM)", standing.requests, standing)
    if reached == "tokens" and standing.tokens is not None:
        return _refused(TokensLimited, "tokens per min (TPM)", standing.tokens, standing)
    said = f"Limit reached for this key on requests in flight: Limit {places}, Used {places}. "
    return RequestsLimited(said + "Please try again when one has ended.", headers=_headers(standing, 0.0))


def _refused(kind: type[RateLimited], what: str, quota: Quota, standing: RateLimitLease) -> RateLimited:
    said = f"Rate limit reached for this key on {what}: Limit {quota.limit}, Used {quota.used}. "
    return kind(said + f"Please try again in {format_duration(quota.wait)}.", headers=_headers(standing, quota.wait))


def _headers(standing: RateLimitLease, wait: float) -> dict[str, str]:
    """Return the headers of a refusal. Retry-After is past the wait, for at its very end one may just not fit yet."""
    headers = {name.decode(): value.decode() for name, value in standing.headers(standing.at)}
    return headers | {"retry-after": str(floor(wait + 0.001) + 1)}
