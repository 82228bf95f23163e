"""What is said of an estimate, of a guardrail, of answers, and of the whole experiment; and what stands in the way."""

import math
import time

import pytest

from gateway.experiments.statistics import comparable
from gateway.experiments.statistics.arms import Arms, Split, Stratum
from gateway.experiments.statistics.comparable import Offered, load_ratio
from gateway.experiments.statistics.divergence import Divergences, hard_ratio, hazard_ratio, pair_ratio
from gateway.experiments.statistics.events import rate_ratio
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.likelihood import ScoreSums, nats_per_token
from gateway.experiments.statistics.means import MeanEstimate, MeanSums, of_buckets
from gateway.experiments.statistics.parity import Answers, judge_answers
from gateway.experiments.statistics.quantiles import Histogram, quantile_ratio
from gateway.experiments.statistics.tool_calls import ToolSums, agreement_lost
from gateway.experiments.statistics.verdict import (
    FURTHEST,
    Judged,
    Judgement,
    Outcome,
    Pace,
    guard,
    judge,
    overall,
)

PACE = Pace(1000, 600.0)


class Fixed:
    """An estimate whose interval narrows as large samples' do."""

    def __init__(self, low: float, high: float) -> None:
        self.middle, self.half = (low + high) / 2, (high - low) / 2

    def interval(self, growth: float = 1.0) -> Interval:
        half = self.half / math.sqrt(growth)
        return Interval(self.middle - half, self.middle, self.middle + half)


@pytest.mark.parametrize(
    ("low", "high", "judgement"),
    [
        (-0.2, -0.1, Judgement.BETTER),
        (-0.2, 0.04, Judgement.NOT_WORSE),
        (0.01, 0.04, Judgement.SLIGHTLY_WORSE),
        (0.06, 0.2, Judgement.WORSE),
        (-0.1, 0.1, Judgement.NOT_YET_KNOWN),
        (0.01, 0.1, Judgement.NOT_YET_KNOWN),
        (-math.inf, math.inf, Judgement.NOT_YET_KNOWN),
    ],
)
def test_an_interval_and_its_verdict(low: float, high: float, judgement: Judgement) -> None:
    """The margin is 5 %."""
    assert judge(Fixed(low, high), 0.05, PACE).judgement is judgement


def test_obstacles_come_before_everything() -> None:
    """However sure the interval."""
    judged = judge(Fixed(-0.2, -0.1), 0.05, PACE, ["load differs", "engine changed"])
    assert judged == Judged(Judgement.NOT_COMPARABLE, "load differs; engine changed")


def test_what_is_not_yet_known_says_when_it_will_be() -> None:
    """Equal arms, an interval of 20 %: its end is at the margin after (0.2 / ln 1.05)^2 times the sample."""
    judged = judge(Fixed(-0.2, 0.2), 0.05, PACE)
    growth = (0.2 / math.log(1.05)) ** 2
    assert judged.judgement is Judgement.NOT_YET_KNOWN
    assert judged.needed == pytest.approx(1000 * growth, rel=0.03)
    assert judged.seconds == pytest.approx(600 * (growth - 1), rel=0.03)


@pytest.mark.parametrize("low", [math.log(1.05) - 0.1, -math.inf])
def test_what_lies_at_the_margin_will_never_be_known(low: float) -> None:
    """The estimate is the margin itself, or there is none."""
    judged = judge(Fixed(low, 2 * math.log(1.05) - low), 0.05, PACE)
    assert (judged.judgement, judged.needed, judged.seconds) == (Judgement.NOT_YET_KNOWN, None, None)
    assert FURTHEST > 10**6


def test_verdicts_say_the_interval_in_words() -> None:
    """As per cent of the control."""
    assert judge(Fixed(math.log(1.1), math.log(1.21)), 0.05, PACE).why == "+15.4 % (+10.0 % to +21.0 %)"
    assert "no bound" in judge(rate_ratio([Stratum(Split(0, 3), 0.5)], 0.05), 0.05, PACE).why


@pytest.mark.parametrize(("units", "judgement"), [(4, Judgement.NOT_YET_KNOWN), (5, Judgement.WORSE)])
def test_a_guardrail_wants_five_units(units: int, judgement: Judgement) -> None:
    """At 5 % four errors of the treatment alone are proof, but may be one client's."""
    estimate = rate_ratio([Stratum(Split(0, units), 0.05)], 0.01)
    assert judge(estimate, 0.0, PACE).judgement is Judgement.WORSE
    assert guard(estimate, 0.0, PACE).judgement is judgement


