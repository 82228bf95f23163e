"""What a worker has counted of an experiment since it last told the record: whole numbers by field. Pure.

A field is a path in words, such as `3fa1c2d0/mean/ttft/control/17/yy` (`record` has all of them); its first word is the
epoch. What counts once for a unit (its first error, that it was seen at all) waits as a `First`, until the record says
whether another worker has counted it. The map of places bounds what has to be remembered: of units that share a place
only the first counts, whichever arm it is in, so that those that count are still drawn independently of anything.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from gateway.experiments.statistics.scaled import scaled
from gateway.experiments.unit import PLACES

MEAN_FIELDS = ("n", "y", "yy", "z", "zz", "yz")

Path = tuple[str, ...]  # the words of a field


class First(Struct, frozen=True, array_like=True):
    """Something that is counted under `field` if it is the first of its kind at a place."""

    kind: str
    place: int
    field: str


class Deltas(Struct, frozen=True):
    """What was counted: by how much each field grew, what may be a first, and examples by kind."""

    sums: Mapping[str, int] = {}
    firsts: tuple[First, ...] = ()
    examples: Mapping[str, tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self.sums or self.firsts or self.examples)

    def __add__(self, other: "Deltas") -> "Deltas":
        sums = dict(self.sums)
        for field, by in other.sums.items():
            sums[field] = sums.get(field, 0) + by
        kinds = {*self.examples, *other.examples}
        examples = {kind: self.examples.get(kind, ()) + other.examples.get(kind, ()) for kind in kinds}
        return Deltas(sums, self.firsts + other.firsts, examples)


class Times:
    """Samples of one metric in one arm of one epoch: the sums of each bucket (`statistics.means.MeanSums`), and times.

    Values and covariates are in ten-thousandths (`statistics.scaled`).
    """

    __slots__ = ("done", "failed", "left", "sums")

    def __init__(self) -> None:
        self.sums: dict[int, list[int]] = {}
        self.done: dict[int, int] = {}  # by bucket of time (`statistics.quantiles`)
        self.left: dict[int, int] = {}
        self.failed = 0

    def add(self, bucket: int, y: int, z: int) -> None:
        """Add one sample to the sums of its unit's bucket."""
        sums = self.sums.get(bucket)
        if sums is None:
            self.sums[bucket] = [1, y, y * y, z, z * z, y * z]
            return
        sums[0] += 1
        sums[1] += y
        sums[2] += y * y
        sums[3] += z
        sums[4] += z * z
        sums[5] += y * z

    def fields(self, path: str, metric_and_arm: str, block: int) -> Iterator[tuple[str, int]]:
        """Yield all of it by field; the sums of all buckets together by the block of time, too."""
        for ending, counts in (("done", self.done), ("left", self.left)):
            for number, count in counts.items():
                yield f"{path}hist/{metric_and_arm}/{ending}/{number}", count
        if self.failed:
            yield f"{path}hist/{metric_and_arm}/failed", self.failed
        for bucket, sums in self.sums.items():
            yield from _sums_of(f"{path}mean/{metric_and_arm}/{bucket}/", sums)
        if self.sums:
            together = [sum(column) for column in zip(*self.sums.values(), strict=True)]
            yield from _sums_of(f"{path}block/{metric_and_arm}/{block}/", together)


def _sums_of(path: str, sums: Iterable[int]) -> Iterator[tuple[str, int]]:
    return ((path + name, by) for name, by in zip(MEAN_FIELDS, sums, strict=True) if by)


class ExperimentTally:
    """The counts of one worker. `times` are by epoch, metric and arm."""

    def __init__(self) -> None:
        self.times: defaultdict[tuple[str, str, str], Times] = defaultdict(Times)
        self._means: dict[Path, list[int]] = {}
        self._counts: defaultdict[Path, int] = defaultdict(int)
        self._firsts: list[First] = []
        self._examples: dict[str, tuple[str, ...]] = {}
        self._seen: dict[str, bytearray] = {}

    def mean(self, path: Path, value: float) -> None:
        """Add one sample to the sums below a path."""
        y = scaled(value)
        sums = self._means.setdefault(path, [0] * 6)
        sums[0] += 1
        sums[1] += y
        sums[2] += y * y

    def count(self, *field: str, by: int = 1) -> None:
        """Add to a field."""
        self._counts[field] += by

    def once(self, kind: str, place: int, *field: str) -> None:
        """Count something at a place, if it is the first of its kind there."""
        seen = self._seen.get(kind)
        if seen is None:
            seen = self._seen[kind] = bytearray(PLACES >> 3)
        byte, bit = place >> 3, 1 << (place & 7)
        if not seen[byte] & bit:
            seen[byte] |= bit
            self._firsts.append(First(kind, place, "/".join(field)))

    def example(self, kind: str, text: str) -> None:
        """Keep an example of a kind of difference, as JSON; a few wait at most."""
        kept = self._examples.get(kind, ())
        if len(kept) < MAX_EXAMPLES:
            self._examples[kind] = (*kept, text)

    def take(self, block: int = 0) -> Deltas:
        """Return what was counted since the last call; `block` numbers the present block of time."""
        sums = {"/".join(field): by for field, by in self._counts.items() if by}
        for path, values in self._means.items():
            sums |= _sums_of("/".join(path) + "/", values)
        for (epoch, metric, arm), times in self.times.items():
            sums |= times.fields(f"{epoch}/", f"{metric}/{arm}", block)
        deltas = Deltas(sums, tuple(self._firsts), self._examples)
        self._means, self._firsts, self._examples = {}, [], {}
        self._counts.clear()
        self.times.clear()
        return deltas


MAX_EXAMPLES = 5  # of each kind
