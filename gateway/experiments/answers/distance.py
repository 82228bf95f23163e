"""How far apart two sampled answers are, between 0 (alike) and 1 (P3).

The distance is that of the longest common subsequence (LCS), found bit by bit in one integer: M. Crochemore et al.,
"A fast and practical bit-vector algorithm for the longest common subsequence problem", Inf. Process. Lett. 80 (2001).
"""

import math
from collections.abc import Hashable, Sequence

MOST = 1.0


def distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Return 1 - 2·LCS/(n + m): 0 for equal sequences, 1 for those without a common item."""
    total = len(one) + len(other)
    return 1 - 2 * common_subsequence(one, other) / total if total else 0.0


def common_subsequence(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence."""
    places: dict[Hashable, int] = {}
    for place, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << place
    every = (1 << len(one)) - 1
    row = every  # a bit is 0 where the length grows
    for item in other:
        matched = row & places.get(item, 0)
        row = (row + matched | row - matched) & every
    return len(one) - row.bit_count()


def length_gap(one: int, other: int) -> float:
    """Return the absolute logarithm of the ratio of two lengths, at most 1 (a factor of e)."""
    return min(MOST, abs(math.log((one + 1) / (other + 1))))
