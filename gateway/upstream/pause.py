"""Retry-After: how long an engine that has no room asks not to be asked (RFC 9110, 10.2.3)."""

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

from msgspec import Struct

from gateway.http.errors import PointsmanError, Unavailable

MOST = 60.0  # seconds: an engine that asks for more is asked again all the same


class Pause(Struct, frozen=True):
    """Until when a deployment is not to be asked, by the monotonic clock, and what a client is told of it."""

    until: float
    refusal: type[PointsmanError]

    def error(self, now: float) -> PointsmanError:
        """Return the error for a request that comes meanwhile, with the time that is left."""
        left = header(self.until - now)
        return self.refusal(f"The engine asked for no requests for another {left} s.", headers={"retry-after": left})


NO_PAUSE = Pause(0.0, Unavailable)


def seconds(retry_after: str, wall: float) -> float:
    """Return a Retry-After header in seconds, at most `MOST`; 0 if it cannot be read or is over. `wall`: Unix time."""
    try:
        given = float(retry_after)
    except ValueError:
        given = _until(retry_after) - wall
    return min(max(given, 0.0), MOST) if math.isfinite(given) else 0.0


def _until(date: str) -> float:
    """Return an HTTP date, in any of its three forms (RFC 9110, 5.6.7), as Unix time; 0 if it is none."""
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def header(left: float) -> str:
    """Return the value of a Retry-After header for so many seconds."""
    return str(max(1, math.ceil(left)))
