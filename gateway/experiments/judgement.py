"""What the record of an experiment says: each metric, the guardrails, the answers, and the verdict of all. Pure.

Epochs of other engines than the last ones' are left out. Latencies are judged in the epochs whose arms had the same
load for each slot, and nowhere else; the two shadows of one request are compared beside, at the shadow's load. Each of
m primary metrics has alpha/m, each guardrail 0.01 to one side.
"""

from msgspec import Struct

from gateway.config import ExperimentConfig
from gateway.experiments.record import METRICS, Epoch, Record
from gateway.experiments.statistics import comparable, verdict
from gateway.experiments.statistics.arms import Arms, Split, Stratum
from gateway.experiments.statistics.comparable import Offered
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.events import drifting_rate_ratio, rate_ratio
from gateway.experiments.statistics.interval import Interval, Judgeable
from gateway.experiments.statistics.means import (
    Buckets,
    MeanEstimate,
    MeanSums,
    of_buckets,
    of_paired_buckets,
    of_requests,
)
from gateway.experiments.statistics.parity import Answers, judge_answers
from gateway.experiments.statistics.tool_calls import ToolSums, agreement_lost
from gateway.experiments.statistics.verdict import Judged, Judgement, Overall, Pace

GUARD_ALPHA = 0.02  # 0.01 to each side, of which one matters
GUARDRAILS = ("errors", "late", "left", "seen_errors", "refused")
EVENT_OF = {"errors": "error", "late": "late", "left": "left", "seen_errors": "seen_error", "refused": "refused"}


class MetricFinding(Struct, frozen=True):
    """A metric: its interval as a ratio, treatment over control, the verdict, and how many samples it rests on."""

    interval: Interval
    judged: Judged
    n: int


class Judgements(Struct, frozen=True):
    """All that is to be said. `beside` are the latencies of the two shadows of one request."""

    overall: Overall
    metrics: dict[str, MetricFinding]
    beside: dict[str, MetricFinding]
    parity: Judged
    answers: Arms[Divergences]
    obstacles: list[str]


def judge_all(record: Record, settings: ExperimentConfig) -> Judgements:
    """Return what a record says by the settings of its experiment."""
    share = settings.alpha / len(settings.primary)
    obstacles, epochs = obstacles_of(record)
    metrics = {name: _latency(name, record, epochs, settings, share, obstacles) for name in METRICS}
    for name in GUARDRAILS:
        metrics[name] = _event(name, record, settings, share if name in settings.primary else GUARD_ALPHA)
    pairs = answers_of(record)
    parity = judge_answers(_answers(record, pairs), share, _pace(pairs.treatment.pairs, record.pooled))
    if not pairs.treatment.pairs:
        parity = Judged(Judgement.NOT_YET_KNOWN, "no answers have been compared yet")
    judged = {name: finding.judged for name, finding in metrics.items()} | {"parity": parity}
    primary: dict[str, Judged] = {name: judged[name] for name in settings.primary}
    others = {name: judged[name] for name in (*GUARDRAILS, "parity") if name not in primary}
    overall = verdict.overall(primary, others)
    beside = {name: _beside(name, record, settings, share) for name in METRICS}
    return Judgements(overall, metrics, beside, parity, pairs, obstacles)


def obstacles_of(record: Record) -> tuple[list[str], list[Epoch]]:
    """Return why latencies cannot be compared, and the epochs in which they can as far as the load goes."""
    mixed = [epoch for epoch in record.mixed if epoch.split("n").total]
    if not mixed:
        return ["no stage yet in which both arms had requests"], []
    alike = [epoch for epoch in mixed if not comparable.of_load(loads(epoch))]
    found = [] if alike else comparable.of_load(loads(mixed[-1]))
    found += comparable.of_split(_strata(mixed, "unit"))
    found += comparable.of_missing(_strata(alike or mixed, "first", "unfinished"), GUARD_ALPHA)
    if record.run.definition.unit != "request":
        buckets = [_occupied(alike or mixed, arm) for arm in ("control", "treatment")]
        found += comparable.of_units(Arms(*buckets))
    return found, alike


def loads(epoch: Epoch) -> Arms[Offered]:
    """Return what was sent to each arm in an epoch, shadows too."""
    return Arms(*(Offered(_sent(epoch, arm), epoch.note.slots.get(arm)) for arm in ("control", "treatment")))


def _sent(epoch: Epoch, arm: str) -> int:
    return epoch.number("n", arm) + epoch.number("shadow", "asked", arm)


