"""Two engines of ten slots, each with a queue of its own: what equal and unequal loads do to times to first token."""

import numpy as np
from numpy.random import Generator

from gateway.experiments.statistics import comparable, means
from gateway.experiments.statistics.arms import Arms
from gateway.experiments.statistics.comparable import Offered
from gateway.experiments.statistics.drift import LEAST_BLOCKS
from gateway.experiments.statistics.events import drifting_rate_ratio
from gateway.experiments.statistics.verdict import GOOD, Judgement, Pace, judge
from loadtests.statistics import looks
from loadtests.statistics.finding import Finding
from loadtests.statistics.looks import Array
from loadtests.statistics.queueing import SLOTS, served

ALPHA = 0.05
MARGIN = 0.05
REQUESTS = 6000
BLOCK = 4.0  # times the mean time of service
PACE = Pace(REQUESTS, 60.0)


def unequal_load(rng: Generator, runs: int) -> Finding:
    """Two equal engines at 90/10: not comparable at any look, so never better (by its times alone it is)."""
    treatment = rng.random((runs, REQUESTS)) < 0.1
    _, y = _first_tokens(rng, treatment, 9.4)
    wrong, plain = np.zeros(runs, bool), np.zeros(runs, bool)
    for run, look in ((run, look) for run in range(runs) for look in range(1000, REQUESTS + 1, 500)):
        arms = [y[run, :look][arm] for arm in (~treatment[run, :look], treatment[run, :look])]
        estimate = means.of_requests([Arms(*(looks.sums(one, np.zeros(len(one))) for one in arms))], ALPHA)
        obstacles = comparable.of_load(Arms(*(Offered(len(one), SLOTS) for one in arms)))
        wrong[run] |= judge(estimate, MARGIN, PACE, obstacles).judgement is not Judgement.NOT_COMPARABLE
        plain[run] |= judge(estimate, MARGIN, PACE).judgement is Judgement.BETTER
    return Finding(runs, int(wrong.sum()), 0.0, int(plain.sum()))


def equal_load(rng: Generator, runs: int) -> Finding:
    """Two equal engines at 50/50, 85 % busy: times are not called longer or shorter (as if independent they are)."""
    treatment = rng.random((runs, REQUESTS)) < 0.5
    at, y = _first_tokens(rng, treatment, 17.0)
    wrong, factor = _blocks(at, y, treatment)
    plain = looks.requests(y, treatment, ALPHA).alarms
    return Finding(runs, wrong, ALPHA, plain, {"inflation": factor})


def late_tokens(rng: Generator, runs: int) -> Finding:
    """Two equal engines at 50/50, 85 % busy: late tokens are not called more in one (counted one by one they are)."""
    treatment = rng.random((runs, REQUESTS)) < 0.5
    at, y = _first_tokens(rng, treatment, 17.0)
    late = y > np.quantile(y, 0.95)
    arms = [arm[bad] for arm, bad in zip(treatment, late, strict=True)]
    plain = looks.rates(arms, [np.full(len(arm), 0.5) for arm in arms], ALPHA) >= 0
    runs_at = [(at[run] / BLOCK).astype(int) for run in range(runs)]
    wrong = [
        any(_late(late[run], treatment[run], block, until) for until in range(LEAST_BLOCKS, int(block[-1]), 8))
        for run, block in enumerate(runs_at)
    ]
    return Finding(runs, sum(wrong), ALPHA, int(plain.sum()))


def _late(late: Array, treatment: Array, block: Array, until: int) -> bool:
    """Whether late tokens are called more in one arm, at the end of a block."""
    seen = block < until
    share = _estimate(late[seen] * 1.0, treatment[seen], block[seen])
    which = treatment[seen & late]
    interval = drifting_rate_ratio(looks.strata(which, np.full(len(which), 0.5)), share, ALPHA).interval()
    return not interval.low <= 0 <= interval.high


def slower_engine(rng: Generator, runs: int) -> Finding:
    """A treatment that works a quarter slower, at 50/50, half busy: never good enough at the end, and worse in most."""
    treatment = rng.random((runs, REQUESTS)) < 0.5
    work = rng.exponential(1.0, treatment.shape) * np.where(treatment, 1.25, 1.0)
    at, waited = served(rng, treatment, 10.0, work)
    y = np.round(np.log(waited + 0.3 * work), 4)
    estimates = [_estimate(*_finished(y[run], treatment[run], at[run])) for run in range(runs)]
    words = [judge(estimate, MARGIN, PACE).judgement for estimate in estimates]
    good = sum(word in GOOD for word in words)
    return Finding(runs, good, ALPHA, None, {"worse": words.count(Judgement.WORSE) / runs})


def _first_tokens(rng: Generator, treatment: Array, load: float) -> tuple[Array, Array]:
    """Return when requests came, and the logarithms of their times to first token: queue and prefill."""
    at, waited = served(rng, treatment, load, rng.exponential(1.0, treatment.shape))
    return at, np.round(np.log(waited + 0.1 * np.exp(rng.normal(0, 0.3, treatment.shape))), 4)


def _finished(y: Array, treatment: Array, at: Array) -> tuple[Array, Array, Array]:
    """Return what was in finished blocks of time, and in which."""
    block = (at / BLOCK).astype(int)
    whole = block < block[-1]
    return y[whole], treatment[whole], block[whole]


def _estimate(y: Array, treatment: Array, block: Array) -> means.MeanEstimate:
    """Return what the gateway says of one run."""
    arms = looks.by_number(y, treatment, block)
    every = Arms(*(sum(arm.values(), means.MeanSums()) for arm in (arms.control, arms.treatment)))
    return means.of_requests([every], ALPHA, blocks=[arms])


def _blocks(at: Array, y: Array, treatment: Array) -> tuple[int, float]:
    """Return in how many runs a look at the end of any block says that the arms differ, and the mean inflation."""
    wrong, factors = 0, []
    for run in range(len(y)):
        block = (at[run] / BLOCK).astype(int)
        low, high, factor = looks.blocks(y[run], treatment[run], block, ALPHA)
        seen = np.flatnonzero((low > 0) | (high < 0))
        last = int(seen[0]) if len(seen) else len(low) - 1
        until = block < last + LEAST_BLOCKS
        interval = _estimate(y[run, until], treatment[run, until], block[until]).interval()
        assert abs(interval.low - low[last]) + abs(interval.high - high[last]) < looks.SAME
        wrong += len(seen) > 0
        factors.append(float(factor[-1]))
    return wrong, float(np.mean(factors))
