"""Looks after every sample, of many runs at once. Each ends by asking the gateway's own function at the deciding look.

Arrays are of runs x samples. `first` is the number of the first look that saw something, -1 where none did.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.experiments.statistics import events, means, quantiles, sample_ratio
from gateway.experiments.statistics.arms import Arms, Split, Stratum
from gateway.experiments.statistics.drift import LEAST_BLOCKS
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.means import LEAST, LEAST_BUCKETS, PLANNED, PLANNED_PAIRS, MeanSums
from gateway.experiments.statistics.scaled import SCALE

Array = NDArray[Any]
GRID = np.array(events.GRID)
WEIGHTS = np.exp(-GRID * GRID / 2) / np.exp(-GRID * GRID / 2).sum()
TINY = 1e-12
SAME = 1e-5  # by which the gateway's figures may differ from those here


class Seen(NamedTuple):
    """What was seen of an interval: both ends at each look, and of each run the first look that excludes 0, or -1."""

    low: Array
    high: Array
    first: Array

    @property
    def alarms(self) -> int:
        """In how many runs a difference was seen."""
        return int((self.first >= 0).sum())


def first(seen: Array) -> Array:
    """Return the first look of each run that saw something, or -1."""
    return np.where(seen.any(axis=1), seen.argmax(axis=1), -1)


def deciding(looks: Array, samples: int) -> Array:
    """Return the look that decides each run: the first that saw something, or the last."""
    return np.where(looks < 0, samples - 1, looks)


def log_rising(start: float, most: int) -> Array:
    """Return ln Gamma(start + n) - ln Gamma(start) for n = 0 ... most."""
    return np.concatenate(([0.0], np.cumsum(np.log(start + np.arange(most)))))


def binomial_evidence(k: Array, n: Array, share: float, concentration: float) -> Array:
    """Return M1's ln E for arrays of counts."""
    most = int(n.max())
    a, b = concentration * share, concentration * (1 - share)
    mixture = log_rising(a, most)[k] + log_rising(b, most)[n - k] - log_rising(a + b, most)[n]
    return np.asarray(mixture - k * math.log(share) - (n - k) * math.log1p(-share))


def split(treatment: Array, shares: Array, alpha: float) -> Array:
    """M1: return the first unit, in the order in which they came, at which each run calls the split wrong, or -1."""
    evidence, before = np.empty(treatment.shape), np.zeros((len(treatment), 1))
    for share in dict.fromkeys(shares.tolist()):
        here = shares == share
        k = treatment[:, here].cumsum(axis=1)
        evidence[:, here] = before + binomial_evidence(
            k, np.broadcast_to(1 + np.arange(k.shape[1]), k.shape), share, sample_ratio.CONCENTRATION
        )
        before = evidence[:, here][:, -1:]
    found = first(evidence >= -math.log(alpha))
    for run, look in enumerate(deciding(found, treatment.shape[1])):
        epochs = strata(treatment[run, : look + 1], shares[: look + 1])
        assert abs(sample_ratio.log_evidence(epochs) - evidence[run, look]) < SAME
    return found


def rates(treatment: Sequence[Array], shares: Sequence[Array], alpha: float, above: float = -math.inf) -> Array:
    """M2: return the first event after which each run says that the arms differ, or -1.

    An event is given by whether it was the treatment's, and the share then. With `above` it is asked whether ln r is
    known to be larger than that; without, whether it is known not to be 0.
    """
    runs = zip(treatment, shares, strict=True)
    return np.array([_rates(np.asarray(arm), np.asarray(at), alpha, above) for arm, at in runs])


def _rates(treatment: Array, shares: Array, alpha: float, above: float) -> int:
    if not len(treatment):
        return -1
    at = 0.0 if above == -math.inf else above
    even = np.log(shares / (1 - shares))
    over = _cumulative(treatment, even, GRID) - _cumulative(treatment, even, np.array([at]))
    surplus = np.cumsum(treatment - 1 / (1 + np.exp(-at - even)))
    with np.errstate(over="ignore"):  # endless evidence is evidence
        seen = np.exp(over) @ WEIGHTS >= 1 / alpha
    if above != -math.inf:
        seen &= surplus > 0
    found = int(seen.argmax()) if seen.any() else -1
    look = found if found >= 0 else len(treatment) - 1
    interval = events.rate_ratio(strata(treatment[: look + 1], shares[: look + 1]), alpha).interval()
    assert (found >= 0) == (interval.low > at if above != -math.inf else not interval.low <= at <= interval.high)
    return found


