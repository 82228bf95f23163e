"""M3 and M4: means of logarithms, drift, quantiles."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from ville import AsymptoticCS  # type: ignore[import-untyped]

from gateway.experiments.statistics.arms import Arms
from gateway.experiments.statistics.drift import drift_variance
from gateway.experiments.statistics.means import (
    MeanSums,
    boundary,
    inflation,
    of_buckets,
    of_paired_buckets,
    of_pairs,
    of_requests,
)
from gateway.experiments.statistics.quantiles import (
    BlockSums,
    Histogram,
    bucket,
    quantile_interval,
    quantile_ratio,
    upper_end,
)


def total(values: list[float], beside: list[float] | None = None) -> MeanSums:
    pairs = zip(values, beside or [0.0] * len(values), strict=True)
    return sum((MeanSums.of(*pair) for pair in pairs), MeanSums())


def normal(count: int, mean: float, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [round(chance.gauss(mean, 0.8), 4) for _ in range(count)]


def test_pairs_have_the_interval_of_ville_at_every_look() -> None:
    """Its asymptotic confidence sequence, given our rho: theirs is the minimum, found numerically."""
    values, planned, alpha = normal(600, 0.1, 1), 300, 0.05
    sequence = AsymptoticCS(alpha=alpha, t_opt=planned, min_samples=100)
    wide = -2 * math.log(alpha)
    assert sequence.rho_ == pytest.approx(planned / (wide + math.log(wide) + 1), rel=0.1)
    sequence.rho_ = planned / (wide + math.log(wide) + 1)
    sequence.fit(np.array(values))
    for look in (99, 100, 250, 600):
        ours = of_pairs(total(values[:look]), alpha, planned).interval()
        theirs = (sequence.lower_[look - 1], sequence.upper_[look - 1])
        assert (ours.low, ours.high) == pytest.approx(theirs)


@pytest.mark.parametrize("n", [300, 2000, 20_000])
@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 4])
def test_an_interval_is_the_narrowest_at_the_planned_sample(n: int, factor: float) -> None:
    """Planned for more or fewer it is wider; and never narrower than that of a single look."""
    assert 1.96 < boundary(n, 0.05, n) < boundary(n, 0.05, round(n * factor))


def test_two_arms_differ_by_the_difference_of_means() -> None:
    """With the variance of a difference of two means."""
    control, treatment = normal(400, 0.0, 2), normal(300, 0.1, 3)
    estimate = of_requests([Arms(total(control), total(treatment))], 0.05)
    assert estimate.difference == pytest.approx(np.mean(treatment) - np.mean(control))
    assert estimate.variance == pytest.approx(np.var(control, ddof=1) / 400 + np.var(treatment, ddof=1) / 300)
    assert (estimate.n, estimate.ready) == (700, 3.0)


def test_a_covariate_takes_out_what_it_explains() -> None:
    """As least squares with the arm and the covariate do: the same estimate, and a smaller variance."""
    chance = np.random.default_rng(4)
    arm, z = chance.random(2000) < 0.5, np.round(chance.normal(6, 1, 2000), 4)
    y = np.round(0.5 * z + 0.1 * arm + chance.normal(0, 0.3, 2000), 4)
    sides = [total(y[side].tolist(), z[side].tolist()) for side in (~arm, arm)]
    estimate = of_requests([Arms(*sides)], 0.05)
    design = np.column_stack([np.ones(2000), arm, z])
    fitted, residuals = np.linalg.lstsq(design, y, rcond=None)[:2]
    variance = residuals[0] / 1997 * np.linalg.inv(design.T @ design)[1, 1]
    assert estimate.difference == pytest.approx(fitted[1], abs=1e-3)
    assert estimate.variance == pytest.approx(variance, rel=0.02)


def test_epochs_are_compared_each_with_itself() -> None:
    """The treatment is twice as slow in either epoch, though faster than the control when all is added up."""
    quiet, busy = (
        (total(normal(900, 0, 5)), total(normal(100, 0.7, 6))),
        (total(normal(100, 3, 7)), total(normal(900, 3.7, 8))),
    )
    each = of_requests([Arms(*quiet), Arms(*busy)], 0.05)
    pooled = of_requests([Arms(quiet[0] + busy[0], quiet[1] + busy[1])], 0.05)
    assert each.difference == pytest.approx(0.7, abs=0.15)
    assert pooled.difference > 2


def test_buckets_of_one_request_each_are_requests() -> None:
    """The variance between buckets is then that of requests, but for n/(n-1)."""
    control, treatment = normal(400, 0.0, 2), normal(300, 0.1, 3)
    arms = Arms(
        {number: MeanSums.of(one) for number, one in enumerate(control)},
        {1000 + number: MeanSums.of(one) for number, one in enumerate(treatment)},
    )
    sticky, single = of_buckets([arms], 0.05), of_requests([Arms(total(control), total(treatment))], 0.05)
    assert sticky.difference == pytest.approx(single.difference)
    assert sticky.variance == pytest.approx(single.variance, rel=0.01)


def test_requests_that_are_alike_in_a_bucket_are_one() -> None:
    """Ten times each request, in its bucket: as if it had come once."""
    chance = random.Random(9)
    values = [round(chance.gauss(0, 1), 4) for _ in range(200)]
    once, ten = ({number: total([one] * count) for number, one in enumerate(values)} for count in (1, 10))
    halves = [Arms({n: one[n] for n in range(100)}, {n: one[n] for n in range(100, 200)}) for one in (once, ten)]
    assert of_buckets([halves[1]], 0.05).variance == pytest.approx(of_buckets([halves[0]], 0.05).variance)


def test_a_bucket_is_one_sample_over_all_epochs() -> None:
    """The same again in a second epoch makes nothing surer."""
    values = normal(200, 0, 10)
    arms = Arms({n: MeanSums.of(values[n]) for n in range(100)}, {n: MeanSums.of(values[n]) for n in range(100, 200)})
    assert of_buckets([arms, arms], 0.05).variance == pytest.approx(of_buckets([arms], 0.05).variance)


@pytest.mark.parametrize(("occupied", "known"), [(29, False), (30, True)])
def test_fewer_than_thirty_buckets_have_no_ends(occupied: int, known: bool) -> None:
    """In either arm."""
    values = normal(200, 0, 11)
    arms = Arms(
        {n: MeanSums.of(values[n]) for n in range(100)}, {n: MeanSums.of(values[n]) for n in range(100, 100 + occupied)}
    )
    assert math.isfinite(of_buckets([arms], 0.05).interval().low) is known
    pairs = {n: MeanSums.of(values[n]) for n in range(occupied)}
    assert math.isfinite(of_paired_buckets(pairs, 0.05).interval().low) is known


def test_no_samples_have_no_ends() -> None:
    """Nothing is asked of nothing, and nothing breaks."""
    for estimate in (
        of_requests([], 0.05),
        of_requests([Arms(MeanSums(), total(normal(200, 0, 1)))], 0.05),
        of_buckets([], 0.05),
        of_buckets([Arms({}, {1: MeanSums.of(1.0)})], 0.05),
        of_pairs(MeanSums(), 0.05),
        of_paired_buckets({}, 0.05),
    ):
        interval = estimate.interval()
        assert (interval.low, interval.high) == (-math.inf, math.inf)


def test_equal_samples_have_no_width() -> None:
    """A variance of 0 is none that breaks."""
    interval = of_pairs(total([0.5] * 200), 0.05).interval()
    assert (interval.low, interval.high) == pytest.approx((0.5, 0.5))


def test_independent_blocks_have_the_variance_of_their_sum() -> None:
    """Within what the largest of several estimates is too large by."""
    chance = random.Random(12)
    parts = {number: chance.gauss(0, 1) for number in range(1000)}
    assert 900 < drift_variance(parts) < 1800


def test_parts_that_hang_together_over_many_blocks_are_seen() -> None:
    """Twenty in a row are alike: their sum varies twenty times as much as if they were not."""
    chance = random.Random(13)
    levels = [chance.gauss(0, 1) for _ in range(100)]
    parts = {number: levels[number // 20] for number in range(2000)}
    assert 20 * 2000 / 2 < drift_variance(parts) < 20 * 2000 * 2.5


def test_few_blocks_say_nothing() -> None:
    """31, of 32."""
    assert drift_variance(dict.fromkeys(range(31), 1.0)) == 0.0
    blocks = Arms(*({n: total(normal(50, 0, n + seed)) for n in range(31)} for seed in (100, 200)))
    arms = Arms(sum(blocks.control.values(), MeanSums()), sum(blocks.treatment.values(), MeanSums()))
    assert math.isinf(of_requests([arms], 0.05, blocks=[blocks]).interval().high)


def test_sticky_units_in_a_queue_have_both_variances() -> None:
    """Where blocks of time differ, they add to what buckets differ by; where not, they add little."""
    chance = random.Random(14)
    steady, drifting = _sticky(chance, 0.0), _sticky(chance, 1.0)
    assert 1.0 <= steady < 2.0
    assert drifting > 3.0


def _sticky(chance: random.Random, drift: float) -> float:
    """Return the inflation of 8,000 requests of 400 units in 80 blocks of time, whose arms each drift by so much."""
    buckets, blocks = ({}, {}), ({}, {})  # type: tuple[dict[int, MeanSums], ...], tuple[dict[int, MeanSums], ...]
    level = [[drift * chance.gauss(0, 1) for _ in range(80)] for _ in "ab"]
    for request in range(8000):
        unit, block = chance.randrange(400), request // 100
        one = MeanSums.of(chance.gauss(0, 0.5) + level[unit % 2][block])
        for sums, number in ((buckets[unit % 2], unit), (blocks[unit % 2], block)):
            sums[number] = sums.get(number, MeanSums()) + one
    return of_buckets([Arms(*buckets)], 0.05, blocks=[Arms(*blocks)]).inflation


def test_pairs_drift_too() -> None:
    """Four pairs of 0.5 and four of -0.5 in turn: each four of a block are one; independent, they would be four."""
    blocks = {n: total([0.5 * (-1) ** n] * 4) for n in range(64)}
    every = sum(blocks.values(), MeanSums())
    drifting, alone = of_pairs(every, 0.05, blocks=blocks), of_pairs(every, 0.05)
    assert drifting.variance == pytest.approx(4 * alone.variance, rel=0.02)
    sticky = of_paired_buckets({0: every, **{n: MeanSums.of(0.0) for n in range(1, 40)}}, 0.05, blocks=blocks)
    assert sticky.variance > alone.variance


@pytest.mark.parametrize(
    ("blocks", "least", "most"),
    [({}, 1.0, 1.0), ({n: total([1.0, 0.0] * 5) for n in range(40)}, 1.0, 1.0), ({1: total([1.0, 0.0])}, 2.0, 2.0)],
)
def test_inflation_of_little_or_steady_blocks(blocks: dict[int, MeanSums], least: float, most: float) -> None:
    """None where blocks are alike; where there are few, a block is one sample."""
    assert least <= inflation(blocks) <= most


def test_rounds_that_are_all_or_nothing_are_one_sample_each() -> None:
    """Ten requests a round, all below or none."""
    sums = sum((BlockSums.of(10, 10 * (n % 2)) for n in range(200)), BlockSums())
    assert sums.inflation() == pytest.approx(10, rel=0.01)
    assert BlockSums().inflation() == 1.0


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 0.3, 1.0, 59.9, 3600.0])
def test_a_time_lies_in_its_bucket(seconds: float) -> None:
    """Within 2 % of its end."""
    number = bucket(seconds)
    assert upper_end(number - 1) * 0.9999 <= max(seconds, 1e-6) <= upper_end(number) * 1.0001


@pytest.mark.parametrize(
    ("n", "p", "below", "above"),
    [(2000, 0.5, -0.09, 0.08), (2000, 0.95, -0.12, 0.14), (10_000, 0.95, -0.08, 0.08), (500, 0.99, -0.3, math.inf)],
)
def test_quantiles_are_about_as_wide_as_designed(n: int, p: float, below: float, above: float) -> None:
    """Of log-normal times (0.8), at the expected ranks; 500 requests have no upper end of p99."""
    at = [math.exp(0.8 * _normal_quantile((k + 0.5) / n)) for k in range(n)]
    interval = quantile_interval(Histogram(Counter(map(bucket, at))), p, 0.05)
    assert interval.low / interval.estimate - 1 == pytest.approx(below, abs=0.04)
    assert interval.high / interval.estimate - 1 == pytest.approx(above, abs=0.04)


def _normal_quantile(p: float) -> float:
    low, high = -6.0, 6.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle / math.sqrt(2)) < 2 * p - 1 else (low, middle)
    return low


def histogram(done: int, left: int = 0, failed: int = 0) -> Histogram:
    """Return times around one second, those who left having waited a tenth."""
    return Histogram({bucket(1.0): done}, {bucket(0.1): left}, failed)


@pytest.mark.parametrize(
    ("one", "low", "high"),
    [
        (histogram(1000), 0.98, 1.0),
        (histogram(900, failed=100), 0.98, math.inf),
        (histogram(100, failed=900), math.inf, math.inf),
        (histogram(400, left=600), 0.98, math.inf),
        (histogram(50, left=950), 0.098, math.inf),
        (histogram(900, left=100), 0.98, math.inf),
        (Histogram(), 0.0, math.inf),
    ],
)
def test_failures_are_endless_and_leaving_is_between(one: Histogram, low: float, high: float) -> None:
    """Of p90: a tenth that failed or left leaves no upper end; those who left waited at least so long."""
    interval = quantile_interval(one, 0.9, 0.05)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=0.01)


def test_the_ratio_of_quantiles_has_the_quotients_of_the_ends() -> None:
    """Each at half of alpha."""
    chance = random.Random(15)
    arms = [Histogram(Counter(bucket(chance.lognormvariate(at, 0.8)) for _ in range(3000))) for at in (0.0, 0.3)]
    control, treatment = (quantile_interval(arm, 0.5, 0.025) for arm in arms)
    found = quantile_ratio(Arms(*arms), 0.5, 0.05).interval().ratio()
    assert found.low == pytest.approx(treatment.low / control.high)
    assert found.high == pytest.approx(treatment.high / control.low)
    assert 1.2 < found.estimate < 1.5


def test_inflated_quantiles_are_those_of_fewer_requests() -> None:
    """As wide, up to half a rank."""
    many, few = ({bucket(math.exp(0.01 * n)): count for n in range(400)} for count in (40, 10))
    wide = quantile_interval(Histogram(many), 0.5, 0.05, inflation=4.0)
    narrow = quantile_interval(Histogram(few), 0.5, 0.05)
    assert wide.low == pytest.approx(narrow.low, rel=0.03)
    assert wide.high == pytest.approx(narrow.high, rel=0.03)
