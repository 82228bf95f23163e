"""Observations of a histogram, kept for a moment and counted together."""

from prometheus_client import Histogram

from gateway.observe.prometheus_internals import Count


class Observations:
    """Those of several series that have not been counted yet."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._waiting: list[Series] = []

    def of(self, histogram: Histogram) -> "Series":
        """Return a histogram's series, whose observations wait here."""
        return Series(histogram, self._waiting)

    def count(self) -> None:
        """Count all that wait."""
        waiting = self._waiting.copy()
        self._waiting.clear()
        for series in waiting:
            self._count(series.histogram, series.taken())


class Series:
    """One series of a histogram. It is in `waiting` while it has observations."""

    __slots__ = ("_amounts", "_waiting", "histogram")

    def __init__(self, histogram: Histogram, waiting: "list[Series]") -> None:
        self.histogram = histogram
        self._waiting = waiting
        self._amounts: list[float] = []

    def observe(self, amount: float) -> None:
        """Take what was observed once."""
        if not self._amounts:
            self._waiting.append(self)
        self._amounts.append(amount)

    def taken(self) -> list[float]:
        """Return what was observed since the last call."""
        amounts, self._amounts = self._amounts, []
        return amounts
