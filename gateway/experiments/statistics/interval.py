"""An interval, and what any estimate can do: say its interval now, and what it would be after more of the same."""

import math
from typing import Protocol

from msgspec import Struct


class Interval(Struct, frozen=True):
    """An estimate with both ends of its confidence sequence, as a rule logarithms of a ratio. Ends may be infinite."""

    low: float
    estimate: float
    high: float

    def ratio(self) -> "Interval":
        """Return the ratio that a logarithm stands for: 1.05 is 5 % more in the treatment."""
        return Interval(*map(_exp, (self.low, self.estimate, self.high)))


UNKNOWN = Interval(-math.inf, 0.0, math.inf)


class Judgeable(Protocol):
    """What can be judged (`verdict`)."""

    def interval(self, growth: float = 1.0) -> Interval:
        """Return the interval, as it would be if the sample were `growth` times as large and told the same."""
        ...


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
