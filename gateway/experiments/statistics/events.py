"""M2: how much more often something happens in the treatment: errors, late first tokens, clients that left.

Asked the other way round: of those that failed, how many were the treatment's? If failures are r times as frequent
there, each is the treatment's with the chance p(r) = s r / (s r + 1 - s), where s is the treatment's share of the
traffic. The base rate has gone: bursts, busy hours and an engine that never fails change nothing.

    ln L(r) = sum over epochs of k ln p(r) + (m - k) ln(1 - p(r)),   k of m events the treatment's
    ln M    = ln of the mean of L under a standard normal distribution of ln r, on a grid of 200 points over +-5
    interval: all r with ln M - ln L(r) < ln(1/alpha)

M/L is a martingale at the true r, so the interval holds at all looks together (Ville), also where the control had no
event at all. The idea is that of M. Lindon and A. Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS
2022, with a grid in place of their Gamma mixture.

Conditions: draws are independent, so with sticky units only a unit's first event counts, and of a request its first
attempt in the arm it was drawn for, whether or not another rescued it. One r over time is assumed for the interval;
with a ratio that moves it covers an average. At r = 1, no difference, it is exact in any case.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from gateway.experiments.statistics.arms import Split, Stratum
from gateway.experiments.statistics.interval import UNKNOWN, Interval

LIMIT = 40.0  # of ln r, beyond which an end counts as infinite
POINTS = 200
GRID = tuple(-5 + 10 * step / (POINTS - 1) for step in range(POINTS))
_WEIGHTS = tuple(math.exp(-x * x / 2) for x in GRID)
_LOG_WEIGHTS = tuple(-x * x / 2 - math.log(sum(_WEIGHTS)) for x in GRID)


class EventEstimate(Struct, frozen=True):
    """The logarithm of the rate ratio, treatment over control. `alpha` is for both ends together."""

    strata: tuple[Stratum, ...]
    alpha: float

    def interval(self, growth: float = 1.0) -> Interval:
        """Return the interval of ln r; infinite at an end where all, or none, of the events are the treatment's."""
        found = Split()
        for stratum in self.strata:
            found += stratum.split
        if not found.total:
            return UNKNOWN
        floor = _log_mixture(self.strata, growth) + math.log(self.alpha)

        def inside(x: float) -> bool:
            return growth * log_likelihood(self.strata, x) > floor

        best = _most_likely(self.strata)
        low = -math.inf if not found.treatment else _edge(inside, best, -LIMIT)
        high = math.inf if not found.control else _edge(inside, best, LIMIT)
        return Interval(low, best, high)

    def log_evidence(self) -> float:
        """Return ln E against "as frequent in both arms"; alpha-level proof is ln E >= ln(1/alpha)."""
        return _log_mixture(self.strata, 1.0) - log_likelihood(self.strata, 0.0)


def rate_ratio(strata: Iterable[Stratum], alpha: float) -> EventEstimate:
    """Return the ratio of the rates, from the events that fell to each arm in epochs of known shares."""
    return EventEstimate(tuple(stratum for stratum in strata if stratum.split.total), alpha)


def exposed(events: Split, exposure: Split) -> Stratum:
    """Return events over unequal exposures (tokens, pairs) as a stratum, whose share is the treatment's exposure.

    Both exposures are above 0. Exact for a fixed ratio of them; where it drifts, the interval covers an average.
    """
    return Stratum(events, exposure.treatment / exposure.total)


def log_likelihood(strata: Sequence[Stratum], x: float) -> float:
    """Return ln L(r) for x = ln r."""
    total = 0.0
    for stratum in strata:
        odds = x + math.log(stratum.share / (1 - stratum.share))
        missed = -math.log1p(math.exp(odds)) if odds < 0 else -odds - math.log1p(math.exp(-odds))  # ln(1 - p)
        total += stratum.split.total * missed + stratum.split.treatment * odds
    return total


def _log_mixture(strata: Sequence[Stratum], growth: float) -> float:
    terms = [weight + growth * log_likelihood(strata, x) for x, weight in zip(GRID, _LOG_WEIGHTS, strict=True)]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


def _most_likely(strata: Sequence[Stratum]) -> float:
    """Return the x at which as many events are the treatment's as expected; -LIMIT or LIMIT where none or all are."""
    low, high = -LIMIT, LIMIT
    for _ in range(60):
        middle = (low + high) / 2
        if _surplus(strata, middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _surplus(strata: Sequence[Stratum], x: float) -> float:
    """Return how many more events are the treatment's than expected at x: the slope of ln L."""
    surplus = 0.0
    for stratum in strata:
        odds = stratum.share / (1 - stratum.share) * math.exp(x)
        surplus += stratum.split.treatment - stratum.split.total * odds / (1 + odds)
    return surplus


def _edge(inside: Callable[[float], bool], within: float, beyond: float) -> float:
    """Return where `inside`, true at `within`, ends on the way to `beyond`."""
    for _ in range(50):
        middle = (within + beyond) / 2
        if inside(middle):
            within = middle
        else:
            beyond = middle
    return beyond
