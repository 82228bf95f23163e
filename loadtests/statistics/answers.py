"""Answers of two engines, and of one asked twice: equal engines are not told apart, planted differences are found."""

import numpy as np
from numpy.random import Generator

from gateway.experiments.statistics.arms import Arms, Split
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.likelihood import ScoreSums, nats_per_token
from gateway.experiments.statistics.parity import Answers, judge_answers
from gateway.experiments.statistics.tool_calls import agreement_lost
from gateway.experiments.statistics.verdict import Judgement, Pace
from loadtests.statistics import looks
from loadtests.statistics.finding import Finding
from loadtests.statistics.looks import Array

ALPHA = 0.05
PROMPTS = 600
LENGTH = 200  # tokens of an answer
PACE = Pace(PROMPTS, 60.0)
MISSED = 0.1


def equal_engines(rng: Generator, runs: int) -> Finding:
    """Greedy answers of equal engines, a third of the prompts in self-pairs: parity is not called worse at any look.

    The plain method has no self-pairs: whatever differs is worse.
    """
    words = [_words(rng, 1.0, 0.1) for _ in range(runs)]
    different = sum(Judgement.WORSE in word for word in words)
    return Finding(runs, different, 2 * ALPHA, runs)  # of two tests: how soon, and how hard


def sooner_apart(rng: Generator, runs: int) -> Finding:
    """An engine whose answers part five times as soon: parity is called worse within 600 prompts."""
    words = [_words(rng, 5.0, 0.1) for _ in range(runs)]
    return Finding(runs, sum(Judgement.WORSE not in word for word in words), MISSED)


def harder_apart(rng: Generator, runs: int) -> Finding:
    """An engine half of whose divergences are hard, of its own a tenth: parity is called worse within 600 prompts."""
    words = [_words(rng, 1.0, 0.5) for _ in range(runs)]
    return Finding(runs, sum(Judgement.WORSE not in word for word in words), MISSED)


def _words(rng: Generator, hazard: float, hard: float) -> list[Judgement]:
    """Return the verdicts on one run's answers, every 50 prompts. Some prompts diverge early, others hardly ever."""
    each = rng.gamma(0.5, 0.01, PROMPTS)  # of a token
    own = _pairs(rng, np.where(np.arange(PROMPTS) % 3 == 0, each, np.nan), 0.1)
    across = _pairs(rng, hazard * each, hard)
    pairs = [Arms(a, b) for a, b in zip(own, across, strict=True)]
    return [judge_answers(Answers(pairs[look]), ALPHA, PACE).judgement for look in range(49, PROMPTS, 50)]


def _pairs(rng: Generator, hazards: Array, hard: float) -> list[Divergences]:
    """Return the sums after each prompt; one whose hazard is not a number was not asked."""
    asked = ~np.isnan(hazards)
    parted = rng.exponential(1 / np.where(asked, hazards, 1.0)).astype(int) + 1
    differ = asked & (parted <= LENGTH)
    tokens = (np.minimum(parted, LENGTH) * asked).cumsum()
    kinds = rng.random(len(hazards)) < hard
    columns = (asked.cumsum(), tokens, differ.cumsum(), (differ & ~kinds).cumsum(), (differ & kinds).cumsum())
    return [Divergences(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def left_first(rng: Generator, runs: int) -> Finding:
    """Which of two equal engines leaves a greedy answer first: the coin is fair at all looks."""
    return _coin(runs, rng.random((runs, 1000)) < 0.5)


def farther_away(rng: Generator, runs: int) -> Finding:
    """Which of two samples is farther from a third, whatever the distances: the coin is fair at all looks."""
    spread = rng.gamma(1, 1, (runs, 1000, 1))  # some prompts have many answers
    distances = rng.exponential(spread * np.ones((1, 1, 2)))
    return _coin(runs, distances[..., 1] > distances[..., 0])


def _coin(runs: int, heads: Array) -> Finding:
    """Return in how many runs the coin is called loaded; the plain method is a test for one look, at each."""
    found = looks.rates([*heads], [np.full(len(one), 0.5) for one in heads], ALPHA)
    peeked = np.abs((heads - 0.5).cumsum(axis=1)) / np.sqrt((1 + np.arange(heads.shape[1])) / 4)
    return Finding(runs, int((found >= 0).sum()), ALPHA, int((peeked[:, 100:] > 1.96).any(axis=1).sum()))


def loaded_coin(rng: Generator, runs: int) -> Finding:
    """A coin of 60:40 is called loaded within 600 tosses."""
    heads = rng.random((runs, 600)) < 0.6
    found = looks.rates([*heads], [np.full(600, 0.5) for _ in heads], ALPHA)
    later = np.where(found < 0, np.inf, found + 1)
    return Finding(runs, int((found < 0).sum()), MISSED, None, {"median": float(np.median(later))})


def equal_likelihood(rng: Generator, runs: int) -> Finding:
    """Scores that differ by noise alone, alike within an answer: nats per token are not called other than 0.

    The plain method takes each token for a sample of its own.
    """
    tokens = rng.integers(20, 400, (runs, 1000))
    scores = np.round(
        tokens * rng.normal(0, 0.02, tokens.shape) + np.sqrt(tokens) * rng.normal(0, 0.1, tokens.shape), 4
    )
    wrong = sum(_differ(run, some) for run, some in zip(scores, tokens, strict=True))
    peeked = np.abs(scores.cumsum(axis=1)) / np.sqrt(tokens.cumsum(axis=1) * (0.1**2 + 0.02**2))
    return Finding(runs, wrong, ALPHA, int((peeked[:, 100:] > 1.96).any(axis=1).sum()))


def _differ(scores: Array, tokens: Array) -> bool:
    """Whether at some look, after every answer, the divergence is called other than 0."""
    sums = ScoreSums()
    for score, some in zip(scores.tolist(), tokens.tolist(), strict=True):
        sums += ScoreSums.of(score, some)
        interval = nats_per_token(sums, ALPHA).interval()
        if not interval.low <= 0 <= interval.high:
            return True
    return False


def equal_tools(rng: Generator, runs: int) -> Finding:
    """Two engines that agree with the reference equally often: agreement is not called less or more."""
    lone = rng.random((runs, 2, 2000)) < 0.05
    only = np.stack([lone[:, 0] & ~lone[:, 1], lone[:, 1] & ~lone[:, 0]]).cumsum(axis=2)
    wrong = sum(_lost(only[0, run], only[1, run]) for run in range(runs))
    peeked = np.abs(only[1] - only[0]) / np.sqrt(np.maximum(only.sum(axis=0), 1))
    return Finding(runs, wrong, ALPHA, int((peeked[:, 100:] > 1.96).any(axis=1).sum()))


def _lost(control: Array, treatment: Array) -> bool:
    for n, (a, b) in enumerate(zip(control.tolist(), treatment.tolist(), strict=True), 1):
        interval = agreement_lost(Split(a, b), n - a - b, ALPHA).interval()
        if not interval.low <= 0 <= interval.high:
            return True
    return False
