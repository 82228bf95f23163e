"""M1 and M2: splits and events. Figures are those of the design, computed on their own, and of other libraries."""

import math

import numpy as np
import pytest
from ville import BernoulliTest  # type: ignore[import-untyped]

from gateway.experiments.statistics.arms import Split, Stratum
from gateway.experiments.statistics.events import drifting_rate_ratio, exposed, rate_ratio
from gateway.experiments.statistics.interval import UNKNOWN
from gateway.experiments.statistics.means import MeanSums, of_pairs
from gateway.experiments.statistics.paired import coin, toss
from gateway.experiments.statistics.sample_ratio import log_binomial_evidence, log_evidence, mismatched

# share, k, n, ln E of savvi 0.3.1: Multinomial(alpha, [1 - share, share], k=4).odds. It needs cvxpy, its solvers and
# matplotlib, half a gigabyte, so its figures are written down here.
SAVVI = [
    (0.05, 5, 40, -0.3155595463457015),
    (0.25, 40, 100, 3.383934594299319),
    (0.5, 70, 100, 6.28622664743753),
    (0.1, 1000, 10500, -2.7618259214788),
]


@pytest.mark.parametrize(("share", "k", "n", "expected"), SAVVI)
def test_the_evidence_is_that_of_savvi(share: float, k: int, n: int, expected: float) -> None:
    """The same Dirichlet mixture."""
    assert log_evidence([Stratum(Split(n - k, k), share)]) == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
@pytest.mark.parametrize("concentration", [4.0, 50.0])
def test_the_evidence_is_that_of_ville_at_every_look(share: float, concentration: float) -> None:
    """Its beta-binomial e-process, with the same prior: for M1, and for M4's ranks."""
    tosses = np.random.default_rng(1).random(300) < 0.3
    test = BernoulliTest(share, prior=(concentration * share, concentration * (1 - share))).fit(tosses.astype(float))
    counts = np.cumsum(tosses)
    ours = [log_binomial_evidence(int(k), n, share, concentration) for n, k in enumerate(counts, 1)]
    assert ours == pytest.approx(list(test.log_e_values_))


def test_epochs_multiply() -> None:
    """A ramp's evidence is the product of its stages', each by its own share."""
    stages = [Stratum(Split(90, 10), 0.1), Stratum(Split(40, 60), 0.5)]
    assert log_evidence(stages) == pytest.approx(sum(log_evidence([stage]) for stage in stages))


@pytest.mark.parametrize(
    ("split", "wrong"), [(Split(), False), (Split(950, 50), False), (Split(900, 100), True), (Split(1000, 0), True)]
)
def test_a_split_is_called_wrong(split: Split, wrong: bool) -> None:
    """Planned were 5 %."""
    assert mismatched([Stratum(split, 0.05)]) is wrong


@pytest.mark.parametrize(("share", "errors"), [(0.05, 4), (0.25, 7), (0.5, 13)])
def test_so_many_errors_of_the_treatment_alone_are_enough(share: float, errors: int) -> None:
    """At alpha 0.01, where the control has none; one less is not."""
    low = [rate_ratio([Stratum(Split(0, k), share)], 0.01).interval().low for k in (errors - 1, errors)]
    assert low[0] <= 0 < low[1]


@pytest.mark.parametrize(("heads", "tosses"), [(0.65, 101), (0.6, 251)])
def test_a_loaded_coin_is_found_after(heads: float, tosses: int) -> None:
    """The evidence reaches 20 there, if heads come as often as they should, and not one toss sooner."""
    evidence = [coin(Split(n - round(n * heads), round(n * heads)), 0.05).log_evidence() for n in (tosses - 1, tosses)]
    assert evidence[0] < math.log(20) <= evidence[1]


def test_the_interval_is_all_ratios_that_are_not_ruled_out() -> None:
    """By its definition, summed up directly: 12 of 30 events are the treatment's, whose share is a quarter."""
    k, m, share, alpha = 12, 30, 0.25, 0.05

    def likelihood(x: float) -> float:
        p = share * math.exp(x) / (share * math.exp(x) + 1 - share)
        return p**k * (1 - p) ** (m - k)

    grid = np.linspace(-5, 5, 200)
    mixture = np.average([likelihood(x) for x in grid], weights=np.exp(-grid * grid / 2))
    interval = rate_ratio([Stratum(Split(m - k, k), share)], alpha).interval()
    for end in (interval.low, interval.high):
        assert mixture / likelihood(end) == pytest.approx(1 / alpha, rel=1e-5)
    assert interval.estimate == pytest.approx(math.log(12 / 18 * 3))


@pytest.mark.parametrize(
    ("split", "low", "high"),
    [(Split(), -math.inf, math.inf), (Split(9, 0), -math.inf, 0.4), (Split(0, 9), -0.4, math.inf)],
)
def test_an_end_is_endless_where_nothing_bounds_it(split: Split, low: float, high: float) -> None:
    """No events at all, or none of one arm."""
    interval = rate_ratio([Stratum(split, 0.5)], 0.05).interval()
    assert (interval.low == low, interval.high == high) == (math.isinf(low), math.isinf(high))
    assert interval.low >= low or math.isinf(low)


def test_control_and_treatment_swapped_are_the_mirror_image() -> None:
    """The interval of 1/r."""
    strata = [Stratum(Split(10, 20), 0.5), Stratum(Split(30, 5), 0.1)]
    swapped = [Stratum(Split(one.split.treatment, one.split.control), 1 - one.share) for one in strata]
    one, other = (rate_ratio(each, 0.05).interval() for each in (strata, swapped))
    assert (one.low, one.estimate, one.high) == pytest.approx((-other.high, -other.estimate, -other.low))


def test_more_of_the_same_is_narrower() -> None:
    """What would come of three times the events is what comes of them."""
    estimate, larger = (rate_ratio([Stratum(Split(10 * n, 20 * n), 0.5)], 0.05) for n in (1, 3))
    grown, counted = estimate.interval(3.0), larger.interval()
    assert (grown.low, grown.high) == pytest.approx((counted.low, counted.high))


def test_inflation_is_as_many_fewer_events() -> None:
    """Events that come in threes count for a third."""
    strata = [Stratum(Split(30, 60), 0.5)]
    inflated, fewer = rate_ratio(strata, 0.05, 3.0), rate_ratio([Stratum(Split(10, 20), 0.5)], 0.05)
    assert inflated.interval().low == pytest.approx(fewer.interval().low)
    assert inflated.log_evidence() == pytest.approx(fewer.log_evidence())


def test_events_that_come_together_say_nothing_before_drift_is_known() -> None:
    """The estimate of the shares is not ready."""
    share = of_pairs(MeanSums.of(1.0), 0.05)
    assert drifting_rate_ratio([Stratum(Split(0, 99), 0.5)], share, 0.05).interval() == UNKNOWN


def test_exposure_is_a_share() -> None:
    """20 of 30 events in two thirds of the exposure are nothing."""
    interval = rate_ratio([exposed(Split(10, 20), Split(500, 1000))], 0.05).interval()
    assert interval.estimate == pytest.approx(0.0)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    """At 100 % there is nothing left to compare with."""
    with pytest.raises(ValueError, match="share: a number above 0 and below 1 was expected"):
        Stratum(Split(1, 2), share)


@pytest.mark.parametrize(("scores", "fell"), [((0.1, 0.3), Split(0, 1)), ((0.3, 0.1), Split(1, 0)), ((2, 2), Split())])
def test_the_higher_score_is_a_toss(scores: tuple[float, float], fell: Split) -> None:
    """Equal ones are none."""
    assert toss(*scores) == fell
