"""All simulations, by what they are about and their own names; each function's docstring is what it promises."""

import zlib

import numpy as np

from loadtests.statistics import answers, differences, engines, false_alarms
from loadtests.statistics.finding import Finding, Simulation

SEED = 16
_ALL: tuple[Simulation, ...] = (
    false_alarms.independent_split,
    false_alarms.independent_events,
    false_alarms.independent_times,
    false_alarms.independent_times_with_covariate,
    false_alarms.independent_quantiles,
    false_alarms.sticky_10_split,
    false_alarms.sticky_10_events,
    false_alarms.sticky_10_times,
    false_alarms.sticky_1000_split,
    false_alarms.sticky_1000_events,
    false_alarms.sticky_1000_times,
    false_alarms.ramp_split,
    false_alarms.ramp_events,
    false_alarms.ramp_times,
    false_alarms.bursts_events,
    false_alarms.bursts_times,
    false_alarms.bursts_quantiles,
    false_alarms.heavy_tails_times,
    false_alarms.heavy_tails_quantiles,
    false_alarms.failing_client,
    engines.unequal_load,
    engines.equal_load,
    engines.late_tokens,
    engines.slower_engine,
    differences.tenth_slower,
    differences.tenth_slower_by_length,
    differences.tenth_slower_in_pairs,
    differences.more_events,
    differences.tenfold_errors,
    differences.slow_ones_fail,
    differences.slow_ones_are_left,
    differences.abandoned_quantiles,
    differences.slow_start,
    answers.equal_engines,
    answers.sooner_apart,
    answers.harder_apart,
    answers.left_first,
    answers.farther_away,
    answers.loaded_coin,
    answers.equal_likelihood,
    answers.equal_tools,
)
SIMULATIONS = {f"{one.__module__.rpartition('.')[2]}.{one.__name__}": one for one in _ALL}


def simulated(name: str, runs: int, part: int = 0) -> Finding:
    """Run a simulation so many times; each part of the runs has chances of its own, the same ones each time."""
    chances = np.random.default_rng([SEED, zlib.crc32(name.encode()), part])
    return SIMULATIONS[name](chances, runs)
