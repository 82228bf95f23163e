"""May the arms' latencies be compared? The obstacles, in words. They gate latency alone, not errors nor parity.

A time to first token is mostly a queue, so two equal engines look different under different loads: in a toy queue of
ten slots, the idle one of 90/10 looks half as fast again. Comparable are arms whose offered load is the same: requests
for each slot. It is what was sent to an arm that counts, not what is in flight there, for that is the engine's doing.
"""

import math
from collections.abc import Iterable

from msgspec import Struct

from gateway.experiments.statistics.arms import Arms, Stratum
from gateway.experiments.statistics.events import rate_ratio
from gateway.experiments.statistics.means import LEAST_BUCKETS
from gateway.experiments.statistics.sample_ratio import mismatched

TOLERANCE = 1.2  # times the other arm's load


class Offered(Struct, frozen=True):
    """The requests sent to an arm, and the slots (requests worked on at once) that it has, if anybody knows."""

    requests: int
    slots: int | None = None


def load_ratio(arms: Arms[Offered]) -> float | None:
    """Return the treatment's requests for each slot over the control's; None where the slots are not known."""
    a, b = arms.control, arms.treatment
    if a.slots is None or b.slots is None:
        return None
    if not a.requests or not b.requests:
        return math.inf
    return (b.requests / b.slots) / (a.requests / a.slots)


def of_load(arms: Arms[Offered]) -> list[str]:
    """Return what is unlike in the arms' loads. Without slots, arms of equal shares count as alike."""
    ratio = load_ratio(arms)
    if ratio is not None:
        return [] if 1 / TOLERANCE <= ratio <= TOLERANCE else [f"load for each slot differs: {ratio:.2f} times"]
    a, b = arms.control.requests, arms.treatment.requests
    if min(a, b) and max(a, b) / min(a, b) <= TOLERANCE:
        return []
    return ["comparability unknown: the shares differ, and `slots` of the deployments is not given"]


def of_split(units: Iterable[Stratum]) -> list[str]:
    """Return what is wrong with the split of the units, each counted when first seen (M1)."""
    return ["units are not split as planned (sample ratio mismatch)"] if mismatched(units) else []


def of_units(buckets: Arms[int]) -> list[str]:
    """Return whether sticky units are too few: by the occupied buckets of each arm."""
    least = min(buckets.control, buckets.treatment)
    return [] if least >= LEAST_BUCKETS else [f"too few independent units: {least} buckets, {LEAST_BUCKETS} are needed"]


def of_missing(unfinished: Iterable[Stratum], alpha: float) -> list[str]:
    """Return whether the arms' times are of different requests: those without one (failed, left) are more in one.

    `unfinished` are the first such events of units, as for M2. That comes late, so `means` and `quantiles` count such
    requests as slow; this says why two arms differ.
    """
    interval = rate_ratio(unfinished, alpha).interval()
    if interval.low <= 0 <= interval.high:
        return []
    return ["one arm has more requests without a time: failed, or left by their clients"]


def of_engines(fingerprints: Arms[int]) -> list[str]:
    """Return whether an engine changed: by how many fingerprints each arm had in the epochs that are compared."""
    changed = [name for name in ("control", "treatment") if getattr(fingerprints, name) > 1]
    return [f"the engine of the {name} changed" for name in changed]
