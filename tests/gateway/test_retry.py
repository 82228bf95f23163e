"""Whether a request is tried once more, after how long, and that retries cannot multiply an outage."""

from random import Random

import pytest

from gateway import config
from gateway.http.errors import (
    ClientDisconnected,
    ContextExceeded,
    CredentialsRefused,
    EngineFailed,
    EngineTimeout,
    Internal,
    InvalidRequest,
    NotFound,
    NotImplementedByEngine,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamConnectError,
    UpstreamIdleTimeout,
)
from gateway.proxy.retry import MAX_SAVED, Budget, wait

RULES = config.RetriesConfig(attempts=3, backoff=0.05)
CAUSES: list[type[Exception]] = [UpstreamConnectError, Unavailable, RateLimited, EngineFailed]
NO_CAUSES = [InvalidRequest, ContextExceeded, Unauthorized, Internal, EngineTimeout, ClientDisconnected, ValueError]


def empty() -> Budget:
    budget = Budget(0.2)
    while budget.spend():
        pass
    return budget


def saved(budget: Budget) -> int:
    """Count what the budget holds, by spending it."""
    count = 0
    while budget.spend():
        count += 1
    return count


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize(
    ("number", "elsewhere", "rich", "most"),
    [
        (1, True, True, 0.0),
        (1, True, False, 0.0),  # the first try elsewhere is free
        (1, False, True, 0.05),
        (1, False, False, None),
        (2, True, True, 0.1),
        (2, True, False, None),
        (2, False, True, 0.1),
        (2, False, False, None),
        (3, True, True, None),  # no more attempts
        (4, True, True, None),
    ],
)
def test_a_failure_that_another_try_may_mend_is_tried_again_within_attempts_and_budget(
    cause: type[Exception], number: int, elsewhere: bool, rich: bool, most: float | None
) -> None:
    budget = Budget(0.2) if rich else empty()
    pause = wait(cause("x"), number, elsewhere, RULES, budget, Random(1))
    if most is None or pause is None:
        assert pause is most
    else:
        assert 0.0 <= pause <= most
    spent = most is not None and not (number == 1 and elsewhere)
    assert saved(budget) == (MAX_SAVED if rich else 0) - spent


@pytest.mark.parametrize("cause", NO_CAUSES)
@pytest.mark.parametrize("elsewhere", [True, False])
def test_what_another_try_cannot_mend_is_not_tried_again(cause: type[Exception], elsewhere: bool) -> None:
    budget = Budget(0.2)
    assert wait(cause("x"), 1, elsewhere, RULES, budget, Random(1)) is None
    assert saved(budget) == MAX_SAVED


@pytest.mark.parametrize("kind", [UpstreamIdleTimeout, CredentialsRefused, NotFound, NotImplementedByEngine])
def test_silence_and_what_one_engine_cannot_do_is_tried_elsewhere_and_not_there_again(kind: type[Exception]) -> None:
    assert wait(kind("x"), 1, True, RULES, empty(), Random(1)) == 0.0
    assert wait(kind("x"), 1, False, RULES, Budget(0.2), Random(1)) is None


def test_with_one_attempt_in_all_there_is_no_second() -> None:
    rules = config.RetriesConfig(attempts=1)
    assert wait(UpstreamConnectError("x"), 1, True, rules, Budget(0.2), Random(1)) is None


@pytest.mark.parametrize(("number", "most"), [(1, 0.05), (2, 0.1), (3, 0.2), (4, 0.4)])
def test_the_wait_is_drawn_evenly_below_a_bound_that_doubles(number: int, most: float) -> None:
    rules, random = config.RetriesConfig(attempts=9, backoff=0.05), Random(7)
    waits = [wait(EngineFailed("x"), number, False, rules, Budget(1.0), random) or 0.0 for _ in range(2000)]
    assert max(waits) <= most
    assert max(waits) > 0.98 * most
    assert min(waits) < 0.02 * most
    assert 0.47 * most < sum(waits) / len(waits) < 0.53 * most


@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
def test_in_an_outage_retries_are_no_more_than_their_share_of_the_requests(share: float) -> None:
    budget, retries = Budget(share), 0
    for _ in range(10_000):
        budget.earn()
        while budget.spend():
            retries += 1
    assert share * 10_000 - 1 <= retries <= share * 10_000 + MAX_SAVED


def test_calm_times_save_no_more_than_a_handful() -> None:
    budget = Budget(0.2)
    for _ in range(10_000):
        budget.earn()
    assert saved(budget) == MAX_SAVED


def test_a_share_of_nothing_is_no_retry_at_all() -> None:
    assert not Budget(0.0).spend()
