"""The comparison as a JSON document and as tables for people. Pure.

The JSON document: {"verdict", "why", "status", "stopped", "engines": {side: {"kind", "url", "model", "fingerprint",
"changed", "requests", "failed", "finishes", "tokens", "tokens_per_answer", "in_flight"}}, "workload", "measured":
{"prompts", "rounds", "planned_rounds", "seconds", "late_p99_ms"}, "latencies": [{"name", "judgement", "why", "needed",
"seconds_more", "ratio": [low, estimate, high], "self_ratio", "pairs", "quantiles": [{"p", "control_s", "treatment_s",
"ratio"}]}], "guardrails": [{"name", "judgement", "why", "control_alone", "treatment_alone"}], "answers": {"judgement",
"why", "unit", "self", "between", "left_first", "farther", "sampled", "tools", "examples"}}. An end of an interval that
is not known is null. Fields may be added; none goes away or changes its meaning.

Texts are in it only where they are wished for. Else an example has the place of its request and the lengths.
"""

import math
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from gateway.cli.exit_status import ExitStatus
from gateway.experiments.answers import SaidAnswer
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.means import LEAST_BUCKETS
from gateway.experiments.statistics.verdict import Judged, Judgement, Outcome
from loadtests.compare_front import SIDES, EngineUrl
from loadtests.compare_judge import Example, Findings, Guardrail, Latency, Parity, SideFigures
from loadtests.compare_run import Measured

INCONCLUSIVE = 2
STATUSES = {
    Outcome.SUCCESS: int(ExitStatus.DONE),
    Outcome.FAILURE: int(ExitStatus.FAILED),
    Outcome.INCONCLUSIVE: INCONCLUSIVE,
}
COLOURS = {
    Judgement.BETTER: "green",
    Judgement.NOT_WORSE: "green",
    Judgement.SLIGHTLY_WORSE: "yellow",
    Judgement.WORSE: "bold red",
}
WORDS = {Outcome.SUCCESS: "not worse", Outcome.FAILURE: "worse", Outcome.INCONCLUSIVE: "inconclusive"}
WIDTH = 110
AROUND = 60  # characters shown before and behind the place where two texts part


class Told(Struct, frozen=True):
    """What the report tells besides the findings: whom was asked what, and whether texts are shown."""

    engines: dict[str, EngineUrl]
    models: dict[str, str]
    fingerprints: dict[str, str]
    workload: dict[str, Any]
    planned: int
    clear: bool


def status(measured: Measured, findings: Findings) -> int:
    """Return the exit status: of a run that was broken off, that an engine could not be asked."""
    return int(ExitStatus.UNREACHABLE) if measured.stopped else STATUSES[findings.overall.outcome]


# --- JSON ------------------------------------------------------------------------------------------------------------


def document(measured: Measured, findings: Findings, told: Told) -> dict[str, Any]:
    """Return the report as this file's opening says."""
    return {
        "verdict": WORDS[findings.overall.outcome],
        "why": findings.overall.why,
        "status": status(measured, findings),
        "stopped": measured.stopped,
        "engines": {side: _engine(side, measured, findings, told) for side in SIDES},
        "workload": told.workload,
        "measured": {
            "prompts": len(measured.triples),
            "rounds": measured.rounds,
            "planned_rounds": told.planned,
            "seconds": round(measured.seconds, 1),
            "late_p99_ms": round(1000 * findings.late, 2),
        },
        "latencies": [_latency(one) for one in findings.latencies],
        "guardrails": [_guardrail(one) for one in findings.guardrails],
        "answers": _answers(findings.parity, told.clear),
    }


def _engine(side: str, measured: Measured, findings: Findings, told: Told) -> dict[str, Any]:
    engine, figures = told.engines[side], findings.sides[side]
    who = {"kind": engine.kind, "url": engine.shown, "model": told.models[side]}
    changed = {"fingerprint": told.fingerprints[side], "changed": side in measured.changed}
    return who | changed | {name: rounded(field) for name, field in msgspec.structs.asdict(figures).items()}


def _judged(judged: Judged) -> dict[str, Any]:
    more = None if judged.seconds is None else round(judged.seconds)
    return {"judgement": judged.judgement, "why": judged.why, "needed": judged.needed, "seconds_more": more}


def _latency(one: Latency) -> dict[str, Any]:
    return (
        {"name": one.name}
        | _judged(one.judged)
        | {
            "ratio": ends(one.ratio),
            "self_ratio": ends(one.self_ratio),
            "pairs": one.pairs,
            "quantiles": [
                {
                    "p": each.p,
                    "control_s": ends(each.control),
                    "treatment_s": ends(each.treatment),
                    "ratio": ends(each.ratio),
                }
                for each in one.quantiles
            ],
        }
    )


