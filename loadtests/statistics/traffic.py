"""Traffic to simulate with: units of unlike sizes, hours of unlike loads, times of several shapes. Runs x samples."""

import numpy as np
from numpy.random import Generator

from loadtests.statistics.looks import Array

BUCKETS = 1024


def log_times(rng: Generator, shape: tuple[int, ...], spread: float = 0.8) -> Array:
    """Return logarithms of log-normal times with a median of 0.3 s, in whole ten-thousandths."""
    return np.round(rng.normal(np.log(0.3), spread, shape), 4)


def zipf_units(rng: Generator, shape: tuple[int, int], units: int) -> Array:
    """Return which unit each request is of: unit k has a part of the traffic in proportion to 1/k."""
    sizes = 1 / np.arange(1, units + 1)
    return rng.choice(units, size=shape, p=sizes / sizes.sum())


def of_unit(rng: Generator, units: Array, values: Array) -> Array:
    """Return each request's value of its unit; `values` are of runs x units."""
    return np.take_along_axis(values, units, axis=1)


def first_of_each(run: Array) -> Array:
    """Return the places of the first of each distinct value, in their order."""
    return np.sort(np.unique(run, return_index=True)[1])
