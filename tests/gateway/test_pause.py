"""Retry-After as engines write it (RFC 9110, 10.2.3)."""

import pytest

from gateway.http.errors import RateLimited, Unavailable
from gateway.upstream.pause import MOST, NO_PAUSE, Pause, header, seconds

WALL = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT

WRITTEN: dict[str, float] = {
    "20": 20.0,
    " 20 ": 20.0,
    "1.5": 1.5,
    "0": 0.0,
    "-3": 0.0,
    "61": MOST,
    "86400": MOST,
    "Sun, 06 Nov 1994 08:49:47 GMT": 10.0,
    "Sunday, 06-Nov-94 08:49:47 GMT": 10.0,  # RFC 850
    "Sun Nov  6 08:49:47 1994": 10.0,  # asctime
    "Sun, 06 Nov 1994 09:49:37 GMT": MOST,
    "Sun, 06 Nov 1994 08:49:27 GMT": 0.0,  # over
    "soon": 0.0,
    "": 0.0,
    "nan": 0.0,
    "inf": 0.0,
}


@pytest.mark.parametrize("written", WRITTEN)
def test_it_is_a_number_of_seconds_or_a_date_and_a_minute_at_most(written: str) -> None:
    assert seconds(written, WALL) == WRITTEN[written]


@pytest.mark.parametrize(("left", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (60.0, "60")])
def test_a_client_is_told_whole_seconds_and_one_at_least(left: float, told: str) -> None:
    assert header(left) == told


def test_who_comes_meanwhile_is_told_what_the_engine_said_and_the_time_that_is_left() -> None:
    error = Pause(120.0, RateLimited).error(100.5)
    assert (type(error), error.headers) == (RateLimited, {"retry-after": "20"})
    assert (NO_PAUSE.until, NO_PAUSE.refusal) == (0.0, Unavailable)
