"""Two engines with queues of their own: M/M/c, first come first served. Times in units of the mean time of service."""

import numpy as np
from numpy.random import Generator

from loadtests.statistics.looks import Array

SLOTS = 10


def served(rng: Generator, treatment: Array, load: float, work: Array) -> tuple[Array, Array]:
    """Send requests at random times, `load` in each unit of time, to the engines of their arms.

    Return when each came, and how long it waited for one of its engine's slots. `work` is how long it takes there.
    """
    runs, requests = treatment.shape
    at = rng.exponential(1 / load, treatment.shape).cumsum(axis=1)
    free = np.zeros((runs, 2, SLOTS))  # when each slot will be
    waited, every, arms = np.empty(treatment.shape), np.arange(runs), treatment.astype(int)
    for place in range(requests):
        slots = free[every, arms[:, place]]
        slot = slots.argmin(axis=1)
        begins = np.maximum(at[:, place], slots[every, slot])
        waited[:, place] = begins - at[:, place]
        free[every, arms[:, place], slot] = begins + work[:, place]
    return at, waited