def _guardrail(one: Guardrail) -> dict[str, Any]:
    alone = {"control_alone": one.alone.control, "treatment_alone": one.alone.treatment}
    return {"name": one.name} | _judged(one.judged) | alone


def _answers(parity: Parity, clear: bool) -> dict[str, Any]:
    return _judged(parity.judged) | {
        "unit": parity.unit,
        "self": _divergences(parity.pairs.control),
        "between": _divergences(parity.pairs.treatment),
        "left_first": msgspec.structs.asdict(parity.left_first),
        "farther": msgspec.structs.asdict(parity.farther),
        "sampled": parity.sampled,
        "tools": {
            name: msgspec.structs.asdict(sums) | {"f1": round(sums.f1(), 4)}
            for name, sums in (("self", parity.tools.control), ("between", parity.tools.treatment))
        },
        "examples": [_example(one, clear) for one in parity.examples],
    }


def _divergences(sums: Divergences) -> dict[str, Any]:
    return msgspec.structs.asdict(sums) | {"unknown": sums.unknown, "per_1000": rounded(sums.per_1000_tokens)}


def _example(one: Example, clear: bool) -> dict[str, Any]:
    found = one.difference
    placed = {"prompt": one.prompt, "kind": one.kind, "offset": found.offset, "compared": found.at_risk}
    lengths = {"prompt_characters": len(one.asked), "control": _said(one.control), "treatment": _said(one.treatment)}
    texts = {"asked": one.asked, "control_text": around(one.control, found.offset)} if clear else {}
    return placed | lengths | texts | ({"treatment_text": around(one.treatment, found.offset)} if clear else {})


def _said(answer: SaidAnswer) -> dict[str, Any]:
    counts = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.completion_tokens}
    return {"characters": len(answer.text), "finish": answer.finish, "tool_calls": len(answer.calls)} | counts


def around(answer: SaidAnswer, offset: int) -> list[str]:
    """Return what is around a place: what the answers have in common before it, and what follows."""
    written = answer.text + "".join(f" {call.name}({call.arguments})" for call in answer.calls)
    return [written[max(0, offset - AROUND) : offset], written[offset : offset + AROUND]]


def ends(interval: Interval) -> list[float | None]:
    """Return the low end, the estimate and the high end; None for an end that is not known."""
    return [rounded(end) for end in (interval.low, interval.estimate, interval.high)]


