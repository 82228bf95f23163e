"""Arms that differ: what is there is found in time, and what only looks good is not called so."""

import math

import numpy as np
from numpy.random import Generator

from gateway.experiments.statistics.arms import Arms
from gateway.experiments.statistics.means import UNANSWERED
from gateway.experiments.statistics.quantiles import Histogram, quantile_interval, quantile_ratio
from gateway.experiments.statistics.sample_ratio import ALPHA as SPLIT_ALPHA
from gateway.experiments.statistics.verdict import GOOD, Pace, judge
from loadtests.statistics import looks
from loadtests.statistics.finding import Finding
from loadtests.statistics.looks import Array, Seen
from loadtests.statistics.traffic import log_times

ALPHA = 0.05
GUARD = 0.01
MARGIN = math.log1p(0.05)
TENTH = math.log(1.1)
NORMAL = 1.959964 + 1.281552  # of a test with alpha 0.05 that finds what is there in nine of ten cases
MISSED = 0.1


def tenth_slower(rng: Generator, runs: int) -> Finding:
    """Times 10 % longer at equal load: seen in nine of ten runs, within twice the sample of a test with one look."""
    alone = 4 * 0.8**2 * (NORMAL / TENTH) ** 2
    treatment = rng.random((runs, int(2 * alone))) < 0.5
    y = np.round(log_times(rng, treatment.shape) + TENTH * treatment, 4)
    return _found(looks.requests(y, treatment, ALPHA).first, alone)


def tenth_slower_by_length(rng: Generator, runs: int) -> Finding:
    """The same where six tenths of the variance are the prompt's length, which is taken out: with that much fewer."""
    alone = 4 * 0.8**2 * 0.4 * (NORMAL / TENTH) ** 2
    treatment = rng.random((runs, int(2 * alone))) < 0.5
    z = np.round(rng.normal(6, 1, treatment.shape), 4)
    y = np.round(0.8 * (math.sqrt(0.6) * z + math.sqrt(0.4) * rng.normal(0, 1, z.shape)) + TENTH * treatment, 4)
    return _found(looks.requests(y, treatment, ALPHA, z=z).first, alone)


def tenth_slower_in_pairs(rng: Generator, runs: int) -> Finding:
    """The same of pairs, whose logarithms differ with a standard deviation of 0.35."""
    alone = 0.35**2 * (NORMAL / TENTH) ** 2
    d = np.round(rng.normal(TENTH, 0.35, (runs, int(2 * alone))), 4)
    return _found(looks.pairs(d, ALPHA).first, alone)


def more_events(rng: Generator, runs: int) -> Finding:
    """What happens to 10 % of requests happens to 13 % in the treatment: seen within twice the events of one look.

    Whose an event is is a coin, and its odds are known by a test of one look from (2 NORMAL / ln 1.3)^2 events on.
    """
    alone = (2 * NORMAL / math.log(1.3)) ** 2
    treatment = rng.random((runs, int(2 * alone))) < 1.3 / 2.3
    return _found(looks.rates([*treatment], [np.full(len(one), 0.5) for one in treatment], ALPHA), alone)


def tenfold_errors(rng: Generator, runs: int) -> Finding:
    """Errors rise from 0.5 to 5 % on an arm of 5 %: the guardrail sees it within 6,000 requests in nine of ten runs."""
    treatment = rng.random((runs, 6000)) < 0.05
    failed = rng.random(treatment.shape) < np.where(treatment, 0.05, 0.005)
    return _found(_events(treatment, failed, 0.05), 0.0)


def _found(seen: Array, alone: float) -> Finding:
    """Return in how many runs nothing was seen, with how many samples half of the runs needed."""
    later = np.where(seen < 0, np.inf, seen + 1)
    figures = {"one look": alone, "median": float(np.median(later))}
    return Finding(len(seen), int((seen < 0).sum()), MISSED, None, figures)


def _events(treatment: Array, happened: Array, share: float, above: float = 0.0) -> Array:
    """Return the request at which each run knows that something happens more often in the treatment, or -1."""
    places = [np.flatnonzero(run) for run in happened]
    arms = [arm[place] for arm, place in zip(treatment, places, strict=True)]
    found = looks.rates(arms, [np.full(len(arm), share) for arm in arms], GUARD, above)
    return np.array([int(place[look]) if look >= 0 else -1 for place, look in zip(places, found, strict=True)])


