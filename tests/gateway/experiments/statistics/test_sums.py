"""Sums of two gateways merged are those of one, exactly, in whichever order; and so is all that they say."""

import random
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import msgspec
import pytest

from gateway.experiments.statistics.arms import Arms, Split, Stratum
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.events import rate_ratio
from gateway.experiments.statistics.likelihood import ScoreSums, nats_per_token
from gateway.experiments.statistics.means import MeanSums, of_buckets, of_pairs
from gateway.experiments.statistics.quantiles import BlockSums, Histogram, bucket, quantile_ratio
from gateway.experiments.statistics.sample_ratio import log_evidence
from gateway.experiments.statistics.scaled import scaled
from gateway.experiments.statistics.tool_calls import ToolSums

Make = Callable[[random.Random], Any]


def histogram(chance: random.Random) -> Histogram:
    number = bucket(chance.lognormvariate(-1, 1))
    return chance.choice([Histogram({number: 1}), Histogram(left={number: 1}), Histogram(failed=1)])


SUMS: dict[str, tuple[Make, Any, Callable[[Any], Any]]] = {
    "split": (
        lambda chance: chance.choice([Split(1, 0), Split(0, 1)]),
        Split(),
        lambda one: (log_evidence([Stratum(one, 0.3)]), rate_ratio([Stratum(one, 0.3)], 0.05).interval()),
    ),
    "means": (
        lambda chance: MeanSums.of(chance.gauss(-1, 1), chance.gauss(6, 2)),
        MeanSums(),
        lambda one: of_pairs(one, 0.05).interval(),
    ),
    "histogram": (histogram, Histogram(), lambda one: quantile_ratio(Arms(one, one), 0.9, 0.05).interval()),
    "blocks": (lambda chance: BlockSums.of(9, chance.randrange(9)), BlockSums(), lambda one: one.inflation()),
    "divergences": (
        lambda chance: Divergences(1, chance.randrange(200), 1, hard=chance.randrange(2)),
        Divergences(),
        lambda one: one.per_1000_tokens,
    ),
    "scores": (
        lambda chance: ScoreSums.of(chance.gauss(0, 3), chance.randrange(1, 300)),
        ScoreSums(),
        lambda one: nats_per_token(one, 0.05).interval(),
    ),
    "tools": (
        lambda chance: chance.choice([ToolSums(both=1, agreed=1), ToolSums(other_only=1), ToolSums(neither=1)]),
        ToolSums(),
        lambda one: (one.f1(), one.agreement()),
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_two_gateways_merged_are_one(name: str) -> None:
    """Each sample at one of two gateways, both in an order of their own: the same sums to the last bit."""
    make, nothing, said = SUMS[name]
    chance = random.Random(name)
    samples = [make(chance) for _ in range(500)]
    alone = reduce(add, samples, nothing)
    chance.shuffle(samples)
    here = chance.randrange(len(samples))
    merged = reduce(add, samples[:here], nothing) + reduce(add, samples[here:], nothing)
    assert merged == alone
    assert said(merged) == said(alone)


@pytest.mark.parametrize("name", SUMS)
def test_sums_can_be_written_down(name: str) -> None:
    """What a store reads back is what was written."""
    make, _, _ = SUMS[name]
    one = make(random.Random(name))
    assert msgspec.json.decode(msgspec.json.encode(one), type=type(one)) == one


def test_buckets_of_two_gateways_merged_say_what_those_of_one_say() -> None:
    """The order in which buckets are found does not matter."""
    chance = random.Random(5)
    arms = [{number: MeanSums.of(chance.gauss(0, 1)) for number in range(side, 200, 2)} for side in (0, 1)]
    backwards = [dict(reversed(arm.items())) for arm in arms]
    assert of_buckets([Arms(*backwards)], 0.05) == of_buckets([Arms(*arms)], 0.05)


def test_a_thousand_million_squares_fit_into_64_bits() -> None:
    """Of the longest time, an hour in seconds; Redis and SQLite count in 64 bits."""
    longest = MeanSums.of(8.2)
    assert longest.yy * 10**9 < 2**63


@pytest.mark.parametrize(("value", "kept"), [(0.0, 0), (1.0, 10_000), (-0.00004, 0), (-9.21034, -92_103)])
def test_values_are_kept_in_ten_thousandths(value: float, kept: int) -> None:
    """0.01 % of a time."""
    assert scaled(value) == kept