@pytest.mark.parametrize(
    ("primary", "others", "outcome", "why"),
    [
        (["better", "not worse"], ["not yet known"], Outcome.SUCCESS, "m0: better, m1: not worse"),
        (["slightly worse"], [], Outcome.SUCCESS, "m0: slightly worse"),
        (["better"], ["worse"], Outcome.FAILURE, "worse: o0"),
        (["worse", "not yet known"], [], Outcome.FAILURE, "worse: m0"),
        (["better", "not comparable"], ["not worse"], Outcome.INCONCLUSIVE, "m1: not comparable"),
        (["not yet known"], [], Outcome.INCONCLUSIVE, "m0: not yet known"),
        ([], ["better"], Outcome.INCONCLUSIVE, "no primary metric"),
    ],
)
def test_the_whole_experiment(primary: list[str], others: list[str], outcome: Outcome, why: str) -> None:
    """Failure where anything is worse; success where each primary metric is known not to be."""
    named = [
        {f"{letter}{n}": Judged(Judgement(word), "") for n, word in enumerate(words)}
        for letter, words in (("m", primary), ("o", others))
    ]
    found = overall(*named)
    assert (found.outcome, found.why) == (outcome, why)


@pytest.mark.parametrize(
    ("control", "treatment", "ratio", "alike"),
    [
        (Offered(900, 10), Offered(100, 10), 1 / 9, False),
        (Offered(900, 90), Offered(100, 10), 1.0, True),
        (Offered(500, 10), Offered(590, 10), 1.18, True),
        (Offered(500, 10), Offered(610, 10), 1.22, False),
        (Offered(0, 10), Offered(10, 10), math.inf, False),
        (Offered(500), Offered(520), None, True),
        (Offered(900), Offered(100, 10), None, False),
        (Offered(0), Offered(0), None, False),
    ],
)
def test_loads_are_alike(control: Offered, treatment: Offered, ratio: float | None, alike: bool) -> None:
    """Requests for each slot, up to 1.2 times; without slots only equal shares are."""
    arms = Arms(control, treatment)
    found = load_ratio(arms)
    assert found == (None if ratio is None else pytest.approx(ratio))
    assert (comparable.of_load(arms) == []) is alike


@pytest.mark.parametrize(
    ("obstacles", "words"),
    [
        (comparable.of_split([Stratum(Split(500, 500), 0.5)]), None),
        (comparable.of_split([Stratum(Split(900, 100), 0.5)]), "sample ratio mismatch"),
        (comparable.of_units(Arms(30, 30)), None),
        (comparable.of_units(Arms(900, 12)), "too few independent units: 12 buckets"),
        (comparable.of_missing([Stratum(Split(20, 22), 0.5)], 0.01), None),
        (comparable.of_missing([Stratum(Split(2, 40), 0.5)], 0.01), "failed, or left"),
        (comparable.of_engines(Arms(1, 1)), None),
        (comparable.of_engines(Arms(1, 2)), "the engine of the treatment changed"),
    ],
)
def test_obstacles_in_words(obstacles: list[str], words: str | None) -> None:
    """Each says what is unlike, or nothing."""
    assert (words is None and obstacles == []) or (words is not None and words in obstacles[0])


SELF = Divergences(pairs=300, tokens=60_000, diverged=120, ties=114, hard=6)


@pytest.mark.parametrize(
    ("across", "answers", "judgement", "why"),
    [
        (Divergences(900, 180_000, 370, 350, 20), {}, Judgement.NOT_WORSE, "2.06 divergences"),
        (Divergences(900, 90_000, 700, 665, 35), {}, Judgement.WORSE, "7.78 divergences"),
        (Divergences(900, 180_000, 360, 240, 120), {}, Judgement.WORSE, "120 of 360 divergences are hard"),
        (Divergences(900, 180_000, 370, 350, 20, prompts=1), {}, Judgement.WORSE, "1 prompts differ"),
        (Divergences(900, 180_000, 60, 60, 0), {}, Judgement.NOT_WORSE, "0.33 divergences"),
        (Divergences(3, 600, 1, 1, 0), {}, Judgement.NOT_YET_KNOWN, ""),
        (Divergences(900, 180_000, 370, 350, 20), {"left_first": Split(30, 170)}, Judgement.WORSE, "divergences per"),
        (Divergences(900, 180_000, 370, 350, 20), {"farther": Split(60, 140)}, Judgement.WORSE, "farther away"),
        (
            Divergences(900, 180_000, 370, 350, 20),
            {"tools": agreement_lost(Split(10, 90), 900, 0.05)},
            Judgement.WORSE,
            "tool",
        ),
        (
            Divergences(900, 180_000, 370, 350, 20),
            {"tools": agreement_lost(Split(9, 12), 979, 0.05)},
            Judgement.NOT_WORSE,
            "",
        ),
    ],
)
def test_answers_are_judged(across: Divergences, answers: dict[str, object], judgement: Judgement, why: str) -> None:
    """Beside self-pairs of 2 divergences per 1,000 tokens, a twentieth of them hard."""
    judged = judge_answers(Answers(Arms(SELF, across), **answers), 0.05, PACE)  # type: ignore[arg-type]
    assert judged.judgement is judgement
    assert why in judged.why


