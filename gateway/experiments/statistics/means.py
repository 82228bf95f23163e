"""M3: times compared as the ratio of their geometric means: the mean of ln x in one arm less that in the other.

A mean of seconds is ruled by its few longest; a mean of logarithms is not. The difference d has the variance V, and

    d +- sqrt( V (1 + 1/(n rho^2)) ln((n rho^2 + 1)/alpha^2) ),   rho^2 = (-2 ln alpha + ln(-2 ln alpha) + 1)/n*

holds at all looks together, for large n; it is the narrowest at n = n*, the planned sample. I. Waudby-Smith, D. Arbour,
R. Sinha, E. Kennedy, A. Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals of
Statistics 52(6), 2024, theorem 2.2. rho has no unit here: V carries the metric's own.

- `of_requests`: the draws are independent for each request. n is the number of requests.
- `of_buckets`: units stay in their arm, so buckets of units are the sample: V is the variance between buckets (the
  linearised ratio estimator, as for surveys of clusters: W. Cochran, "Sampling Techniques", 1977, 9A), and n the number
  of occupied buckets. A bucket is one sample over all epochs, in whichever arm it was.
- Of either the sums are wanted by blocks of time, too, wherever arms have queues of their own: what V lacks is added
  (`drift`; for buckets as two-way clusters: A. Cameron, J. Gelbach, D. Miller, "Robust inference with multiway
  clustering", Journal of Business & Economic Statistics 29(2), 2011), and n divided by what V was multiplied by.
- `of_pairs`, `of_paired_buckets`: d is the mean difference of two answers to one request, of the two shadows.

Over epochs, d is the mean of their differences, weighted by a b / (a + b) for a and b samples in the arms: no epoch is
compared with another, so a ramp that meets a busy hour shows no difference that is not there (Simpson's paradox).

A request without a time is not left out: it failed, or its client left, often because it was slow, and the rest would
look fast. It counts as having taken `UNANSWERED` seconds, in both arms. (In simulations in which the treatment failed
its slowest 5 %, the rest were called no worse before the errors were noticed in a quarter of all runs.)

A covariate z known before the arm was drawn (ln of the prompt's tokens, or what was in flight) takes out what it
explains: d - beta dz, with beta = Cov(d, dz)/V(dz). A. Deng, Y. Xu, R. Kohavi, T. Walker, "Improving the sensitivity
of online controlled experiments by utilizing pre-experiment data" (CUPED), WSDM 2013. Never one known only afterwards,
such as the answer's length.
"""

import math
from collections.abc import Iterable, Mapping

from msgspec import Struct

from gateway.experiments.statistics.arms import Arms
from gateway.experiments.statistics.drift import LEAST_BLOCKS, drift_variance
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.scaled import SCALE, scaled

PLANNED = 2_000  # samples, at which intervals are narrowest
PLANNED_PAIRS = 300  # which differ much less
LEAST = 100  # samples in each arm, below which a large-sample formula says nothing
LEAST_BUCKETS = 30  # occupied in each arm
UNANSWERED = 60.0  # seconds that a request counts for which has no time: it failed, or its client left

Buckets = Mapping[int, "MeanSums"]  # by number: buckets of units, or blocks of time
_Parts = dict[int, tuple[float, float]]  # of each number, in the deviations of y and z


class MeanSums(Struct, frozen=True):
    """Sums of a value y and a covariate z, in ten-thousandths (their squares in the square of that)."""

    n: int = 0
    y: int = 0
    yy: int = 0
    z: int = 0
    zz: int = 0
    yz: int = 0

    @staticmethod
    def of(value: float, covariate: float = 0.0) -> "MeanSums":
        """Return the sums of one sample: a logarithm of a time in seconds, say, and what was known beforehand."""
        y, z = scaled(value), scaled(covariate)
        return MeanSums(1, y, y * y, z, z * z, y * z)

    def __add__(self, other: "MeanSums") -> "MeanSums":
        """Merge with the sums of another worker or gateway, exactly."""
        return MeanSums(
            self.n + other.n,
            self.y + other.y,
            self.yy + other.yy,
            self.z + other.z,
            self.zz + other.zz,
            self.yz + other.yz,
        )


class MeanEstimate(Struct, frozen=True):
    """A mean difference and its variance, of `n` samples. `inflation` is what drift multiplied the variance by.

    `ready` is the smallest quotient of what there is and the least that is needed: samples in an arm, blocks of time.
    """

    difference: float
    variance: float
    n: int
    inflation: float
    ready: float
    alpha: float
    planned: int

    def interval(self, growth: float = 1.0) -> Interval:
        """Return the interval of the difference; without ends while there is less than the least.

        What growth would bring takes the inflation for what it is now: with few blocks of time it may yet rise.
        """
        if self.ready * growth < 1:
            return Interval(-math.inf, self.difference, math.inf)
        half = math.sqrt(self.variance / growth) * boundary(self.n * growth / self.inflation, self.alpha, self.planned)
        return Interval(self.difference - half, self.difference, self.difference + half)


