"""What has been counted of an experiment by all workers: its fields, read into what the statistics take. Pure.

E/n/ARM                               requests of an arm, with E the epoch
E/unit/ARM                            units that were first seen
E/first/EVENT/ARM                     units with an event: error (the first attempt in the arm failed by the engine's
                                      fault), seen_error (the client had an error), late (its first token), left
                                      (before its first token), refused (the engine refused the request), unfinished
E/event/EVENT/ARM                     requests with one
E/excluded/WHY                        requests of no arm
E/served/ARM/DEPLOYMENT, E/crossed/ARM   who answered; requests that the other arm did
E/mean/METRIC/ARM/BUCKET/FIELD        sums of ln seconds, and of ln bytes of the request: ttft, itl, e2e; late is 1 or 0
E/block/METRIC/ARM/MINUTE/FIELD       the same by the minute (Unix time), after a day by the hour
E/hist/METRIC/ARM/ENDING[/BUCKET]     times: done, left, failed
E/shadow/WHAT[/WHY]                   shadows: asked, failed, dropped, compared
E/pair/METRIC/BUCKET/FIELD            sums of ln(treatment) - ln(control), of the two shadows of one request
E/answers/ARM/FIELD                   P1, P2: control is the self-pair
E/tools/ARM/FIELD, E/coin/COIN/ARM    P5; coins of triples: left_first (P1), farther (P3), tools (P5)
E/alike/tools                         triples whose shadows both agree with the client's answer, or both do not
E/prefix/ARM/FIELD                    tokens of shadows' prompts, and those that the engine had cached
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from gateway.experiments import notes as noted
from gateway.experiments.notes import EpochNote, Run
from gateway.experiments.statistics.arms import Split
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.means import MeanSums
from gateway.experiments.statistics.quantiles import Histogram, quantile_interval
from gateway.experiments.statistics.tool_calls import ToolSums
from gateway.experiments.unit import BUCKETS

METRICS = ("ttft", "itl", "e2e")
P95 = 0.95

Tree = Mapping[str, Any]  # of numbers, by the words of their fields


class Epoch(Struct, frozen=True):
    """One epoch: its numbers, what is noted of it, and when it was last told of (Unix seconds)."""

    id: str
    note: EpochNote
    seen: float
    tree: Tree

    @property
    def share(self) -> float:
        """The probability of the treatment."""
        return self.note.buckets / BUCKETS

    def number(self, *path: str) -> int:
        """Return a number; 0 if nothing was counted."""
        return int(_at(self.tree, path) or 0)

    def words(self, *path: str) -> dict[str, int]:
        """Return the numbers below a path, by their last word."""
        found = _at(self.tree, path)
        return {word: value for word, value in found.items() if isinstance(value, int)} if found else {}

    def split(self, *path: str) -> Split:
        """Return what fell to each arm."""
        return Split(self.number(*path, "control"), self.number(*path, "treatment"))

    def buckets(self, *path: str) -> dict[int, MeanSums]:
        """Return the sums of each bucket."""
        found = _at(self.tree, path) or {}
        return {int(bucket): MeanSums(**sums) for bucket, sums in found.items()}

    def histogram(self, metric: str, arm: str) -> Histogram:
        """Return the times of an arm."""
        done, left = (self.words("hist", metric, arm, ending) for ending in ("done", "left"))
        numbers = [{int(bucket): count for bucket, count in one.items()} for one in (done, left)]
        return Histogram(numbers[0], numbers[1], self.number("hist", metric, arm, "failed"))

    def divergences(self, arm: str) -> Divergences:
        """Return P1's and P2's sums: of the self-pairs (control), or between the engines."""
        return Divergences(**self.words("answers", arm))

    def tools(self, arm: str) -> ToolSums:
        """Return P5's sums."""
        return ToolSums(**self.words("tools", arm))


