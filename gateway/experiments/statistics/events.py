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

Conditions: an event is one unit's own. Late first tokens are not, where arms have queues of their own: a queue that is
long for a while makes all late that are sent to it. Then all counts are divided by what drift inflates the variance of
the difference of the shares by (`drifting_rate_ratio`), a rule of thumb to be shown beside the interval. Draws are
independent, so with sticky units only a unit's first event counts, and of a request its first attempt in the arm it was
drawn for, whether or not another rescued it. One r over time is assumed for the interval; with a ratio that moves it
covers an average. At r = 1, no difference, it is exact in any case.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from gateway.experiments.statistics.arms import Split, Stratum
from gateway.experiments.statistics.interval import UNKNOWN, Interval
from gateway.experiments.statistics.means import MeanEstimate

LIMIT = 40.0  # of ln r, beyond which an end counts as infinite
POINTS = 200
GRID = tuple(-5 + 10 * step / (POINTS - 1) for step in range(POINTS))
_WEIGHTS = tuple(math.exp(-x * x / 2) for x in GRID)
_LOG_WEIGHTS = tuple(-x * x / 2 - math.log(sum(_WEIGHTS)) for x in GRID)


class EventEstimate(Struct, frozen=True):
    """The logarithm of the rate ratio, treatment over control. `alpha` is for both ends together.

    `likelihoods` are ln L on the grid, which what would come of more samples needs many times.
    """

    strata: tuple[Stratum, ...]
    alpha: float
    inflation: float
    likelihoods: tuple[float, ...]

    @property
    def events(self) -> Split:
        """How many events fell to each arm."""
        return sum((stratum.split for stratum in self.strata), Split())

    def interval(self, growth: float = 1.0) -> Interval:
        """Return the interval of ln r; infinite at an end where all, or none, of the events are the treatment's."""
        events, tosses = self.events, [_Tosses.of(stratum) for stratum in self.strata]
        if not events.total or math.isinf(self.inflation):
            return UNKNOWN
        floor = (self._log_mixture(growth) + math.log(self.alpha)) / growth * self.inflation

        def inside(x: float) -> bool:
            return _log_likelihood(tosses, x) > floor

        best = _most_likely(tosses)
        low = _edge(inside, best, -LIMIT) if events.treatment else -math.inf
        high = _edge(inside, best, LIMIT) if events.control else math.inf
        return Interval(low, best if events.treatment and events.control else low + high, high)

    def log_evidence(self) -> float:
        """Return ln E against "as frequent in both arms"; alpha-level proof is ln E >= ln(1/alpha)."""
        even = _log_likelihood([_Tosses.of(stratum) for stratum in self.strata], 0.0)
        return self._log_mixture(1.0) - even / self.inflation

    def _log_mixture(self, growth: float) -> float:
        scale = growth / self.inflation
        terms = [weight + scale * here for weight, here in zip(_LOG_WEIGHTS, self.likelihoods, strict=True)]
        top = max(terms)
        return top + math.log(sum([math.exp(term - top) for term in terms]))


def rate_ratio(strata: Iterable[Stratum], alpha: float, inflation: float = 1.0) -> EventEstimate:
    """Return the ratio of the rates, from the events that fell to each arm in epochs of known shares."""
    used = tuple(stratum for stratum in strata if stratum.split.total)
    tosses = [_Tosses.of(stratum) for stratum in used]
    return EventEstimate(used, alpha, inflation, tuple([_log_likelihood(tosses, x) for x in GRID]))


def drifting_rate_ratio(strata: Iterable[Stratum], share: MeanEstimate, alpha: float) -> EventEstimate:
    """Return the ratio for events that come together, such as late first tokens where arms have queues.

    `share` is the difference of the shares of such requests: `means.of_requests` of 1.0 or 0.0, with blocks of time.
    Nothing is known before that is ready.
    """
    return rate_ratio(strata, alpha, share.inflation if share.ready >= 1 else math.inf)


def exposed(events: Split, exposure: Split) -> Stratum:
    """Return events over unequal exposures (tokens, pairs) as a stratum, whose share is the treatment's exposure.

    Both exposures are above 0. Exact for a fixed ratio of them; where it drifts, the interval covers an average.
    """
    return Stratum(events, exposure.treatment / exposure.total)


class _Tosses(NamedTuple):
    """A stratum: k of m events were the treatment's, and the logarithm of the odds that one is, at r = 1."""

    k: int
    m: int
    even: float

    @staticmethod
    def of(stratum: Stratum) -> "_Tosses":
        even = math.log(stratum.share) - math.log1p(-stratum.share)
        return _Tosses(stratum.split.treatment, stratum.split.total, even)


def _log_likelihood(tosses: Iterable[_Tosses], x: float) -> float:
    """Return ln L(r) for x = ln r: k ln p + (m-k) ln(1-p) = k odds + m ln(1-p)."""
    total = 0.0
    for k, m, even in tosses:
        odds = x + even
        total += k * odds - m * (math.log1p(math.exp(odds)) if odds < 0 else odds + math.log1p(math.exp(-odds)))
    return total


def _surplus(tosses: Iterable[_Tosses], x: float) -> float:
    """Return how many more events are the treatment's than expected at x: the slope of ln L."""
    return sum(k - m / (1 + math.exp(-x - even)) for k, m, even in tosses)


def _most_likely(tosses: Sequence[_Tosses]) -> float:
    """Return the x where as many events are the treatment's as expected; near -LIMIT or LIMIT where none or all are."""
    k, m, even = tosses[0]
    if len(tosses) == 1 and 0 < k < m:
        return math.log(k / (m - k)) - even
    return _edge(lambda x: _surplus(tosses, x) > 0, -LIMIT, LIMIT)


def _edge(inside: Callable[[float], bool], within: float, beyond: float) -> float:
    """Return where `inside`, true at `within`, ends on the way to `beyond`."""
    for _ in range(35):
        middle = (within + beyond) / 2
        within, beyond = (middle, beyond) if inside(middle) else (within, middle)
    return beyond