def boundary(n: float, alpha: float, planned: int = PLANNED) -> float:
    """Return how many standard errors the interval of n samples reaches to each side."""
    wide = -2 * math.log(alpha)
    spread = n * (wide + math.log(wide) + 1) / planned  # n rho^2
    return math.sqrt((1 + 1 / spread) * math.log((spread + 1) / alpha**2))


def of_requests(
    epochs: Iterable[Arms[MeanSums]], alpha: float, planned: int = PLANNED, blocks: Iterable[Arms[Buckets]] = ()
) -> MeanEstimate:
    """Compare arms that were drawn anew for each request; `blocks` are the same sums by blocks of time."""
    used = [epoch for epoch in epochs if min(epoch.control.n, epoch.treatment.n) > 1]
    found = _of_epochs(used)
    control, treatment = (sum(getattr(epoch, arm).n for epoch in used) for arm in ("control", "treatment"))
    ready = min(control, treatment) / LEAST
    return _estimate(found, found, _drift(blocks), control + treatment, ready, alpha, planned)


def of_pairs(sums: MeanSums, alpha: float, planned: int = PLANNED_PAIRS, blocks: Buckets | None = None) -> MeanEstimate:
    """Compare two answers to one request each: the sums are of ln(treatment's time) - ln(control's time)."""
    found = _of_mean(sums)
    return _estimate(found, found, _parts_of_mean(blocks), sums.n, sums.n / LEAST, alpha, planned)


def of_buckets(
    epochs: Iterable[Arms[Buckets]], alpha: float, planned: int = PLANNED, blocks: Iterable[Arms[Buckets]] = ()
) -> MeanEstimate:
    """Compare arms whose units stay: `epochs` are the sums by buckets of units, `blocks` the same by blocks of time."""
    used = list(epochs)
    totals = [Arms(_total(epoch.control), _total(epoch.treatment)) for epoch in used]
    single = _of_epochs(totals)
    parts = _parts(used, totals)
    control, treatment = (_occupied(getattr(epoch, arm) for epoch in used) for arm in ("control", "treatment"))
    ready = min(control, treatment) / LEAST_BUCKETS
    return _estimate(_clustered(single, parts), single, _drift(blocks), len(parts), ready, alpha, planned)


def of_paired_buckets(
    buckets: Buckets, alpha: float, planned: int = PLANNED_PAIRS, blocks: Buckets | None = None
) -> MeanEstimate:
    """Compare two answers to one request each, where requests of one conversation were sampled together."""
    single, parts = _of_mean(_total(buckets)), _parts_of_mean(buckets) or _Parts()
    found = _clustered(single, parts)
    return _estimate(found, single, _parts_of_mean(blocks), len(parts), len(parts) / LEAST_BUCKETS, alpha, planned)


class Joint(Struct, frozen=True):
    """Estimates of y's and z's differences, with their variances and covariance; in ten-thousandths."""

    y: float = 0.0
    z: float = 0.0
    yy: float = 0.0
    yz: float = 0.0
    zz: float = 0.0

    def __add__(self, other: "Joint") -> "Joint":
        """Add an independent one."""
        return Joint(self.y + other.y, self.z + other.z, self.yy + other.yy, self.yz + other.yz, self.zz + other.zz)

    def weighted(self, by: float) -> "Joint":
        """Return it times a constant."""
        square = by * by
        return Joint(self.y * by, self.z * by, self.yy * square, self.yz * square, self.zz * square)

    def slope(self) -> float:
        """Return beta: how much of y goes with z."""
        return self.yz / self.zz if self.zz > 0 else 0.0

    def variance(self, beta: float) -> float:
        """Return the variance of y - beta z."""
        return max(self.yy - 2 * beta * self.yz + beta * beta * self.zz, 0.0)


def _estimate(
    found: Joint, single: Joint, drift: _Parts | None, n: int, ready: float, alpha: float, planned: int
) -> MeanEstimate:
    """Return y's difference without what z's explains.

    `single` is what independent requests would have, `drift` the parts of blocks of time.
    """
    beta = found.slope()
    own = variance = found.variance(beta)
    if drift is not None:
        ready = min(ready, len(drift) / LEAST_BLOCKS)
        drifting = drift_variance({number: y - beta * z for number, (y, z) in drift.items()})
        variance += max(drifting - single.variance(beta), 0.0)
    inflation = variance / own if own else 1.0
    difference = (found.y - beta * found.z) / SCALE
    return MeanEstimate(difference, variance / SCALE**2, n, inflation, ready, alpha, planned)


