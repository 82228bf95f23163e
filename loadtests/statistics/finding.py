"""What a simulation found: in how many runs what must not happen did, and whether that is within its promise."""

import math
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct, field
from numpy.random import Generator

CHANCE = 0.001  # that a promise which is just kept looks broken


class Finding(Struct, frozen=True):
    """Of so many runs so many were wrong, where at most `allowed` of them should be.

    `plain` is the same of the method that forgets what the simulation is about, None where there is no such method.
    """

    runs: int
    wrong: int
    allowed: float
    plain: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: "Finding") -> "Finding":
        """Add further runs; figures are averaged."""
        runs = self.runs + other.runs
        plain = None if self.plain is None or other.plain is None else self.plain + other.plain
        figures = {
            name: (self.runs * value + other.runs * other.figures[name]) / runs for name, value in self.figures.items()
        }
        return Finding(runs, self.wrong + other.wrong, self.allowed, plain, figures)

    @property
    def most(self) -> int:
        """The most wrong runs that chance explains: more have a probability below `CHANCE`, if `allowed` is true."""
        return most_by_chance(self.runs, self.allowed)

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.wrong <= self.most

    @property
    def hard(self) -> bool:
        """Whether the plain method breaks the promise, so that the simulation can fail."""
        return self.plain is None or self.plain > self.most


class Simulation(Protocol):
    """A function of chances and a number of runs."""

    __name__: str
    __module__: str

    def __call__(self, rng: Generator, runs: int) -> Finding:
        """Make so many runs."""
        ...


def most_by_chance(runs: int, allowed: float) -> int:
    """Return the least count that a binomial one exceeds with a probability below `CHANCE`."""
    above = 1.0
    for count in range(runs + 1):
        above -= math.comb(runs, count) * allowed**count * (1 - allowed) ** (runs - count)
        if above < CHANCE:
            return count
    return runs
