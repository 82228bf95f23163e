"""M4: quantiles (p50, p95, p99) of a time in one arm, and the ratio of those of two arms.

Times are counted in buckets whose ends grow by 2 % (`GROWTH`), so histograms merge by adding counts (as in C. Masson,
J. Rim, H. Lee, "DDSketch", VLDB 2019) and a quantile is off by 2 % at most. A request that failed has an endless time:
an arm that fails its slow requests does not look fast. One whose client left waited at least so long: it counts as
that for a lower end, and as endless for an upper end.

Of n independent times, each is at or below the true p-quantile with the chance p. So with k the rank of that quantile
among them, all k with ln E(k) < ln(1/alpha) are kept, where E is M1's e-value with concentration 8/(p(1-p)), and the
times at the outermost ranks are the ends, at all looks together. S. Howard and A. Ramdas, "Sequential estimation of
quantiles with applications to A/B testing and best-arm identification", Bernoulli 28(3), 2022: their beta-binomial
variant. For two arms each has alpha/2, and the ends of the ratio are the quotients of the ends.

Condition: independent times in an arm. Under bursts, and in a queue, they are not; n is then divided by an inflation of
the variance, of the share of requests below the quantile in blocks of time (`means.inflation`). That is a rule of
thumb, and is to be shown beside the interval. Histograms of epochs with different shares must not be added before they
are compared (Simpson's paradox).
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate

from msgspec import Struct

from gateway.experiments.statistics.arms import Arms
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.sample_ratio import log_binomial_evidence

GROWTH = 1.02
SHORTEST = 1e-6  # seconds; what is shorter counts as that
_LOG_GROWTH = math.log(GROWTH)


class Histogram(Struct, frozen=True):
    """Counts of times: `done` and `left` by bucket, where bucket i ends at 1.02^i seconds, and how many failed."""

    done: Mapping[int, int] = {}
    left: Mapping[int, int] = {}
    failed: int = 0

    def __add__(self, other: "Histogram") -> "Histogram":
        """Merge with that of another worker or gateway, exactly."""
        done, left = (_added(*both) for both in ((self.done, other.done), (self.left, other.left)))
        return Histogram(done, left, self.failed + other.failed)

    @property
    def n(self) -> int:
        """All requests: done, left and failed."""
        return sum(self.done.values()) + sum(self.left.values()) + self.failed


def bucket(seconds: float) -> int:
    """Return the bucket of a time."""
    return math.ceil(math.log(max(seconds, SHORTEST)) / _LOG_GROWTH)


def upper_end(number: int) -> float:
    """Return where a bucket ends, in seconds; it begins where the one before it ends."""
    return math.exp(number * _LOG_GROWTH)


class BlockSums(Struct, frozen=True):
    """Sums over rounds, or other independent blocks, of how many requests each had (n), and how many below a time (k).

    For blocks of time, whose neighbours are alike, there is `means.inflation`.
    """

    blocks: int = 0
    n: int = 0
    k: int = 0
    nn: int = 0
    nk: int = 0
    kk: int = 0

    @staticmethod
    def of(n: int, k: int) -> "BlockSums":
        """Return the sums of one block, with all its requests."""
        return BlockSums(1, n, k, n * n, n * k, k * k)

    def __add__(self, other: "BlockSums") -> "BlockSums":
        """Add other blocks, exactly."""
        return BlockSums(
            self.blocks + other.blocks,
            self.n + other.n,
            self.k + other.k,
            self.nn + other.nn,
            self.nk + other.nk,
            self.kk + other.kk,
        )

    def inflation(self) -> float:
        """Return the variance of the share of k over that of independent requests; at least 1."""
        if self.blocks < 2 or not 0 < self.k < self.n:
            return 1.0
        p = self.k / self.n
        between = self.kk - 2 * p * self.nk + p * p * self.nn
        return max(1.0, self.blocks / (self.blocks - 1) * between / (self.n * p * (1 - p)))


class Ranked(Struct, frozen=True):
    """A histogram, made ready to be asked for times at ranks: where buckets end, and how many times lie up to there."""

    n: int
    numbers: tuple[int, ...]
    done: tuple[int, ...]  # those that left count as endless
    soon: tuple[int, ...]  # those that left count as what they had waited

    @staticmethod
    def of(histogram: Histogram) -> "Ranked":
        """Return it ready."""
        numbers = tuple(sorted(histogram.done.keys() | histogram.left.keys()))
        done, left = ([counts.get(number, 0) for number in numbers] for counts in (histogram.done, histogram.left))
        soon = (here + gone for here, gone in zip(done, left, strict=True))
        return Ranked(histogram.n, numbers, tuple(accumulate(done)), tuple(accumulate(soon)))

    def not_before(self, rank: int) -> float:
        """Return a time (seconds) that the one of this rank is not below: 0 for rank 0, endless beyond the last."""
        place = bisect_left(self.soon, rank)
        if rank < 1:
            return 0.0
        return upper_end(self.numbers[place] - 1) if place < len(self.numbers) else math.inf

    def not_after(self, rank: int) -> float:
        """Return a time (seconds) that the one of this rank is not above."""
        place = bisect_left(self.done, rank)
        return upper_end(self.numbers[place]) if place < len(self.numbers) else math.inf

    def quantile(self, p: float, alpha: float, inflation: float = 1.0, growth: float = 1.0) -> Interval:
        """Return the interval of the p-quantile, in seconds, as it would be after `growth` times the requests.

        Its lower end may be 0 and its upper end infinite: too few requests, or too many that failed, for this quantile.
        """
        if not self.n:
            return Interval(0.0, math.inf, math.inf)
        least, most = rank_shares(self.n * growth / inflation, p, alpha)
        return Interval(
            self.not_before(math.floor(least * self.n)),
            self.not_after(max(1, math.ceil(p * self.n))),
            self.not_after(math.ceil(most * self.n) + 1),
        )


class QuantileEstimate(Struct, frozen=True):
    """The logarithm of the ratio of two arms' p-quantiles. `alpha` is for both ends together."""

    arms: Arms[Ranked]
    p: float
    alpha: float
    inflation: Arms[float]

    def interval(self, growth: float = 1.0) -> Interval:
        """Return the interval; an end is infinite where an arm's own is."""
        half = self.alpha / 2
        a = self.arms.control.quantile(self.p, half, self.inflation.control, growth)
        b = self.arms.treatment.quantile(self.p, half, self.inflation.treatment, growth)
        return Interval(_log(b.low, a.high), _log(b.estimate, a.estimate, 0.0), -_log(a.low, b.high))


