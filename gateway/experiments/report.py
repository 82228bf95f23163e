"""The report of an experiment, as people and scripts read it. Pure.

JSON: {"name", "verdict": "success" | "failure" | "inconclusive", "reason", "stage", "held", "arms": {"control": {...},
"treatment": {...}}, "metrics": {"ttft": {"ratio", "low", "high", "verdict", "why", "n", ...}, "itl", "e2e", "errors",
...}, "parity": {...}, "srm": {...}, "population", "shadow", "epochs", "examples"}. Ratios are of the treatment over the
control, null where there is no bound. Fields may be added; none goes away or changes its meaning.
"""

import math
from typing import Any

from msgspec import Struct, field

from gateway.config import ExperimentConfig
from gateway.experiments.judgement import Judgements, MetricFinding, answers_of, judge_all, loads, tools_of
from gateway.experiments.record import METRICS, Epoch, Record
from gateway.experiments.statistics.arms import Split, Stratum
from gateway.experiments.statistics.comparable import load_ratio
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.quantiles import Histogram, quantile_interval
from gateway.experiments.statistics.sample_ratio import log_evidence, mismatched

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class QuantileReport(Struct, frozen=True):
    """A quantile of an arm's times, in seconds."""

    low: float | None
    estimate: float | None
    high: float | None


class ArmReport(Struct, frozen=True):
    """One arm: what was drawn for it, who answered that, and its times in the last epoch with both arms."""

    deployments: list[str]
    fingerprints: dict[str, str]
    share: float
    requests: int
    units: int
    served: dict[str, int]
    crossed: int
    sent: int
    slots: int | None
    quantiles: dict[str, dict[str, QuantileReport]]


class MetricReport(Struct, frozen=True):
    """A metric: the ratio with its interval, and what to say of it. `shadow` is the same of the shadows' pairs."""

    ratio: float | None
    low: float | None
    high: float | None
    verdict: str
    why: str
    n: int
    needed: int | None = None
    seconds: float | None = None
    shadow: "MetricReport | None" = None


class ParityReport(Struct, frozen=True):
    """The answers: differences per 1,000 tokens between the engines and of the control's own, and of which kinds."""

    verdict: str
    why: str
    pairs: int
    self_pairs: int
    per_1000_tokens: float
    self_per_1000_tokens: float
    hard: int
    self_hard: int
    ties: int
    unknown: int
    stopped: int
    formats: int
    prompt: int
    coins: dict[str, list[int]]
    tools: dict[str, Any]


class SrmReport(Struct, frozen=True):
    """The sample ratio: units in each arm, the planned share (over all epochs), and whether they fit."""

    control: int
    treatment: int
    share: float
    log_evidence: float
    mismatch: bool


class EpochReport(Struct, frozen=True):
    """One epoch of the experiment."""

    id: str
    stage: str
    share: float
    began: float
    seen: float
    requests: dict[str, int]
    load_ratio: float | None
    pooled: bool


class ExperimentReport(Struct, frozen=True, kw_only=True):
    """All of it."""

    name: str
    run: str
    model: str
    unit: str
    verdict: str
    reason: str
    stage: str
    held: bool
    arms: dict[str, ArmReport]
    metrics: dict[str, MetricReport]
    parity: ParityReport
    srm: SrmReport
    population: dict[str, Any]
    shadow: dict[str, Any]
    obstacles: list[str]
    epochs: list[EpochReport]
    notes: list[str]
    examples: dict[str, list[Any]] = field(default_factory=dict)


def report_of(record: Record, settings: ExperimentConfig) -> ExperimentReport:
    """Return the report of a run, by the settings of its experiment."""
    judged = judge_all(record, settings)
    definition = record.run.definition
    return ExperimentReport(
        name=definition.name,
        run=definition.run,
        model=definition.model,
        unit=definition.unit,
        verdict="inconclusive" if record.held else judged.overall.outcome,
        reason="held: gateways have different files" if record.held else judged.overall.why,
        stage=record.current.note.stage if record.current is not None else "not begun",
        held=record.held,
        arms={arm: _arm(record, arm) for arm in ("control", "treatment")},
        metrics={name: _metric(finding, judged.beside.get(name)) for name, finding in judged.metrics.items()},
        parity=_parity(record, judged),
        srm=_srm(record),
        population=_population(record),
        shadow=_shadow(record),
        obstacles=judged.obstacles,
        epochs=[_epoch(one, record) for one in record.epochs],
        notes=_notes(record),
        examples=record.examples,
    )


def _arm(record: Record, arm: str) -> ArmReport:
    names = getattr(record.run.definition, arm)
    last = record.current
    share = (last.share if arm == "treatment" else 1 - last.share) if last else 0.0
    return ArmReport(
        deployments=list(names),
        fingerprints={name: last.note.fingerprints.get(name, "") for name in names} if last else {},
        share=share,
        requests=record.total("n", arm),
        units=record.total("unit", arm),
        served=record.words("served", arm),
        crossed=record.total("crossed", arm),
        sent=record.total("n", arm) + record.total("shadow", "asked", arm),
        slots=last.note.slots.get(arm) if last else None,
        quantiles=_quantiles(record, arm),
    )


