"""Quotas in the headers that OpenAI sends (OpenAI API guide, "Rate limits", "Rate limits in headers")."""

from math import ceil

from gateway.access.limits.quota import Quota

Headers = list[tuple[bytes, bytes]]


def rate_headers(requests: Quota | None, tokens: Quota | None, passed: float) -> Headers:
    """Return the headers of the limits that there are, which were looked at `passed` seconds ago."""
    headers: Headers = []
    if requests is not None:
        headers += [
            (b"x-ratelimit-limit-requests", b"%d" % requests.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % requests.remaining),
            (b"x-ratelimit-reset-requests", format_duration(requests.reset - passed).encode()),
        ]
    if tokens is not None:
        headers += [
            (b"x-ratelimit-limit-tokens", b"%d" % tokens.limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % tokens.remaining),
            (b"x-ratelimit-reset-tokens", format_duration(tokens.reset - passed).encode()),
        ]
    return headers


def format_duration(seconds: float) -> str:
    """Return a duration as OpenAI spells it, to the millisecond: "0s", "12ms", "1.5s", "6m0s", "1h0m0s"."""
    ms = max(0, ceil(seconds * 1000))
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