def quantile_interval(histogram: Histogram, p: float, alpha: float, inflation: float = 1.0) -> Interval:
    """Return the interval of one arm's p-quantile, in seconds (see `Ranked.quantile`)."""
    return Ranked.of(histogram).quantile(p, alpha, inflation)


def quantile_ratio(
    arms: Arms[Histogram], p: float, alpha: float, inflation: Arms[float] | None = None
) -> QuantileEstimate:
    """Compare the p-quantiles of two arms, given what bursts inflate their variances by (nothing, if not given)."""
    ranked = Arms(Ranked.of(arms.control), Ranked.of(arms.treatment))
    return QuantileEstimate(ranked, p, alpha, inflation or Arms(1.0, 1.0))


def rank_shares(n: float, p: float, alpha: float) -> tuple[float, float]:
    """Return the least and the most share of n times that may lie at or below the true p-quantile."""
    concentration, limit = 8 / (p * (1 - p)), -math.log(alpha)

    def kept(k: float) -> bool:
        return log_binomial_evidence(k, n, p, concentration) < limit

    return _last(kept, n * p, 0.0) / n, _last(kept, n * p, n) / n


def _last(kept: Callable[[float], bool], inside: float, end: float) -> float:
    """Return the last rank that is kept on the way from inside to the end, or up to half a rank further out."""
    if kept(end):
        return end
    while abs(end - inside) > 0.5:
        middle = (inside + end) / 2
        inside, end = (middle, end) if kept(middle) else (inside, middle)
    return end


def _log(above: float, below: float, unknown: float = -math.inf) -> float:
    """Return the logarithm of a quotient, for a lower end: what is not known is as low as can be."""
    if above == 0 or below == 0 or math.isinf(below):
        return unknown
    return math.log(above / below)


def _added(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    return dict(Counter(one) + Counter(other))
