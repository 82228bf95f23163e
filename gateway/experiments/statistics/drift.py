"""What time does to a variance: in a queue, and in a busy hour, neighbouring requests are alike, and count for fewer.

Two arms whose engines have queues of their own are not compared request by request: while one queue happens to be long,
all that are sent to it wait. In simulations of two equal engines under equal load (M/M/10, 85 % busy) the variance of
the difference is 90 times that of independent requests, and without this an A/A comparison of 20,000 requests says
better or worse in nine of ten runs.

So the sums are kept by blocks of time, too (10 s, or a minute), and the variance of an estimate is that between blocks:
each block's part in the estimate's deviation, squared, and twice the product with its neighbour's part (W. Newey and
K. West, "A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent covariance matrix",
Econometrica 55(3), 1987, with one lag and the weight 1). Blocks are then merged two and two, as long as there are 32,
and the largest of these variances is taken: batch means (G. Fishman, "Grouping observations in digital simulation",
Management Science 24(5), 1978), whose batches become longer than whatever hangs together as the sample grows.

Conditions: a block is longer than most requests take; 32 blocks. It is an estimate, good for large samples.
"""

import math
from collections.abc import Mapping

LEAST_BLOCKS = 32


def drift_variance(parts: Mapping[int, float]) -> float:
    """Return the variance of a sum of parts, one for each numbered block of time; 0.0 for fewer than 32 blocks."""
    largest = 0.0
    while len(parts) >= LEAST_BLOCKS:
        largest = max(largest, _between(parts))
        parts = _merged(parts)
    return largest


def _between(parts: Mapping[int, float]) -> float:
    own = math.fsum(part * part for part in parts.values())
    neighbours = math.fsum(part * parts.get(number + 1, 0.0) for number, part in parts.items())
    return len(parts) / (len(parts) - 1) * own + 2 * max(neighbours, 0.0)


def _merged(parts: Mapping[int, float]) -> dict[int, float]:
    merged = dict[int, float]()
    for number, part in parts.items():
        merged[number >> 1] = merged.get(number >> 1, 0.0) + part
    return merged
