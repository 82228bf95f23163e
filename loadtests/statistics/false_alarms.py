"""A/A: two equal arms. Nothing may be found, looked at after every sample, more often than alpha."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from gateway.experiments.statistics.means import MeanSums, inflation
from gateway.experiments.statistics.quantiles import rank_shares
from gateway.experiments.statistics.scaled import SCALE
from loadtests.statistics import looks
from loadtests.statistics.finding import Finding
from loadtests.statistics.looks import Array
from loadtests.statistics.traffic import BUCKETS, first_of_each, log_times, of_unit, zipf_units

ALPHA = 0.05
STAGES = (0.05, 0.25, 0.5)


def independent_split(rng: Generator, runs: int) -> Finding:
    """Independent units at 25 %: the split is not called wrong."""
    treatment = rng.random((runs, 4000)) < 0.25
    alarms = looks.split(treatment, np.full(4000, 0.25), ALPHA)
    return Finding(runs, int((alarms >= 0).sum()), ALPHA, _peeking(treatment - 0.25, 0.25 * 0.75))


def independent_events(rng: Generator, runs: int) -> Finding:
    """Independent requests at 25 %, 2 % of which fail: errors are not called more or fewer."""
    treatment, failed = rng.random((runs, 8000)) < 0.25, rng.random((runs, 8000)) < 0.02
    arms = [arm[bad] for arm, bad in zip(treatment, failed, strict=True)]
    found = looks.rates(arms, [np.full(len(arm), 0.25) for arm in arms], ALPHA)
    return Finding(runs, int((found >= 0).sum()), ALPHA, _peeking(failed * (treatment - 0.25), 0.02 * 0.25 * 0.75))


def independent_times(rng: Generator, runs: int) -> Finding:
    """Independent requests at 50 %: times are not called longer or shorter."""
    treatment, y = rng.random((runs, 4000)) < 0.5, log_times(rng, (runs, 4000))
    wrong = looks.requests(y, treatment, ALPHA).alarms
    return Finding(runs, wrong, ALPHA, _peeking((y - math.log(0.3)) * (treatment - 0.5), 0.64 * 0.25))


def independent_times_with_covariate(rng: Generator, runs: int) -> Finding:
    """The same where times go with the prompt's length, which is taken out."""
    treatment, z = rng.random((runs, 4000)) < 0.5, np.round(rng.normal(6, 1, (runs, 4000)), 4)
    y = np.round(0.6 * z + rng.normal(0, 0.5, z.shape), 4)
    wrong = looks.requests(y, treatment, ALPHA, z=z).alarms
    return Finding(runs, wrong, ALPHA)


def independent_quantiles(rng: Generator, runs: int) -> Finding:
    """Independent requests: the intervals of p50, p95 and p99 hold their true values, at all looks together."""
    times = np.exp(rng.normal(0, 0.8, (3 * runs, 2000)))
    share = np.repeat([0.5, 0.95, 0.99], runs)
    normal = (0.0, 1.6448536, 2.3263479)
    thirds = zip((0.5, 0.95, 0.99), normal, np.split(times, 3), strict=True)
    missed = [looks.quantile(some, math.exp(0.8 * at), p, ALPHA) for p, at, some in thirds]
    below = times <= np.exp(0.8 * np.repeat(normal, runs))[:, None]
    peeked = _peeking(below - share[:, None], share * (1 - share))
    return Finding(3 * runs, int(np.concatenate(missed).sum()), ALPHA, peeked)


def _peeking(deviations: Array, variance: float | Array) -> int:
    """Return in how many runs a test for one look alone, at 1.96 standard errors, says something at any look."""
    n = 1 + np.arange(deviations.shape[1])
    deviations = np.abs(deviations.cumsum(axis=1)) / np.sqrt(n) / np.reshape(np.sqrt(variance), (-1, 1))
    return int((deviations[:, 100:] > 1.96).any(axis=1).sum())


def sticky_10_split(rng: Generator, runs: int) -> Finding:
    """Ten sticky units of unlike sizes: the split of units is not called wrong (that of requests is)."""
    return _sticky_split(rng, runs, 10)


def sticky_1000_split(rng: Generator, runs: int) -> Finding:
    """A thousand sticky units of unlike sizes: the split of units is not called wrong (that of requests is)."""
    return _sticky_split(rng, runs, 1000)


def sticky_10_events(rng: Generator, runs: int) -> Finding:
    """Ten sticky units, some of which fail often: first errors are not called more in an arm (all errors are)."""
    return _sticky_events(rng, runs, 10)


def sticky_1000_events(rng: Generator, runs: int) -> Finding:
    """A thousand sticky units, some of which fail often: first errors are not called more in an arm (all are)."""
    return _sticky_events(rng, runs, 1000)