def test_ratios_of_divergence_are_per_token_per_divergence_and_per_pair() -> None:
    """The estimates are the quotients."""
    pairs = Arms(SELF, Divergences(900, 90_000, 360, 300, 60))
    assert hazard_ratio(pairs, 0.05).interval().ratio().estimate == pytest.approx(2.0)
    assert hard_ratio(pairs, 0.05).interval().ratio().estimate == pytest.approx(60 / 360 * 20)
    assert pair_ratio(Split(3, 18), pairs, 0.05).interval().ratio().estimate == pytest.approx(2.0)
    assert (SELF.per_1000_tokens, SELF.unknown) == (2.0, 0)


def test_without_self_pairs_nothing_is_said_of_the_ratio() -> None:
    """There is nothing to hold against."""
    pairs = Arms(Divergences(), Divergences(900, 90_000, 360))
    assert hazard_ratio(pairs, 0.05).interval() == Interval(-math.inf, 0.0, math.inf)


def test_nats_per_token_are_a_ratio_of_sums() -> None:
    """200 answers that lose 0.01 nats a token, 100 of 50 tokens and 100 of 150."""
    sums = sum((ScoreSums.of(0.01 * tokens, tokens) for tokens in [50, 150] * 100), ScoreSums())
    interval = nats_per_token(sums, 0.05).interval()
    assert (interval.low, interval.estimate, interval.high) == pytest.approx((0.01, 0.01, 0.01))
    assert math.isinf(nats_per_token(ScoreSums(), 0.05).interval().low)


@pytest.mark.parametrize(
    ("sums", "f1", "agreement"),
    [
        (ToolSums(both=8, reference_only=1, other_only=1, neither=10, agreed=17), 16 / 18, 0.85),
        (ToolSums(neither=4, agreed=4), 1.0, 1.0),
        (ToolSums(reference_only=2), 0.0, 0.0),
    ],
)
def test_tools_agree(sums: ToolSums, f1: float, agreement: float) -> None:
    """F1 of calling one, and the share that called the same."""
    assert (sums.f1(), sums.agreement()) == pytest.approx((f1, agreement))
    assert math.isnan(ToolSums().agreement())


def test_lost_agreement_is_in_points() -> None:
    """Of 1,000 requests b alone differs in 30, a2 alone in 10: two points lost."""
    estimate = agreement_lost(Split(10, 30), 960, 0.05)
    assert isinstance(estimate, MeanEstimate)
    assert estimate.difference == pytest.approx(0.02)
    assert estimate.variance == pytest.approx((40 / 1000 - 0.02**2) / 999)


def test_a_full_verdict_is_cheap() -> None:
    """1,024 buckets and 512 blocks of time, four metrics, three quantiles and a guardrail each: 50 ms of quiet CPU.

    Ten times as much is allowed here, for machines that are not.
    """
    sums = MeanSums.of(1.0, 2.0) + MeanSums.of(0.5, 1.0)
    buckets = Arms(dict.fromkeys(range(512), sums), {512 + n: sums for n in range(512)})
    blocks = Arms(*(dict.fromkeys(range(512), sums) for _ in "ab"))
    times = Histogram(dict.fromkeys(range(-300, 300), 5))
    began = time.process_time()
    for _ in range(4):
        judge(of_buckets([buckets], 0.05, blocks=[blocks]), 0.05, PACE)
        for p in (0.5, 0.95, 0.99):
            judge(quantile_ratio(Arms(times, times), p, 0.05), 0.05, PACE)
        guard(rate_ratio([Stratum(Split(40, 44), 0.5), Stratum(Split(40, 4), 0.25)], 0.01), 0.0, PACE)
    assert time.process_time() - began < 0.5
