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
- `of_pairs`, `of_paired_buckets`: d is the mean difference of two answers to one request, of the two shadows.

Over epochs, d is the mean of their differences, weighted by a b / (a + b) for a and b samples in the arms: no epoch is
compared with another, so a ramp that meets a busy hour shows no difference that is not there (Simpson's paradox).

A covariate z known before the arm was drawn (ln of the prompt's tokens, or what was in flight) takes out what it
explains: d - beta dz, with beta = Cov(d, dz)/V(dz). A. Deng, Y. Xu, R. Kohavi, T. Walker, "Improving the sensitivity
of online controlled experiments by utilizing pre-experiment data" (CUPED), WSDM 2013. Never one known only afterwards,
such as the answer's length.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gateway.experiments.statistics.arms import Arms
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.scaled import SCALE, scaled

PLANNED = 2_000  # samples, at which intervals are narrowest
LEAST = 100  # samples in each arm, below which a large-sample formula says nothing
LEAST_BUCKETS = 30  # occupied in each arm

Buckets = Mapping[int, "MeanSums"]


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
    """A mean difference, its variance, and what both rest on: `n` samples, of them `smaller` in the smaller arm."""

    difference: float
    variance: float
    n: int
    smaller: int
    least: int
    alpha: float
    planned: int

    def interval(self, growth: float = 1.0) -> Interval:
        """Return the interval of the difference; without ends while an arm has fewer than the least samples."""
        n, variance = self.n * growth, self.variance / growth
        if self.smaller * growth < self.least:
            return Interval(-math.inf, self.difference, math.inf)
        half = math.sqrt(variance) * boundary(n, self.alpha, self.planned)
        return Interval(self.difference - half, self.difference, self.difference + half)


def boundary(n: float, alpha: float, planned: int = PLANNED) -> float:
    """Return how many standard errors the interval of n samples reaches to each side."""
    wide = -2 * math.log(alpha)
    spread = n * (wide + math.log(wide) + 1) / planned  # n rho^2
    return math.sqrt((1 + 1 / spread) * math.log((spread + 1) / alpha**2))


def of_requests(epochs: Iterable[Arms[MeanSums]], alpha: float, planned: int = PLANNED) -> MeanEstimate:
    """Compare arms that were drawn anew for each request."""
    used = [epoch for epoch in epochs if min(epoch.control.n, epoch.treatment.n) > 1]
    whole = sum(_weight(epoch.control.n, epoch.treatment.n) for epoch in used)
    joint = Joint()
    for epoch in used:
        joint += _of_arms(epoch).weighted(_weight(epoch.control.n, epoch.treatment.n) / whole)
    arms = [sum(epoch.control.n for epoch in used), sum(epoch.treatment.n for epoch in used)]
    return joint.estimate(sum(arms), min(arms), LEAST, alpha, planned)


def of_pairs(sums: MeanSums, alpha: float, planned: int = PLANNED) -> MeanEstimate:
    """Compare two answers to one request each: the sums are of ln(treatment's time) - ln(control's time)."""
    return _of_mean(sums).estimate(sums.n, sums.n, LEAST, alpha, planned)


def of_buckets(epochs: Iterable[Arms[Buckets]], alpha: float, planned: int = PLANNED) -> MeanEstimate:
    """Compare arms whose units stay where they are: `epochs` hold the sums of each bucket of units."""
    used = [_Epoch.of(epoch) for epoch in epochs]
    whole = sum(epoch.weight for epoch in used)
    found, parts = Joint(), dict[int, tuple[float, float]]()
    for epoch in used:
        if epoch.weight:
            found += epoch.difference().weighted(epoch.weight / whole)
            epoch.spread(parts, epoch.weight / whole)
    arms = [
        len(set().union(*(arm for arm in side))) for side in zip(*(epoch.occupied() for epoch in used), strict=True)
    ]
    return _clustered(found, parts, min(arms, default=0), alpha, planned)


def of_paired_buckets(buckets: Buckets, alpha: float, planned: int = PLANNED) -> MeanEstimate:
    """Compare two answers to one request each, where requests of one conversation were sampled together."""
    total = _total(buckets)
    parts = dict[int, tuple[float, float]]()
    if total.n:
        _spread(parts, buckets, total, 1.0)
    mean = Joint(total.y / max(total.n, 1), total.z / max(total.n, 1))
    return _clustered(mean, parts, len(parts), alpha, planned)


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

    def estimate(self, n: int, smaller: int, least: int, alpha: float, planned: int) -> MeanEstimate:
        """Return y's difference without what z's explains."""
        beta = self.yz / self.zz if self.zz > 0 else 0.0
        variance = max(self.yy - beta * self.yz, 0.0)
        difference = self.y - beta * self.z
        return MeanEstimate(difference / SCALE, variance / SCALE**2, n, smaller, least, alpha, planned)


def _weight(a: int, b: int) -> float:
    return a * b / (a + b) if a and b else 0.0


def _of_arms(epoch: Arms[MeanSums]) -> Joint:
    return _of_mean(epoch.treatment) + _of_mean(epoch.control).weighted(-1.0)


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


class _Epoch(Struct, frozen=True):
    buckets: Arms[Buckets]
    total: Arms[MeanSums]
    weight: float

    @staticmethod
    def of(buckets: Arms[Buckets]) -> "_Epoch":
        total = Arms(_total(buckets.control), _total(buckets.treatment))
        return _Epoch(buckets, total, _weight(total.control.n, total.treatment.n))

    def occupied(self) -> tuple[set[int], set[int]]:
        arms = (self.buckets.control, self.buckets.treatment)
        control, treatment = ({number for number, sums in arm.items() if sums.n} for arm in arms)
        return control, treatment

    def difference(self) -> Joint:
        a, b = self.total.control, self.total.treatment
        return Joint(b.y / b.n - a.y / a.n, b.z / b.n - a.z / a.n)

    def spread(self, parts: dict[int, tuple[float, float]], weight: float) -> None:
        _spread(parts, self.buckets.treatment, self.total.treatment, weight)
        _spread(parts, self.buckets.control, self.total.control, -weight)


def _total(buckets: Buckets) -> MeanSums:
    """Return what the mean needs of all buckets; the squares are not."""
    sums = buckets.values()
    return MeanSums(n=sum(one.n for one in sums), y=sum(one.y for one in sums), z=sum(one.z for one in sums))


def _spread(parts: dict[int, tuple[float, float]], buckets: Buckets, total: MeanSums, weight: float) -> None:
    """Add to each bucket's part in the estimate's deviation what this arm of this epoch brings."""
    each, mean_y, mean_z = weight / total.n, total.y / total.n, total.z / total.n
    for number, sums in buckets.items():
        if sums.n:
            y, z = parts.get(number, (0.0, 0.0))
            parts[number] = (y + each * (sums.y - mean_y * sums.n), z + each * (sums.z - mean_z * sums.n))


def _clustered(
    found: Joint, parts: Mapping[int, tuple[float, float]], smaller: int, alpha: float, planned: int
) -> MeanEstimate:
    """Return the estimate whose variance is that between the buckets' parts."""
    m = len(parts)
    fair = m / (m - 1) if m > 1 else 0.0
    both: Sequence[tuple[float, float]] = list(parts.values())
    yy = fair * math.fsum(y * y for y, _ in both)
    yz = fair * math.fsum(y * z for y, z in both)
    zz = fair * math.fsum(z * z for _, z in both)
    return Joint(found.y, found.z, yy, yz, zz).estimate(m, smaller, LEAST_BUCKETS, alpha, planned)