def slow_ones_fail(rng: Generator, runs: int) -> Finding:
    """The treatment fails its slowest 5 %: it is not called good, though those that it did not fail are faster."""
    treatment, y = rng.random((runs, 6000)) < 0.5, log_times(rng, (runs, 6000))
    failed = np.where(treatment, y > math.log(0.3) + 0.8 * 1.645, rng.random(y.shape) < 0.005)
    return _fooled(treatment, y, failed)


def slow_ones_are_left(rng: Generator, runs: int) -> Finding:
    """Clients leave after 1 s, and every seventh answer of the treatment takes five times as long, the others 5 % less.

    It is not called good, though those clients who stay see a faster engine.
    """
    treatment, y = rng.random((runs, 6000)) < 0.5, log_times(rng, (runs, 6000), 0.6)
    slow = rng.random(y.shape) < 1 / 7
    y = np.round(y + treatment * np.where(slow, math.log(5), math.log(0.95)), 4)
    return _fooled(treatment, y, y > 0)


def _fooled(treatment: Array, y: Array, missing: Array) -> Finding:
    """Return in how many runs a look at mean times finds the treatment good, or p95 is called good at the end.

    The plain method leaves out the requests that have no time. Also: when the guardrail said that they are more.
    """
    good = looks.requests(np.where(missing, np.round(math.log(UNANSWERED), 4), y), treatment, ALPHA).high < MARGIN
    quantiles = np.array([_called_good(*run) for run in zip(treatment, y, missing, strict=True)])
    plain = sum(_rest_is_good(*run) for run in zip(treatment, y, missing, strict=True))
    noticed = float(np.median(_events(treatment, missing, 0.5)))
    return Finding(len(y), int((good.any(axis=1) | quantiles).sum()), ALPHA, plain, {"noticed after": noticed})


def _rest_is_good(treatment: Array, y: Array, missing: Array) -> bool:
    """Whether the times of those that have one are called good at some look."""
    seen = looks.requests(y[None, ~missing], treatment[None, ~missing], ALPHA)
    return bool((seen.high < MARGIN).any())


def _called_good(treatment: Array, y: Array, missing: Array) -> bool:
    """Whether p95 is called good, with requests that have no time as endless."""
    times = np.where(missing, np.inf, np.exp(y))
    arms = Arms(looks.histogram(times[~treatment]), looks.histogram(times[treatment]))
    return judge(quantile_ratio(arms, 0.95, ALPHA), 0.05, Pace(len(y), 60.0)).judgement in GOOD


def abandoned_quantiles(rng: Generator, runs: int) -> Finding:
    """Clients leave after 1 s on average: p50's interval holds what all would have waited (that of the rest: no)."""
    waited, patience = np.exp(log_times(rng, (runs, 3000))), rng.exponential(1.0, (runs, 3000))
    wrong = plain = 0
    for run, patient in zip(waited, patience, strict=True):
        left = patient < run
        rest = looks.histogram(run[~left])
        whole = Histogram(rest.done, looks.histogram(patient[left]).done)
        intervals = [quantile_interval(one, 0.5, ALPHA) for one in (whole, rest)]
        wrong += not intervals[0].low <= 0.3 <= intervals[0].high
        plain += not intervals[1].low <= 0.3 <= intervals[1].high
    return Finding(runs, wrong, ALPHA, plain)


def slow_start(rng: Generator, runs: int) -> Finding:
    """A router gives the treatment less than its share at first, and so it is faster: the split is seen to be wrong.

    So better is not said, which its times alone say.
    """
    share = np.minimum(0.5, np.linspace(0.05, 1.0, 4000))
    treatment = rng.random((runs, 4000)) < share
    y = np.round(log_times(rng, treatment.shape) - treatment * (0.5 - share), 4)
    seen: Seen = looks.requests(y, treatment, ALPHA)
    good = looks.first(seen.high < MARGIN)
    mismatch = looks.split(treatment, np.full(4000, 0.5), SPLIT_ALPHA)
    fooled = (good >= 0) & ((mismatch < 0) | (mismatch > good))
    return Finding(
        runs, int(fooled.sum()), ALPHA, int((good >= 0).sum()), {"noticed after": float(np.median(mismatch))}
    )