def rounded(value: Any) -> Any:
    """Return a number with five digits; None for what no JSON has."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None


# --- tables ----------------------------------------------------------------------------------------------------------


def tables(measured: Measured, findings: Findings, told: Told) -> RenderableType:
    """Return the report for a terminal."""
    parts: list[RenderableType] = [_engines(measured, findings, told), _times(findings), _parity(findings)]
    parts += [Text(line) for line in examples(findings.parity, told.clear)]
    parts += [Text(line, "yellow") for line in notes(measured, findings, told)]
    outcome = findings.overall.outcome
    colour = {Outcome.SUCCESS: "bold green", Outcome.FAILURE: "bold red"}.get(outcome, "bold yellow")
    parts.append(Text(conclusion(findings), colour))
    return Group(*parts)


def conclusion(findings: Findings) -> str:
    """Return the verdict and why, in a line."""
    word, why = WORDS[findings.overall.outcome], findings.overall.why
    return why if why.startswith(f"{word}: ") else f"{word}: {why}"


def _engines(measured: Measured, findings: Findings, told: Told) -> Table:
    names = [Column(name, overflow="fold") for name in ("engine", "model")]
    table = Table("", *names, "requests", "failed", "tokens", "an answer", "in flight", width=WIDTH)
    table.title = Text(f"{len(measured.triples)} prompts in {measured.rounds} rounds, {measured.seconds:.0f} s", "bold")
    for side in SIDES:
        engine, one = told.engines[side], findings.sides[side]
        failed = failures(one)
        figures = (str(one.tokens), f"{one.tokens_per_answer:.1f}", f"{one.in_flight:.2f}")
        who = (Text(f"{engine.kind} {engine.shown}"), Text(told.models[side]))
        table.add_row(side, *who, str(one.requests), Text(failed), *figures)
    return table


def _times(findings: Findings) -> Table:
    table = Table("time", "control p50 / p95", "treatment p50 / p95", "ratio", "with itself", "verdict", width=WIDTH)
    for one in findings.latencies:
        median, high = one.quantiles[0], one.quantiles[1]
        figures = (
            f"{milliseconds(median.control.estimate)} / {milliseconds(high.control.estimate)}",
            f"{milliseconds(median.treatment.estimate)} / {milliseconds(high.treatment.estimate)}",
            per_cent(one.ratio),
            per_cent(one.self_ratio),
        )
        table.add_row(one.name, *figures, verdict(one.judged))
    return table


def _parity(findings: Findings) -> Table:
    table = Table("answers", "control with itself", "with the treatment", "verdict", width=WIDTH)
    own, across = findings.parity.pairs.control, findings.parity.pairs.treatment
    unit = "words" if findings.parity.unit == "words" else "tokens"
    rate = [f"{one.per_1000_tokens:.3g} ({one.diverged} in {one.tokens:,})" for one in (own, across)]
    table.add_row(f"divergences per 1,000 {unit}", *rate, verdict(findings.parity.judged))
    rows = {
        "  of them ties / hard / unknown": [f"{one.ties} / {one.hard} / {one.unknown}" for one in (own, across)],
        "prompts read differently": [f"{one.prompts} of {one.pairs}" for one in (own, across)],
        "left the reference first": [
            str(findings.parity.left_first.control),
            str(findings.parity.left_first.treatment),
        ],
        f"farther, of {findings.parity.sampled} sampled": [
            str(findings.parity.farther.control),
            str(findings.parity.farther.treatment),
        ],
    }
    if findings.parity.tools.control.pairs:
        both = (findings.parity.tools.control, findings.parity.tools.treatment)
        rows["calls and JSON alike / invalid"] = [f"{one.agreed} of {one.pairs} / {one.invalid}" for one in both]
    for name, cells in rows.items():
        table.add_row(name, *cells, "")
    table.add_section()
    for rail in findings.guardrails:
        whose = (
            ("control alone", "treatment alone")
            if rail.name == "failed requests"
            else ("itself alone", "treatment alone")
        )
        cells = [
            f"{count} ({who})" for count, who in zip((rail.alone.control, rail.alone.treatment), whose, strict=True)
        ]
        table.add_row(rail.name, *cells, verdict(rail.judged) if rail.alone.total else Text("none", "green"))
    return table


def examples(parity: Parity, clear: bool) -> list[str]:
    """Return a line for each example: where it is, and how the answers part."""
    told = []
    for one in parity.examples:
        found = one.difference
        lengths = f"{len(one.control.text)} and {len(one.treatment.text)} characters"
        counts = f"{one.control.prompt_tokens} and {one.treatment.prompt_tokens} tokens of prompt"
        line = f"{one.prompt}: {one.kind}, alike for {found.offset} characters, of {lengths} ({counts})"
        if clear:
            (_, mine), (_, its) = (around(answer, found.offset) for answer in (one.control, one.treatment))
            line += f": {mine[:30]!r} and {its[:30]!r}"
        told.append(line)
    return told


def failures(figures: SideFigures) -> str:
    """Return how many requests of an engine failed, and how."""
    return ", ".join(f"{count}x {why}" for why, count in figures.failed.items()) or "0"


def notes(measured: Measured, findings: Findings, told: Told) -> list[str]:
    """Return what one should know before one believes it."""
    said = []
    if measured.stopped:
        said.append(f"Broken off: {measured.stopped}. What was measured until then is above.")
    said += [f"The engine of the {side} changed meanwhile." for side in measured.changed]
    if findings.late > 0.01:
        said.append(
            f"1 % of the requests were sent {1000 * findings.late:.0f} ms late or more: this machine is too busy."
        )
    if told.models[SIDES[0]] != told.models[SIDES[1]]:
        said.append("The engines' names of their models differ.")
    if measured.rounds < LEAST_BUCKETS:
        said.append(f"A verdict on times takes {LEAST_BUCKETS} rounds.")
    for one in findings.latencies:
        if one.judged.needed and measured.rounds >= LEAST_BUCKETS:
            minutes = (one.judged.seconds or 0) / 60
            said.append(f"{one.name}: known after {one.judged.needed} rounds, about {minutes:.0f} minutes more.")
    return said


def verdict(judged: Judged) -> Text:
    """Return a verdict's word in its colour."""
    return Text(judged.judgement, COLOURS.get(judged.judgement, "yellow"))


def milliseconds(seconds: float) -> str:
    """Return a time with three digits."""
    return f"{1000 * seconds:.3g} ms" if math.isfinite(seconds) else "none"


def per_cent(ratio: Interval) -> str:
    """Return a ratio with its interval, in per cent more or less."""
    low, estimate, high = (
        f"{100 * (end - 1):+.1f}" if math.isfinite(end) and end > 0 else "?"
        for end in (ratio.low, ratio.estimate, ratio.high)
    )
    return f"{estimate} % ({low} to {high})"