def _occupied(epochs: list[Epoch], arm: str) -> int:
    """Return how many buckets of an arm had requests with a time to first token, or to the end."""
    found: set[int] = set()
    for epoch in epochs:
        found |= epoch.buckets("mean", "e2e", arm).keys() | epoch.buckets("mean", "ttft", arm).keys()
    return len(found)


def _strata(epochs: list[Epoch], *path: str) -> list[Stratum]:
    return [Stratum(epoch.split(*path), epoch.share) for epoch in epochs]


def _pace(samples: int, epochs: list[Epoch]) -> Pace:
    return Pace(samples, sum(max(epoch.seen - epoch.note.began, 0.0) for epoch in epochs))


def _latency(
    name: str, record: Record, epochs: list[Epoch], settings: ExperimentConfig, alpha: float, obstacles: list[str]
) -> MetricFinding:
    used = epochs or record.mixed
    estimate, n = _estimate(name, record, used, alpha)
    return _finding(estimate, n, settings.margin, _pace(n, used), obstacles)


def _estimate(name: str, record: Record, epochs: list[Epoch], alpha: float) -> tuple[MeanEstimate, int]:
    arms, blocks = _sums(name, epochs, "mean"), _sums(name, epochs, "block")
    n = sum(_total(side).n for one in arms for side in (one.control, one.treatment))
    if record.run.definition.unit == "request":
        totals = [Arms(_total(one.control), _total(one.treatment)) for one in arms]
        return of_requests(totals, alpha, blocks=blocks), n
    return of_buckets(arms, alpha, blocks=blocks), n


def _sums(name: str, epochs: list[Epoch], by: str) -> list[Arms[Buckets]]:
    """Return the sums of a metric in each epoch with both arms: by buckets of units, or by blocks of time."""
    found = [Arms[Buckets](one.buckets(by, name, "control"), one.buckets(by, name, "treatment")) for one in epochs]
    return [one for one in found if one.control and one.treatment]


def _total(buckets: Buckets) -> MeanSums:
    return sum(buckets.values(), MeanSums())


def _event(name: str, record: Record, settings: ExperimentConfig, alpha: float) -> MetricFinding:
    epochs = record.mixed
    strata = _strata(epochs, "first", EVENT_OF[name])
    estimate = rate_ratio(strata, alpha)
    if name == "late":  # they come together, where a queue is long for a while
        estimate = drifting_rate_ratio(strata, _estimate("late", record, epochs, alpha)[0], alpha)
    n = sum(epoch.split("first", EVENT_OF[name]).total for epoch in epochs)
    pace = _pace(n, epochs)
    return MetricFinding(estimate.interval().ratio(), verdict.guard(estimate, settings.margin, pace), n)


def _finding(estimate: Judgeable, n: int, margin: float, pace: Pace, obstacles: list[str]) -> MetricFinding:
    return MetricFinding(estimate.interval().ratio(), verdict.judge(estimate, margin, pace, obstacles), n)


def _beside(name: str, record: Record, settings: ExperimentConfig, alpha: float) -> MetricFinding:
    """Return how the two shadows of one request compare: they were asked alike, at the shadow's load."""
    buckets: dict[int, MeanSums] = {}
    for epoch in record.pooled:
        for number, sums in epoch.buckets("pair", name).items():
            buckets[number] = buckets.get(number, MeanSums()) + sums
    n = _total(buckets).n
    return _finding(of_paired_buckets(buckets, alpha), n, settings.margin, _pace(n, record.pooled), [])


def answers_of(record: Record) -> Arms[Divergences]:
    """Return P1's and P2's sums: of the self-pairs, and between the engines."""
    return Arms(*(sum((epoch.divergences(arm) for epoch in record.pooled), Divergences()) for arm in SIDES))


SIDES = ("control", "treatment")


def _answers(record: Record, pairs: Arms[Divergences]) -> Answers:
    coins = {
        coin: sum((epoch.split("coin", coin) for epoch in record.pooled), Split())
        for coin in ("left_first", "farther", "tools")
    }
    alike = sum(epoch.number("alike", "tools") for epoch in record.pooled)
    tools = agreement_lost(coins["tools"], alike, GUARD_ALPHA) if alike + coins["tools"].total else None
    return Answers(pairs, coins["left_first"], coins["farther"], tools)


def tools_of(record: Record, arm: str) -> ToolSums:
    """Return P5's sums."""
    return sum((epoch.tools(arm) for epoch in record.pooled), ToolSums())
