"""What the gateway uses of prometheus_client's private parts, and the public way for where they are not as expected.

Written for prometheus_client 0.26: a series of a Histogram has `_sum`, `_upper_bounds` and `_buckets`, one bucket for
each bound, and the values take `inc(amount)`. With these, what several requests took is counted together: to count it
one by one is a tenth of what a request costs. Where they are not so, a warning says so, and it is counted one by one.
"""

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Histogram

Count = Callable[[Any, Sequence[float]], None]  # a series, and what was observed

log = logging.getLogger("pointsman")


def count_together(series: Any, amounts: Sequence[float]) -> None:
    """Count what was observed, each bucket once."""
    series._sum.inc(sum(amounts))
    bounds = series._upper_bounds
    for place, times in Counter([bisect_left(bounds, amount) for amount in amounts]).items():
        series._buckets[place].inc(times)


def count_each(series: Any, amounts: Sequence[float]) -> None:
    """Count what was observed, by the public interface."""
    for amount in amounts:
        series.observe(amount)


def counting(histogram: Any = Histogram) -> Count:
    """Return how observations are counted: together if prometheus_client is as expected; else log why not."""
    fault = histogram_fault(histogram)
    if not fault:
        return count_together
    log.warning("prometheus_client is not as expected (%s): each request takes a little more CPU time", fault)
    return count_each


def histogram_fault(histogram: Any) -> str:
    """Return what is not as `count_together` expects it, or nothing: both ways give the same text."""
    amounts = (0.0, 0.5, 1.0, 1.5, 9.0)
    try:
        shown = []
        for count in (count_together, count_each):
            registry = CollectorRegistry()
            count(histogram("a", "a", buckets=(1.0, 2.0), registry=registry), amounts)
            samples = [sample for family in registry.collect() for sample in family.samples]
            shown.append([sample for sample in samples if not sample.name.endswith("_created")])  # a time of day
    except Exception as error:  # whatever has changed shows in its own way
        return f"Histogram: {error!r}"
    return "" if shown[0] == shown[1] else "Histogram counts in another way"