def _of_mean(sums: MeanSums) -> Joint:
    """Return the means of independent samples, with the variances of the means."""
    n = sums.n
    if n < 2:
        return Joint(sums.y, sums.z)
    among = n * n * (n - 1)
    return Joint(
        sums.y / n,
        sums.z / n,
        (n * sums.yy - sums.y * sums.y) / among,
        (n * sums.yz - sums.y * sums.z) / among,
        (n * sums.zz - sums.z * sums.z) / among,
    )


def _of_epochs(epochs: Iterable[Arms[MeanSums]]) -> Joint:
    """Return the differences of independent samples, the epochs weighted."""
    joint = Joint()
    for epoch, weight in _weighted(list(epochs)):
        joint += (_of_mean(epoch.treatment) + _of_mean(epoch.control).weighted(-1.0)).weighted(weight)
    return joint


def _weighted(totals: list[Arms[MeanSums]]) -> list[tuple[Arms[MeanSums], float]]:
    """Return each epoch with its weight; 0 where an arm has no sample. The weights add up to 1."""
    weights = [
        1 / (1 / one.control.n + 1 / one.treatment.n) if one.control.n and one.treatment.n else 0.0 for one in totals
    ]
    whole = sum(weights) or 1.0
    return [(total, weight / whole) for total, weight in zip(totals, weights, strict=True)]


def _total(buckets: Buckets) -> MeanSums:
    columns = zip(*((one.n, one.y, one.yy, one.z, one.zz, one.yz) for one in buckets.values()), strict=True)
    return MeanSums(*map(sum, columns))


def _occupied(arm: Iterable[Buckets]) -> int:
    return len({number for buckets in arm for number, sums in buckets.items() if sums.n})


def _drift(blocks: Iterable[Arms[Buckets]]) -> _Parts | None:
    """Return the parts of blocks of time, numbered through all epochs; None where there are no blocks."""
    used = list(blocks)
    return _parts(used, [Arms(_total(epoch.control), _total(epoch.treatment)) for epoch in used]) if used else None


def _parts(epochs: list[Arms[Buckets]], totals: list[Arms[MeanSums]]) -> _Parts:
    """Return each number's part in the deviation of the weighted difference, in whichever arms and epochs it was."""
    parts = _Parts()
    for epoch, (total, weight) in zip(epochs, _weighted(totals), strict=True):
        if weight:
            _spread(parts, epoch.treatment, total.treatment, weight)
            _spread(parts, epoch.control, total.control, -weight)
    return parts


def _parts_of_mean(buckets: Buckets | None) -> _Parts | None:
    """Return each number's part in the deviation of one mean; None where there are no buckets."""
    if buckets is None:
        return None
    total, parts = _total(buckets), _Parts()
    if total.n:
        _spread(parts, buckets, total, 1.0)
    return parts


def _spread(parts: _Parts, buckets: Buckets, total: MeanSums, weight: float) -> None:
    """Add to each number's part what this arm of this epoch brings."""
    each, mean_y, mean_z = weight / total.n, total.y / total.n, total.z / total.n
    for number, sums in buckets.items():
        if sums.n:
            y, z = parts.get(number, (0.0, 0.0))
            parts[number] = (y + each * (sums.y - mean_y * sums.n), z + each * (sums.z - mean_z * sums.n))


def _clustered(single: Joint, parts: _Parts) -> Joint:
    """Return the estimates with the variances between the parts."""
    m = len(parts)
    fair = m / (m - 1) if m > 1 else 0.0
    both = list(parts.values())
    yy, yz = fair * math.fsum(y * y for y, _ in both), fair * math.fsum(y * z for y, z in both)
    return Joint(single.y, single.z, yy, yz, fair * math.fsum(z * z for _, z in both))


def inflation(blocks: Buckets) -> float:
    """Return what the variance of one mean is multiplied by in blocks of time, over independent samples; at least 1.

    Of a share (of requests below a time) each sample is 1.0 or 0.0. With fewer than 32 blocks each counts as one
    sample. It cannot know of bursts that have not come yet: it is not to be trusted before some ten of them.
    """
    total, parts = _total(blocks), _parts_of_mean(blocks)
    alone = _of_mean(total).yy
    if not alone or not parts:
        return 1.0
    if len(parts) < LEAST_BLOCKS:
        return total.n / len(parts)
    return max(1.0, drift_variance({number: y for number, (y, _) in parts.items()}) / alone)