def _cumulative(treatment: Array, even: Array, at: Array) -> Array:
    """Return ln L after each event (a row) for each ln r (a column), less what does not depend on r."""
    total = treatment.cumsum()[:, None] * at
    for odds in dict.fromkeys(even.tolist()):
        total = total - (even == odds).cumsum()[:, None] * np.log1p(np.exp(odds + at))
    return np.asarray(total)


def strata(treatment: Array, shares: Array) -> list[Stratum]:
    """Return what fell to each arm, by the shares, of units or events of one run."""
    found = []
    for share in dict.fromkeys(shares.tolist()):
        k, n = int(treatment[shares == share].sum()), int((shares == share).sum())
        found.append(Stratum(Split(n - k, k), share))
    return found


def requests(y: Array, treatment: Array, alpha: float, epochs: Sequence[slice] = (), z: Array | None = None) -> Seen:
    """M3 of independent requests: return what was seen.

    `y` and the covariate `z` are multiples of a ten-thousandth.
    """
    z = np.zeros_like(y) if z is None else z
    epochs = epochs or [slice(0, y.shape[1])]
    low, high = np.full(y.shape, -np.inf), np.full(y.shape, np.inf)
    done: list[tuple[Array, ...]] = []
    for epoch in epochs:
        now = _difference(y[:, epoch], z[:, epoch], treatment[:, epoch])
        low[:, epoch], high[:, epoch] = _ends([*done, now], alpha)
        done.append(tuple(part[:, -1:] for part in now))
    found = first((low > 0) | (high < 0))

    def asked(run: int, look: int) -> Interval:
        arms = [_arms(y[run], z[run], treatment[run], epoch, look) for epoch in epochs]
        return means.of_requests(arms, alpha).interval()

    return _agreed(found, low, high, asked)


def pairs(d: Array, alpha: float) -> Seen:
    """M3 of pairs: return what was seen of the mean difference."""
    n = np.broadcast_to(1.0 + np.arange(d.shape[1]), d.shape)
    s, ss = d.cumsum(axis=1), (d * d).cumsum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.sqrt(np.maximum(ss - s * s / n, 0.0) / (n * (n - 1))) * boundary(n, alpha, PLANNED_PAIRS)
    half = np.where(n >= LEAST, half, np.inf)
    low, high = s / n - half, s / n + half

    def asked(run: int, look: int) -> Interval:
        some = d[run, : look + 1]
        return means.of_pairs(sums(some, np.zeros(len(some))), alpha).interval()

    return _agreed(first((low > 0) | (high < 0)), low, high, asked)


def _difference(y: Array, z: Array, treatment: Array) -> tuple[Array, ...]:
    """Return the weight, the smaller n, n, and the joint estimates of y's and z's differences at each look."""
    joint = [np.zeros(y.shape) for _ in range(5)]
    counts = []
    for arm, sign in ((treatment, 1.0), (~treatment, -1.0)):
        n = arm.cumsum(axis=1).astype(float)
        sy, sz, syy, syz, szz = ((arm * value).cumsum(axis=1) for value in (y, z, y * y, y * z, z * z))
        with np.errstate(divide="ignore", invalid="ignore"):
            squares = ((n * syy - sy * sy), (n * syz - sy * sz), (n * szz - sz * sz))
            parts = (sy / n, sz / n, *(square / (n * n * (n - 1)) for square in squares))
        joint = [
            here + np.where(n > 1, part, 0.0) * by
            for here, part, by in zip(joint, parts, (sign, sign, 1, 1, 1), strict=True)
        ]
        counts.append(n)
    b, a = counts
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(np.minimum(a, b) > 1, 1 / (1 / a + 1 / b), 0.0)
    used = weight > 0
    return (weight, a * used, b * used, *joint)