class Record(Struct, frozen=True):
    """One run of an experiment, its epochs in order."""

    run: Run
    epochs: list[Epoch]
    held: bool = False
    now: float = 0.0
    examples: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def current(self) -> Epoch | None:
        """The epoch that was told of last, which need not be the one that began last: an engine may come back."""
        return max(self.epochs, key=lambda epoch: (epoch.seen, epoch.note.began), default=None)

    @property
    def pooled(self) -> list[Epoch]:
        """The epochs whose engines are those of the current one: others are of other engines."""
        now = self.current
        return [] if now is None else [one for one in self.epochs if one.note.fingerprints == now.note.fingerprints]

    @property
    def mixed(self) -> list[Epoch]:
        """Of those, the ones in which both arms had units: others compare nothing."""
        return [epoch for epoch in self.pooled if 0 < epoch.note.buckets < BUCKETS]

    def total(self, *path: str) -> int:
        """Return a number of all epochs together."""
        return sum(epoch.number(*path) for epoch in self.epochs)

    def words(self, *path: str) -> dict[str, int]:
        """Return the numbers below a path, of all epochs together."""
        found: defaultdict[str, int] = defaultdict(int)
        for epoch in self.epochs:
            for word, number in epoch.words(*path).items():
                found[word] += number
        return dict(found)


def read_record(now: float, notes: Mapping[str, str], sums: Mapping[str, int], run: str = "") -> Record | None:
    """Return a run of an experiment, by default the last one; None if there is none. `now` is the store's time."""
    runs = noted.read(notes, "run", Run)
    if not runs:
        return None
    going_by = set(noted.alive(notes, now).values())
    run = run or max(runs, key=lambda one: (any(note.run == one for note in going_by), runs[one].began))
    trees = _trees(sums)
    seen = noted.read(notes, "seen", float)
    epochs = [
        Epoch(name.partition("/")[2], note, seen.get(name, note.began), trees.get(name.partition("/")[2], {}))
        for name, note in noted.read(notes, "epoch", EpochNote).items()
        if name.startswith(f"{run}/")
    ]
    epochs.sort(key=lambda epoch: epoch.note.began)
    examples = _examples(notes, run)
    return Record(runs[run], epochs, len(going_by) > 1, now, examples)


def _examples(notes: Mapping[str, str], run: str) -> dict[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for name in sorted(notes):
        kind, _, rest = name.partition("/")
        if kind == "example" and rest.startswith(f"{run}/"):
            found[rest.split("/")[1]].append(msgspec.json.decode(notes[name]))
    return dict(found)


def epochs_before(notes: Mapping[str, str], run: str, epoch: str) -> list[str]:
    """Return the epochs that began before another one, the last first."""
    epochs = noted.read(notes, "epoch", EpochNote)
    mine = {name.partition("/")[2]: note.began for name, note in epochs.items() if name.startswith(f"{run}/")}
    before = [other for other, began in mine.items() if other != epoch and began <= mine.get(epoch, float("inf"))]
    return sorted(before, key=mine.__getitem__, reverse=True)


def control_p95(sums: Mapping[str, int], epoch: str) -> float | None:
    """Return the 95th percentile of the control's times to first token in an epoch, in seconds, if it has a sense."""
    tree = _trees({name: value for name, value in sums.items() if name.startswith(f"{epoch}/hist/ttft/control/")})
    histogram = Epoch(epoch, _NO_NOTE, 0.0, tree.get(epoch, {})).histogram("ttft", "control")
    if histogram.n < LEAST_TIMES:
        return None
    found = quantile_interval(histogram, P95, 0.05).estimate
    return found if found < float("inf") else None


LEAST_TIMES = 200  # requests, below which a 95th percentile is ten at most
_NO_NOTE = EpochNote(buckets=0, stage="", fingerprints={}, slots={}, began=0.0)


def _trees(sums: Mapping[str, int]) -> dict[str, Tree]:
    trees: dict[str, Any] = {}
    for name, value in sums.items():
        *path, last = _path(name)
        inner = trees
        for word in path:
            inner = inner.setdefault(word, {})
        inner[last] = value
    return trees


def _path(name: str) -> list[str]:
    """Return the words of a field; a deployment's name may hold slashes, and is the last."""
    words = name.split("/")
    return words if len(words) < 4 or words[1] != "served" else [*words[:3], "/".join(words[3:])]


def _at(tree: Tree, path: tuple[str, ...]) -> Any:
    for word in path:
        tree = tree.get(word) or {}
        if not isinstance(tree, Mapping):
            return tree
    return tree


def rows(record: Record) -> Iterator[dict[str, Any]]:
    """Return every number of a record as a row, for export."""
    for epoch in record.epochs:
        for path, value in _leaves(epoch.tree):
            yield {"epoch": epoch.id, "stage": epoch.note.stage, "share": epoch.share, "field": path, "value": value}


def _leaves(tree: Tree, before: str = "") -> Iterator[tuple[str, int]]:
    for word, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{word}/")
        else:
            yield before + word, value