def sticky_10_times(rng: Generator, runs: int) -> Finding:
    """Ten sticky units, each with times of its own: they are too few to say anything."""
    return _sticky_times(rng, runs, 10)


def sticky_1000_times(rng: Generator, runs: int) -> Finding:
    """A thousand sticky units, each with times of its own: buckets are not called slower (requests are)."""
    return _sticky_times(rng, runs, 1000)


def _sticky_split(rng: Generator, runs: int, units: int) -> Finding:
    unit, arm = zipf_units(rng, (runs, 4000), units), rng.random((runs, units)) < 0.5
    treatment = of_unit(rng, unit, arm)
    alarms = 0
    for run in range(runs):
        seen = treatment[run, first_of_each(unit[run])]
        alarms += int(looks.split(seen[None, :], np.full(len(seen), 0.5), ALPHA)[0] >= 0)
    of_requests = looks.split(treatment, np.full(4000, 0.5), ALPHA) >= 0
    return Finding(runs, alarms, ALPHA, int(of_requests.sum()))


def _sticky_events(rng: Generator, runs: int, units: int) -> Finding:
    unit, arm = zipf_units(rng, (runs, 4000), units), rng.random((runs, units)) < 0.5
    treatment, rate = of_unit(rng, unit, arm), of_unit(rng, unit, rng.beta(0.2, 2, (runs, units)))
    failed = rng.random(rate.shape) < rate
    every = [one[bad] for one, bad in zip(treatment, failed, strict=True)]
    once = [one[first_of_each(who[bad])] for one, who, bad in zip(every, unit, failed, strict=True)]
    wrong, plain = (looks.rates(arms, [np.full(len(one), 0.5) for one in arms], ALPHA) >= 0 for arms in (once, every))
    return Finding(runs, int(wrong.sum()), ALPHA, int(plain.sum()))


def _sticky_times(rng: Generator, runs: int, units: int) -> Finding:
    unit = zipf_units(rng, (runs, 6000), units)
    bucket = of_unit(rng, unit, rng.integers(0, BUCKETS, (runs, units)))
    own = of_unit(rng, unit, rng.normal(0, 0.5, (runs, units)))
    treatment, y = bucket % 2 == 1, np.round(log_times(rng, unit.shape) + own, 4)
    wrong, plain = looks.buckets(y, treatment, bucket, ALPHA).alarms, looks.requests(y, treatment, ALPHA).alarms
    return Finding(runs, wrong, ALPHA, plain)


def ramp_split(rng: Generator, runs: int) -> Finding:
    """A ramp of 5, 25, 50 %: each unit has the share of its time, and the split is not called wrong."""
    shares = np.repeat(STAGES, 2000)
    treatment = rng.random((runs, len(shares))) < shares
    wrong, plain = (looks.split(treatment, one, ALPHA) >= 0 for one in (shares, np.full(len(shares), shares.mean())))
    return Finding(runs, int(wrong.sum()), ALPHA, int(plain.sum()))


def ramp_events(rng: Generator, runs: int) -> Finding:
    """A ramp while the rate of errors swings 20-fold within a day: errors are not called more or fewer."""
    shares = np.repeat(STAGES, 4000)
    treatment = rng.random((runs, len(shares))) < shares
    failed = rng.random(treatment.shape) < 0.02 * np.exp(1.5 * _day(len(shares)))
    arms = [arm[bad] for arm, bad in zip(treatment, failed, strict=True)]
    found = looks.rates(arms, [shares[bad] for bad in failed], ALPHA)
    pooled = looks.rates(arms, [np.full(len(arm), shares.mean()) for arm in arms], ALPHA)
    return Finding(runs, int((found >= 0).sum()), ALPHA, int((pooled >= 0).sum()))


def ramp_times(rng: Generator, runs: int) -> Finding:
    """A ramp while times swing within a day: they are not called longer or shorter (pooled over the day they are)."""
    shares = np.repeat(STAGES, 2000)
    treatment = rng.random((runs, len(shares))) < shares
    y = np.round(log_times(rng, treatment.shape) + 0.5 * _day(len(shares)), 4)
    wrong = looks.requests(y, treatment, ALPHA, [slice(at, at + 2000) for at in (0, 2000, 4000)]).alarms
    plain = looks.requests(y, treatment, ALPHA).alarms
    return Finding(runs, wrong, ALPHA, plain)


def _day(samples: int) -> Array:
    """Return the hours of one day, from the least to the most and back a third of the way."""
    return np.asarray(-np.cos(np.linspace(0, 4 * math.pi / 3, samples)))


def bursts_events(rng: Generator, runs: int) -> Finding:
    """Errors in bursts that hit both arms: half of all within bursts. They are not called more in one of them."""
    burst = _bursts(rng, (runs, 8000))
    treatment, failed = rng.random(burst.shape) < 0.25, rng.random(burst.shape) < np.where(burst, 0.3, 0.005)
    arms = [arm[bad] for arm, bad in zip(treatment, failed, strict=True)]
    found = looks.rates(arms, [np.full(len(arm), 0.25) for arm in arms], ALPHA)
    return Finding(runs, int((found >= 0).sum()), ALPHA, _peeking(failed * (treatment - 0.25), failed.mean() * 0.1875))