def _ends(epochs: Sequence[tuple[Array, ...]], alpha: float) -> tuple[Array, Array]:
    whole = sum(epoch[0] for epoch in epochs)
    a, b = sum(epoch[1] for epoch in epochs), sum(epoch[2] for epoch in epochs)
    with np.errstate(divide="ignore", invalid="ignore"):
        y, z = (sum(epoch[0] / whole * epoch[place] for epoch in epochs) for place in (3, 4))
        yy, yz, zz = (sum((epoch[0] / whole) ** 2 * epoch[place] for epoch in epochs) for place in (5, 6, 7))
        beta = np.where(zz > 0, yz / zz, 0.0)
        variance = np.maximum(yy - beta * yz, 0.0)
        half = np.sqrt(variance) * boundary(np.asarray(a + b), alpha)
    ready, centre = np.minimum(a, b) >= LEAST, y - beta * z
    return np.where(ready, centre - half, -np.inf), np.where(ready, centre + half, np.inf)


def boundary(n: Array, alpha: float, planned: int = PLANNED) -> Array:
    """Return M3's boundary for an array of samples."""
    wide = -2 * math.log(alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * (wide + math.log(wide) + 1) / planned
        return np.asarray(np.sqrt((1 + 1 / spread) * np.log((spread + 1) / alpha**2)))


def _arms(y: Array, z: Array, treatment: Array, epoch: slice, look: int) -> Arms[MeanSums]:
    here = slice(epoch.start, min(epoch.stop, look + 1))
    arm = treatment[here]
    return Arms(*(sums(y[here][side], z[here][side]) for side in (~arm, arm)))


def sums(y: Array, z: Array) -> MeanSums:
    """Return the gateway's sums of multiples of a ten-thousandth."""
    y, z = np.rint(y * SCALE).astype(int), np.rint(z * SCALE).astype(int)
    return MeanSums(len(y), *(int(part.sum()) for part in (y, y * y, z, z * z, y * z)))


def _agreed(found: Array, low: Array, high: Array, asked: Callable[[int, int], Interval]) -> Seen:
    """Ask the gateway at the look that decides each run."""
    for run, look in enumerate(deciding(found, low.shape[1])):
        interval = asked(run, int(look))
        for here, there in ((low[run, look], interval.low), (high[run, look], interval.high)):
            assert here == there or abs(here - there) < SAME, (run, look, here, there)
    return Seen(low, high, found)


def buckets(y: Array, treatment: Array, bucket: Array, alpha: float) -> Seen:
    """M3 of sticky buckets: return what was seen."""
    n_before, s_before = _before(bucket, y)
    new = n_before == 0
    counts, centre, variance = [], np.zeros(y.shape), np.zeros(y.shape)
    for arm, sign in ((treatment, 1.0), (~treatment, -1.0)):
        n, s, m = (np.cumsum(arm * part, axis=1) for part in (1.0, y, new))
        ss = np.cumsum(arm * (2 * s_before * y + y * y), axis=1)
        sn = np.cumsum(arm * (s_before + y * n_before + y), axis=1)
        nn = np.cumsum(arm * (2 * n_before + 1), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = s / n
            centre = centre + sign * mean
            variance = variance + np.maximum(ss - 2 * mean * sn + mean * mean * nn, 0.0) / (n * n)
        counts.append(m)
    m = counts[0] + counts[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.sqrt(m / (m - 1) * variance) * boundary(m, alpha)
    ready = np.minimum(*counts) >= LEAST_BUCKETS
    low, high = np.where(ready, centre - half, -np.inf), np.where(ready, centre + half, np.inf)
    found = first((low > 0) | (high < 0))

    def asked(run: int, look: int) -> Interval:
        arms = by_number(y[run, : look + 1], treatment[run, : look + 1], bucket[run, : look + 1])
        return means.of_buckets([arms], alpha).interval()

    return _agreed(found, low, high, asked)


def by_number(y: Array, treatment: Array, number: Array) -> Arms[means.Buckets]:
    """Return the gateway's sums of each bucket, or block of time, of one run."""
    arms: list[means.Buckets] = []
    for arm in (~treatment, treatment):
        scaled, where = np.rint(y[arm] * SCALE).astype(int), number[arm]
        most = int(number.max()) + 1 if len(number) else 1
        n, s, ss = (np.bincount(where, part, most).astype(int) for part in (None, scaled, scaled * scaled))
        arms.append({int(one): MeanSums(int(n[one]), int(s[one]), int(ss[one])) for one in np.flatnonzero(n)})
    return Arms(*arms)


def blocks(y: Array, treatment: Array, block: Array, alpha: float) -> tuple[Array, Array, Array]:
    """M3 of independent requests in one run, by blocks of time: return the ends and the inflation, as of each block.

    The first look is at the end of the 32nd block.
    """
    most = int(block[-1])  # which is not finished
    parts = np.array(
        [
            [np.bincount(block[arm], part[arm], most + 1)[:most] for part in (np.ones_like(y), y, y * y)]
            for arm in (~treatment, treatment)
        ]
    )
    n, s, ss = parts.cumsum(axis=2).swapaxes(0, 1)[..., LEAST_BLOCKS - 1 :]
    mean = s / n
    alone = np.maximum(((ss - n * mean * mean) / (n * (n - 1))).sum(axis=0), TINY)
    between = np.zeros_like(alone)
    for look in range(len(alone)):
        until = look + LEAST_BLOCKS
        each = (parts[:, 1, :until] - mean[:, look, None] * parts[:, 0, :until]) / n[:, look, None]
        between[look] = _widest(each[1] - each[0])
    factor = 1 + np.maximum(between - alone, 0.0) / alone
    half = np.sqrt(alone * factor) * boundary(n.sum(axis=0) / factor, alpha)
    half = np.where(n.min(axis=0) >= LEAST, half, np.inf)
    return mean[1] - mean[0] - half, mean[1] - mean[0] + half, factor


def _widest(parts: Array) -> float:
    """Return the largest of the variances between blocks of 1, 2, 4 ... as long as there are 32."""
    widest = 0.0
    while len(parts) >= LEAST_BLOCKS:
        own, neighbours = float(parts @ parts), float(parts[1:] @ parts[:-1])
        widest = max(widest, len(parts) / (len(parts) - 1) * own + 2 * max(0.0, neighbours))
        parts = np.append(parts, np.zeros(len(parts) % 2)).reshape(-1, 2).sum(axis=1)
    return widest


def _before(bucket: Array, y: Array) -> tuple[Array, Array]:
    """Return of each sample how many came before it in its bucket, and their sum."""
    key = (np.arange(len(y))[:, None] * (int(bucket.max()) + 1) + bucket).ravel()
    order = np.argsort(key, kind="stable")
    sorted_key, sorted_y = key[order], y.ravel()[order]
    begins = np.flatnonzero(np.concatenate(([True], sorted_key[1:] != sorted_key[:-1])))
    sizes = np.diff(np.append(begins, len(key)))
    running = np.cumsum(sorted_y) - sorted_y
    n, s = np.empty(len(key)), np.empty(len(key))
    n[order] = np.arange(len(key)) - np.repeat(begins, sizes)
    s[order] = running - np.repeat(running[begins], sizes)
    return n.reshape(y.shape), s.reshape(y.shape)


def quantile(times: Array, true: float, p: float, alpha: float) -> Array:
    """M4 of one arm: return whether the true p-quantile was outside the interval at some look, for each run."""
    k = (times <= true).cumsum(axis=1)
    n = np.broadcast_to(1 + np.arange(times.shape[1]), k.shape)
    found = first(binomial_evidence(k, n, p, 8 / (p * (1 - p))) >= -math.log(alpha))
    for run, look in enumerate(deciding(found, times.shape[1])):
        rank, least, most = int(k[run, look]), *quantiles.rank_shares(look + 1, p, alpha)
        assert (found[run] >= 0) == (not least * (look + 1) <= rank <= most * (look + 1)) or _near(
            rank, least, most, look
        )
        interval = quantiles.quantile_interval(histogram(times[run, : look + 1]), p, alpha)
        assert found[run] >= 0 or interval.low <= true <= interval.high
    return found >= 0


def _near(rank: int, least: float, most: float, look: int) -> bool:
    """Whether a rank is within a half of an end: so much further out the gateway's ends may be."""
    return min(abs(rank - least * (look + 1)), abs(rank - most * (look + 1))) <= 0.5


def histogram(times: Array) -> quantiles.Histogram:
    """Return the gateway's histogram of times in seconds; infinite ones failed."""
    done = times[np.isfinite(times)]
    return quantiles.Histogram(Counter(map(quantiles.bucket, done.tolist())), failed=len(times) - len(done))
