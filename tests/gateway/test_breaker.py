"""The circuit breaker: when it opens, what it lets through then, and what closes it."""

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway import config
from gateway.upstream.breaker import DISTINCT, MIN_SAMPLES, Breaker

RULES = config.BreakerConfig(failures=3, share=0.5, window=10.0, open=1.0, most_open=4.0)
How = str  # good, bad, said nothing


def end(breaker: Breaker, trial: bool, how: How, now: float) -> bool:
    """Tell how a request ended; return whether that opened or closed the circuit."""
    if how == "good":
        return breaker.record_success(trial, now)
    if how == "bad":
        return breaker.record_failure(trial, now)
    breaker.record_ignored(trial)
    return False


def play(breaker: Breaker, *events: tuple[float, How]) -> None:
    """Let requests go there one after the other, each at its time."""
    for now, how in events:
        assert breaker.allows(now)
        end(breaker, breaker.began(now), how, now)


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker(RULES)
    play(breaker, *[(now, "bad")] * 3)
    assert not breaker.allows(now)
    return breaker


BAD: tuple[float, How] = (0.0, "bad")
GOOD: tuple[float, How] = (0.0, "good")
NOTHING: tuple[float, How] = (0.0, "said nothing")

# name: events, when it is asked, whether it lets a request through
SEQUENCES: dict[str, tuple[list[tuple[float, How]], float, bool]] = {
    "nothing yet": ([], 0.0, True),
    "fewer failures in a row than it takes": ([BAD, BAD], 0.0, True),
    "as many as it takes": ([BAD, BAD, BAD], 0.0, False),
    "a success between them": ([BAD, BAD, GOOD, BAD, BAD], 0.0, True),
    "a client's fault between them": ([BAD, BAD, NOTHING, BAD], 0.0, False),
    "only clients' faults": ([NOTHING] * 100, 0.0, True),
    "half of the answers, before there are enough": ([BAD, GOOD] * (MIN_SAMPLES // 2 - 1) + [GOOD, BAD], 0.0, False),
    "half of the answers, one too few": ([GOOD] + [GOOD, BAD] * (MIN_SAMPLES // 2 - 1), 0.0, True),
    "less than half": ([GOOD, GOOD, BAD] * 30, 0.0, True),
    "clients' faults are no answers": ([NOTHING] * 40 + [GOOD, BAD] * (MIN_SAMPLES // 2), 0.0, False),
    "failures older than the window": (
        [(0.0, "bad"), (0.0, "good")] * 9 + [(20.0, "good")] + [(20.0, "bad"), (20.0, "good")] * 4,
        20.0,
        True,
    ),
    "failures of the half before": (
        [(4.0, "bad"), (4.0, "good")] * 9 + [(9.0, "good"), (9.0, "bad")],
        9.0,
        False,
    ),
    "just before it may be tried": ([BAD] * 3, 0.999, False),
    "when it may be tried": ([BAD] * 3, 1.0, True),
    "after a trial that went well": ([BAD] * 3 + [(1.0, "good"), (1.0, "bad"), (1.0, "bad")], 1.0, True),
    "after a trial that failed": ([BAD] * 3 + [(1.0, "bad")], 2.999, False),
    "after twice as long": ([BAD] * 3 + [(1.0, "bad")], 3.0, True),
    "after a trial that said nothing": ([BAD] * 3 + [(1.0, "said nothing")], 1.0, True),
    "never longer than the most": ([BAD] * 3 + [(1.0, "bad"), (3.0, "bad"), (7.0, "bad"), (11.0, "bad")], 15.0, True),
    "and no shorter": ([BAD] * 3 + [(1.0, "bad"), (3.0, "bad"), (7.0, "bad"), (11.0, "bad")], 14.999, False),
    "once well, it begins with the short time again": (
        [BAD] * 3 + [(1.0, "bad"), (3.0, "good"), (3.0, "bad"), (3.0, "bad"), (3.0, "bad")],
        4.0,
        True,
    ),
    "once well, the past is forgotten": ([GOOD, BAD] * 10 + [(1.0, "good"), (1.0, "bad")], 1.0, True),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_after_these_answers_a_request_is_let_through_or_not(name: str) -> None:
    events, now, allowed = SEQUENCES[name]
    breaker = Breaker(RULES)
    play(breaker, *events)
    assert breaker.allows(now) is allowed


def test_it_says_when_it_opens_and_when_it_closes() -> None:
    breaker = Breaker(RULES)
    said = [end(breaker, breaker.began(0.0), "bad", 0.0) for _ in range(3)]
    assert said == [False, False, True]
    assert breaker.open_until == 1.0
    assert end(breaker, breaker.began(1.0), "bad", 1.0)
    assert end(breaker, breaker.began(3.0), "good", 3.0)
    assert breaker.open_until == 0.0
    assert not end(breaker, breaker.began(3.0), "good", 3.0)


def test_there_is_one_trial_at_a_time() -> None:
    breaker = opened(100.0)
    assert breaker.began(101.0)
    assert not breaker.allows(101.0)
    breaker.record_ignored(True)
    assert breaker.allows(101.5)


def test_a_trial_that_comes_to_no_end_is_followed_by_another() -> None:
    breaker = opened(100.0)
    assert breaker.began(101.0)
    assert not breaker.allows(104.9)
    assert breaker.began(105.0)
    assert breaker.record_success(True, 106.0)
    assert not breaker.record_failure(True, 107.0)  # the first, at last: it decides nothing any more


def test_of_two_that_were_allowed_at_once_one_is_the_trial() -> None:
    breaker = opened(100.0)
    assert breaker.allows(101.0)
    assert (breaker.began(101.0), breaker.began(101.0)) == (True, False)
    breaker.record_ignored(False)
    assert not breaker.allows(101.0)


@pytest.mark.parametrize("how", ["good", "bad", "said nothing"])
def test_an_answer_from_before_the_opening_decides_nothing(how: How) -> None:
    breaker = opened(100.0)
    assert not end(breaker, False, how, 100.5)
    assert breaker.open_until == 101.0
    assert breaker.began(101.0)
    assert not end(breaker, False, how, 101.5)
    assert not breaker.allows(101.5)
    assert breaker.record_success(True, 102.0)
    assert breaker.allows(102.0)


# --- what fails elsewhere alike ---------------------------------------------------------------------------------

# name: what happens, each with its time (a number is a request that fails as it does elsewhere), and whether it opens
EXCUSED: dict[str, tuple[Sequence[tuple[float, int | How]], bool]] = {
    "nine distinct": ([(0.0, one) for one in range(DISTINCT - 1)], False),
    "ten distinct": ([(0.0, one) for one in range(DISTINCT)], True),
    "one again and again": ([(0.0, 1)] * 100, False),
    "nine and one of them again": ([(0.0, one) for one in range(DISTINCT - 1)] + [(0.0, 3)], False),
    "ten, slower than the window": ([(1.2 * one, one) for one in range(DISTINCT)], False),
    "ten with one of them early": ([(0.0, 0)] + [(9.0, one) for one in range(1, DISTINCT)], True),
    "ten with one of them too early": ([(0.0, 0)] + [(10.0, one) for one in range(1, DISTINCT)], False),
    "ten among good answers": (
        [event for one in range(DISTINCT) for event in ((0.0, one), (0.0, "good"), (0.0, "good"))],
        False,
    ),
    "ten, and as many as it takes since the last success": (
        [(0.0, one) for one in range(DISTINCT - 3)] + [(0.0, "good")] + [(0.0, one) for one in range(100, 103)],
        True,
    ),
    "ten, and fewer than it takes since the last success": (
        [(0.0, one) for one in range(DISTINCT - 2)] + [(0.0, "good")] + [(0.0, one) for one in range(100, 102)],
        False,
    ),
}


@pytest.mark.parametrize("name", EXCUSED)
def test_ten_distinct_requests_that_fail_as_elsewhere_within_the_window_are_the_engines_fault(name: str) -> None:
    events, opens = EXCUSED[name]
    breaker = Breaker(RULES)
    for now, what in events:
        if isinstance(what, int):
            breaker.record_excused(what, now)
        else:
            end(breaker, breaker.began(now), what, now)
    assert (breaker.open_until > 0) is opens


def test_from_the_tenth_on_each_distinct_one_counts_until_the_window_is_over() -> None:
    breaker = Breaker(config.BreakerConfig(failures=DISTINCT + 2, window=10.0))
    assert not any(breaker.record_excused(one, 0.0) for one in range(DISTINCT))
    assert not breaker.record_excused(0, 0.0), "it has been counted"
    assert [breaker.record_excused(DISTINCT + one, 0.0) for one in range(2)] == [False, True]


def test_after_a_recovery_it_takes_ten_again() -> None:
    breaker = Breaker(RULES)
    assert [breaker.record_excused(one, 0.0) for one in range(DISTINCT)] == [False] * (DISTINCT - 1) + [True]
    assert breaker.record_success(breaker.began(1.0), 1.0)
    assert not any(breaker.record_excused(100 + one, 1.0) for one in range(DISTINCT - 1))
    assert breaker.record_excused(200, 1.0)


class Traffic(RuleBasedStateMachine):
    """Requests that go there when they may, overlap, and end in any way, while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(RULES)
        self.now = 0.0
        self.under_way: list[bool] = []
        self.bad = 0
        self.trial_began = 0.0

    @rule(seconds=st.floats(0.0, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(at_once=st.integers(1, 4))
    def begin(self, at_once: int) -> None:
        if self.breaker.allows(self.now):
            begun = [self.breaker.began(self.now) for _ in range(at_once)]
            assert begun.count(True) <= 1
            self.trial_began = self.now if True in begun else self.trial_began
            self.under_way += begun

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), how=st.sampled_from(["good", "bad", "said nothing"]))
    def end(self, data: st.DataObject, how: How) -> None:
        trial = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        was_open = self.breaker.open_until > 0
        changed = end(self.breaker, trial, how, self.now)
        self.bad += how == "bad"
        if trial and was_open:
            assert changed is (how != "said nothing")
        elif was_open:
            assert not changed
        else:
            assert how == "bad" or not changed

    @invariant()
    def opens_by_failures_alone_and_not_for_ever(self) -> None:
        until = self.breaker.open_until
        assert not until or self.bad >= min(RULES.failures, MIN_SAMPLES * RULES.share)
        assert until - self.now <= RULES.most_open + 1e-9  # of a sum of floats

    @invariant()
    def lets_through_what_it_should(self) -> None:
        until = self.breaker.open_until
        waits = self.now < self.trial_began + RULES.most_open and True in self.under_way
        assert self.breaker.allows(self.now) or waits or self.now < until
        assert not self.breaker.allows(self.now) or self.now >= until


Traffic.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTraffic = Traffic.TestCase