def bursts_times(rng: Generator, runs: int) -> Finding:
    """Bursts in which both arms are three times as slow: times are not called longer or shorter."""
    burst = _bursts(rng, (runs, 4000))
    treatment, y = rng.random(burst.shape) < 0.5, np.round(log_times(rng, burst.shape) + 1.1 * burst, 4)
    wrong = looks.requests(y, treatment, ALPHA).alarms
    centred = y - y.mean()
    return Finding(runs, wrong, ALPHA, _peeking(centred * (treatment - 0.5), float(centred.var()) / 4))


def bursts_quantiles(rng: Generator, runs: int) -> Finding:
    """The interval of p95 under bursts holds its true value, inflated, after ten bursts; else it does not."""
    burst = _bursts(rng, (runs, 40_000))
    slow = rng.random(burst.shape) < np.where(burst, 0.5, 0.05 - 0.45 * RARE / (1 - RARE))
    late = slow.reshape(runs, -1, 100).sum(axis=2)  # of 100 requests in each block of time
    missed = [[_missed(blocks[:looked]) for looked in range(100, 401, 20)] for blocks in late]
    plain, wrong = np.array(missed).any(axis=1).sum(axis=0)
    return Finding(runs, int(wrong), ALPHA, int(plain))


def _missed(late: Array) -> list[bool]:
    """Return whether the true rank 0.95 is outside what is kept: as if requests were independent, and inflated."""
    blocks = {number: MeanSums(100, one * SCALE, one * SCALE**2) for number, one in enumerate(late.tolist())}
    n = 100 * len(late)
    kept = [rank_shares(n / by, 0.95, ALPHA) for by in (1.0, inflation(blocks))]
    return [not least <= 1 - late.sum() / n <= most for least, most in kept]


RARE = 0.05  # the share of requests in bursts


def _bursts(rng: Generator, shape: tuple[int, int], length: float = 40.0) -> Array:
    """Return which requests are in a burst: so many in a row, of all a share of `RARE`."""
    begins = rng.random(shape) < RARE / length / (1 - RARE)
    ends = rng.random(shape) < 1 / length
    now, burst = rng.random(shape[0]) < RARE, np.empty(shape, bool)
    for place in range(shape[1]):
        now = np.where(now, ~ends[:, place], begins[:, place])
        burst[:, place] = now
    return burst


def heavy_tails_times(rng: Generator, runs: int) -> Finding:
    """Times without a variance (Pareto's law, index 1.1): they are not called longer or shorter."""
    treatment, y = rng.random((runs, 4000)) < 0.5, np.round(rng.exponential(1 / 1.1, (runs, 4000)), 4)
    wrong = looks.requests(y, treatment, ALPHA).alarms
    return Finding(runs, wrong, ALPHA, _peeking((y - 1 / 1.1) * (treatment - 0.5), 0.25 / 1.21))


def heavy_tails_quantiles(rng: Generator, runs: int) -> Finding:
    """The interval of their p95 holds its true value."""
    times = np.exp(rng.exponential(1 / 1.1, (runs, 4000)))
    true = 0.05 ** (-1 / 1.1)
    wrong = looks.quantile(times, true, 0.95, ALPHA)
    return Finding(runs, int(wrong.sum()), ALPHA, _peeking((times <= true) - 0.95, 0.95 * 0.05))


def failing_client(rng: Generator, runs: int) -> Finding:
    """One client always fails, and is a fifth of the traffic: first errors roll nothing back (all errors do)."""
    unit = np.where(rng.random((runs, 4000)) < 0.2, 0, 1 + zipf_units(rng, (runs, 4000), 300))
    arm = rng.random((runs, 301)) < 0.25
    treatment = of_unit(rng, unit, arm)
    failed = (unit == 0) | (rng.random(unit.shape) < 0.01)
    every = [one[bad] for one, bad in zip(treatment, failed, strict=True)]
    once = [one[first_of_each(who[bad])] for one, who, bad in zip(every, unit, failed, strict=True)]
    wrong, plain = (_rolled_back(arms) for arms in (once, every))
    return Finding(runs, wrong, 0.01, plain)


def _rolled_back(arms: Sequence[Array]) -> int:
    """Return in how many runs a guardrail at 25 % says at any event that the treatment is worse."""
    found = looks.rates(arms, [np.full(len(one), 0.25) for one in arms], 0.01, above=0.0)
    return sum(int(one[: look + 1].sum()) >= 5 for one, look in zip(arms, found, strict=True) if look >= 0)