def _quantiles(record: Record, arm: str) -> dict[str, dict[str, QuantileReport]]:
    """Return the quantiles of the last epoch with both arms: those of several stages are not to be added."""
    epochs = record.mixed or record.pooled
    if not epochs:
        return {}
    epoch = epochs[-1]
    times = {metric: epoch.histogram(metric, arm) for metric in METRICS}
    return {
        metric: {name: _quantile(histogram, p) for name, p in QUANTILES.items()}
        for metric, histogram in times.items()
        if histogram.n
    }


def _quantile(histogram: Histogram, p: float) -> QuantileReport:
    found = quantile_interval(histogram, p, 0.05)
    return QuantileReport(*(_finite(value) for value in (found.low, found.estimate, found.high)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _metric(finding: MetricFinding, beside: MetricFinding | None) -> MetricReport:
    interval, judged = finding.interval, finding.judged
    return MetricReport(
        ratio=_estimate(interval, finding.n),
        low=_finite(interval.low) if interval.low else None,
        high=_finite(interval.high),
        verdict=judged.judgement,
        why=judged.why,
        n=finding.n,
        needed=judged.needed,
        seconds=judged.seconds,
        shadow=None if beside is None or not beside.n else _metric(beside, None),
    )


def _estimate(interval: Interval, n: int) -> float | None:
    return _finite(interval.estimate) if n else None


def _parity(record: Record, judged: Judgements) -> ParityReport:
    pairs = answers_of(record)
    ab, aa = pairs.treatment, pairs.control
    return ParityReport(
        verdict=judged.parity.judgement,
        why=judged.parity.why,
        pairs=ab.pairs,
        self_pairs=aa.pairs,
        per_1000_tokens=ab.per_1000_tokens,
        self_per_1000_tokens=aa.per_1000_tokens,
        hard=ab.hard,
        self_hard=aa.hard,
        ties=ab.ties,
        unknown=ab.unknown,
        stopped=ab.stopped,
        formats=ab.formats,
        prompt=ab.prompts,
        coins={coin: _coin(record, coin) for coin in ("left_first", "farther", "tools")},
        tools={arm: _tools(record, arm) for arm in ("control", "treatment")},
    )


def _coin(record: Record, coin: str) -> list[int]:
    split = sum((epoch.split("coin", coin) for epoch in record.pooled), Split())
    return [split.control, split.treatment]


def _tools(record: Record, arm: str) -> dict[str, Any]:
    sums = tools_of(record, arm)
    return {"pairs": sums.pairs, "agreed": sums.agreed, "invalid": sums.invalid, "f1": sums.f1()}


def _srm(record: Record) -> SrmReport:
    found = [Stratum(epoch.split("unit"), epoch.share) for epoch in record.mixed]
    strata = [stratum for stratum in found if stratum.split.total]
    both = sum((stratum.split for stratum in strata), Split())
    share = sum(stratum.share * stratum.split.total for stratum in strata) / max(both.total, 1)
    return SrmReport(both.control, both.treatment, share, log_evidence(strata), mismatched(strata))


def _population(record: Record) -> dict[str, Any]:
    assigned = {arm: record.total("n", arm) for arm in ("control", "treatment")}
    return {"assigned": assigned, "excluded": record.words("excluded")}


def _shadow(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {what: record.words("shadow", what) for what in ("asked", "failed", "dropped")}
    cached = {}
    for arm in ("control", "treatment"):
        prompt = record.total("prefix", arm, "prompt")
        cached[arm] = record.total("prefix", arm, "cached") / prompt if prompt else None
    return found | {"compared": record.total("shadow", "compared"), "prompt_cached": cached}


def _epoch(epoch: Epoch, record: Record) -> EpochReport:
    ratio = load_ratio(loads(epoch))
    return EpochReport(
        id=epoch.id,
        stage=epoch.note.stage,
        share=epoch.share,
        began=epoch.note.began,
        seen=epoch.seen,
        requests={arm: epoch.number("n", arm) for arm in ("control", "treatment")},
        load_ratio=None if ratio is None else _finite(ratio),
        pooled=epoch in record.pooled,
    )


def _notes(record: Record) -> list[str]:
    """Return what a reader has to know of the figures."""
    said = []
    if record.run.definition.unit == "conversation":
        said.append("a conversation is known by its beginning; on /v1/completions and /generate each prompt is one")
    if any(epoch not in record.pooled for epoch in record.epochs):
        said.append("an engine changed: epochs of other engines than the present ones are not pooled")
    if record.total("shadow", "compared"):
        said.append("answers are compared word by word, unless the client itself asked for token ids or probabilities")
        said.append("the shadow's times are at the shadow's load; the control may have had the prompt in its cache")
    return said


def status_of(report: ExperimentReport) -> dict[str, Any]:
    """Return what there is to say of an experiment in a line."""
    names = ("name", "model", "run", "stage", "verdict", "reason", "held")
    requests = {arm: found.requests for arm, found in report.arms.items()}
    return {name: getattr(report, name) for name in names} | {"requests": requests}
