"""What to say of an estimate, of a guardrail, and of the experiment as a whole.

An estimate is the logarithm of treatment over control of something that is better when it is less (for the other kind,
swap the arms), [L, U] its interval, and the margin the share (0.05) by which it may be more:

    better U < 0 | slightly worse 0 < L and U < ln(1 + margin) | not worse U < ln(1 + margin) | worse L > ln(1 + margin)
    not comparable: there are obstacles (`comparable`) | not yet known: none of these
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from gateway.experiments.statistics.events import EventEstimate
from gateway.experiments.statistics.interval import Interval, Judgeable

LEAST_UNITS = 5  # distinct ones of the treatment with an event, before a guardrail may say worse
FURTHEST = 2.0**20  # times the present sample, beyond which nobody waits


class Judgement(StrEnum):
    """The words that a verdict has."""

    BETTER = "better"
    NOT_WORSE = "not worse"
    SLIGHTLY_WORSE = "slightly worse"
    WORSE = "worse"
    NOT_COMPARABLE = "not comparable"
    NOT_YET_KNOWN = "not yet known"


class Outcome(StrEnum):
    """What the experiment as a whole has come to, in the words of Argo Rollouts."""

    SUCCESS = "success"
    FAILURE = "failure"
    INCONCLUSIVE = "inconclusive"


class Pace(Struct, frozen=True):
    """How many samples came so far, in how many seconds."""

    samples: int
    seconds: float


class Judged(Struct, frozen=True):
    """A verdict and why. Where it is not yet known: how many samples it needs in all, and how many seconds more.

    Both are None where no sample of a sensible size would do, as when the estimate lies just at the margin.
    """

    judgement: Judgement
    why: str
    needed: int | None = None
    seconds: float | None = None


class Overall(Struct, frozen=True):
    """The verdict of the whole experiment and why."""

    outcome: Outcome
    why: str


GOOD = frozenset((Judgement.BETTER, Judgement.NOT_WORSE, Judgement.SLIGHTLY_WORSE))


def judge(estimate: Judgeable, margin: float, pace: Pace, obstacles: Sequence[str] = ()) -> Judged:
    """Return the verdict on a metric. `obstacles` (of `comparable`, for latencies) say why it cannot be compared."""
    if obstacles:
        return Judged(Judgement.NOT_COMPARABLE, "; ".join(obstacles))
    interval = estimate.interval()
    word = _word(interval, math.log1p(margin))
    if word is Judgement.NOT_YET_KNOWN:
        return _unknown(estimate, margin, pace)
    return Judged(word, _said(interval))


def guard(estimate: EventEstimate, margin: float, pace: Pace) -> Judged:
    """Return the verdict on a guardrail: as `judge`, but worse only once five units of the treatment had it."""
    judged = judge(estimate, margin, pace)
    units = estimate.events.treatment
    if judged.judgement is Judgement.WORSE and units < LEAST_UNITS:
        return Judged(
            Judgement.NOT_YET_KNOWN, f"only {units} units of the treatment had it, of the {LEAST_UNITS} needed"
        )
    return judged


def overall(primary: Mapping[str, Judged], others: Mapping[str, Judged]) -> Overall:
    """Return the experiment's verdict, by metric names; `others` are the guardrails, and parity where not primary.

    Failure where anything is worse, success where each primary metric is known not to be, else inconclusive.
    """
    bad = _names((*primary.items(), *others.items()), frozenset((Judgement.WORSE,)))
    if bad:
        return Overall(Outcome.FAILURE, f"worse: {', '.join(bad)}")
    good = _names(primary.items(), GOOD)
    if primary and len(good) == len(primary):
        return Overall(Outcome.SUCCESS, ", ".join(f"{name}: {primary[name].judgement}" for name in good))
    left = [f"{name}: {judged.judgement}" for name, judged in primary.items() if name not in good]
    return Overall(Outcome.INCONCLUSIVE, ", ".join(left) or "no primary metric")


def _names(judged: Iterable[tuple[str, Judged]], words: frozenset[Judgement]) -> list[str]:
    return [name for name, one in judged if one.judgement in words]


def _word(interval: Interval, bound: float) -> Judgement:
    if interval.low > bound:
        return Judgement.WORSE
    if interval.high < 0:
        return Judgement.BETTER
    if interval.high < bound:
        return Judgement.SLIGHTLY_WORSE if interval.low > 0 else Judgement.NOT_WORSE
    return Judgement.NOT_YET_KNOWN


def _unknown(estimate: Judgeable, margin: float, pace: Pace) -> Judged:
    bound = math.log1p(margin)
    said = _said(estimate.interval())

    def known(growth: float) -> bool:
        return _word(estimate.interval(growth), bound) is not Judgement.NOT_YET_KNOWN

    growth = 1.0
    while not known(growth):
        growth *= 4
        if growth > FURTHEST:
            return Judged(Judgement.NOT_YET_KNOWN, said)
    low = growth / 4
    for _ in range(6):  # to within 2 %
        middle = math.sqrt(low * growth)
        low, growth = (low, middle) if known(middle) else (middle, growth)
    return Judged(Judgement.NOT_YET_KNOWN, said, math.ceil(pace.samples * growth), pace.seconds * (growth - 1))


def _said(interval: Interval) -> str:
    """Return the interval in words: +3.0 % (-1.0 % to +7.0 %)."""
    low, estimate, high = (_per_cent(end) for end in (interval.low, interval.estimate, interval.high))
    return f"{estimate} ({low} to {high})"


def _per_cent(log_ratio: float) -> str:
    return "no bound" if math.isinf(log_ratio) else f"{100 * math.expm1(log_ratio):+.1f} %"
