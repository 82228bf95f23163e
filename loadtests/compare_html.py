"""The comparison as one page: figures and plots in one file, without scripts, which prints well. Pure."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.verdict import Judged
from loadtests.compare_front import SIDES, Heard
from loadtests.compare_judge import TIMES, Findings, Latency, bad
from loadtests.compare_run import Measured
from loadtests.compare_show import (
    WORDS,
    Told,
    examples,
    failures,
    milliseconds,
    notes,
    per_cent,
)

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 240, 56, 30
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #6a737d; --line: #d0d7de; --paper: #ffffff;
  --control: #5b6b7b; --treatment: #0b6bcb; --bad: #b3261e; --good: #1a7f37; --unsure: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4ae; --line: #3a424b; --paper: #14181d;
  --control: #a8b3bf; --treatment: #5aaeff; --bad: #ff8a80; --good: #56d364; --unsure: #e3b341; } }
@media print { :root { --paper: #fff; --ink: #000; } section { break-inside: avoid; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 500; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; height: auto; max-width: 640px; } svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.worse { color: var(--bad); } .better, .not-worse { color: var(--good); }
.not-yet-known, .not-comparable, .slightly-worse, .inconclusive { color: var(--unsure); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: .9rem; } code { overflow-wrap: anywhere; }
"""


def page(measured: Measured, findings: Findings, told: Told) -> str:
    """Return the page."""
    word = WORDS[findings.overall.outcome]
    parts = [
        f"<h1>Two engines compared: <span class='{_class(word)}'>{word}</span></h1>",
        f"<p>{escape(findings.overall.why)}</p>",
        *(f"<p class='inconclusive'>{escape(note)}</p>" for note in notes(measured, findings, told)),
        _engines(measured, findings, told),
        _times(measured, findings),
        _answers(findings, told),
    ]
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><style>{STYLE}</style>"
    head = f"<head>{head}<title>Engines compared: {word}</title></head>"
    return "\n".join(("<!doctype html><html lang='en'>", head, "<body>", *parts, "</body></html>", ""))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are HTML."""
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def _class(word: str) -> str:
    return word.replace(" ", "-")


def _word(judged: Judged) -> str:
    return f"<span class='{_class(judged.judgement)}'>{judged.judgement}</span>"


def _engines(measured: Measured, findings: Findings, told: Told) -> str:
    rows = []
    for side in SIDES:
        engine, one = told.engines[side], findings.sides[side]
        failed = failures(one)
        finishes = ", ".join(f"{why} {count}" for why, count in sorted(one.finishes.items()))
        cells = (f"{engine.kind} {engine.shown}", told.models[side], str(one.requests), failed, finishes)
        rows.append([side, *map(escape, cells), f"{one.tokens_per_answer:.1f}", f"{one.in_flight:.2f}"])
    head = ("", "engine", "model", "requests", "failed", "finish reasons", "tokens an answer", "in flight")
    said = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.workload.items() if value)
    run = f"{len(measured.triples)} prompts in {measured.rounds} of {told.planned} rounds, {measured.seconds:.0f} s"
    return f"<section>{_table(head, rows)}<p>{run}. {escape(said)}.</p></section>"


# --- times -----------------------------------------------------------------------------------------------------------


def _times(measured: Measured, findings: Findings) -> str:
    rows = [
        [
            escape(one.name),
            *_quantiles(one),
            per_cent(one.ratio),
            per_cent(one.self_ratio),
            _word(one.judged),
            escape(one.judged.why),
        ]
        for one in findings.latencies
    ]
    head = ("time", "control p50, p95, p99", "treatment", "ratio", "control with itself", "verdict", "why")
    plots = [_forest(findings.latencies)]
    for name, time in TIMES.items():
        arms = ([one.control for one in measured.triples], [one.treatment for one in measured.triples])
        plots.append(_distribution(name, [_known(heard, time) for heard in arms]))
    figures = "".join(f"<figure>{plot}</figure>" for plot in plots)
    return f"<section><h2>Times</h2>{_table(head, rows)}<div class='plots'>{figures}</div></section>"


def _quantiles(one: Latency) -> list[str]:
    arms = [(each.control.estimate, each.treatment.estimate) for each in one.quantiles]
    return [", ".join(milliseconds(pair[place]) for pair in arms) for place in (0, 1)]


def _known(heard: Sequence[Heard], time: Any) -> list[float]:
    return sorted(found for one in heard if not bad(one) and (found := time(one)))


def _forest(latencies: Sequence[Latency]) -> str:
    """Draw the ratios with their intervals, and those of the control with itself."""
    rows = [
        (one.name, ratio, side)
        for one in latencies
        for ratio, side in ((one.ratio, "treatment"), (one.self_ratio, "control"))
    ]
    finite = [
        abs(math.log(end))
        for _, ratio, _ in rows
        for end in (ratio.low, ratio.high, ratio.estimate)
        if 0 < end < math.inf
    ]
    reach = min(2.5, max([0.1, *finite]) * 1.1)
    marks = [_mark(name, ratio, side, 24 + 30 * place, reach) for place, (name, ratio, side) in enumerate(rows)]
    height = 30 * len(rows) + 40
    ticks = [
        (-reach, f"{100 * math.expm1(-reach):+.0f} %"),
        (0.0, "as long"),
        (reach, f"{100 * math.expm1(reach):+.0f} %"),
    ]
    axis = [
        f"<text x='{_across(at, reach):.0f}' y='{height - 6}' text-anchor='middle'>{text}</text>" for at, text in ticks
    ]
    middle = _across(0.0, reach)
    axis.append(f"<line x1='{middle}' x2='{middle}' y1='8' y2='{height - 22}' stroke='var(--line)'/>")
    label = "Ratios of the times, the treatment's and the control's own second, over the control's"
    return _svg(height, "".join(axis + marks), label)


def _mark(name: str, ratio: Interval, side: str, y: int, reach: float) -> str:
    low, high = (_across(_bounded(end, reach), reach) for end in (ratio.low, ratio.high))
    at = _across(_bounded(ratio.estimate, reach), reach)
    line = f"<line x1='{low:.1f}' x2='{high:.1f}' y1='{y}' y2='{y}' stroke='var(--{side})' stroke-width='2'/>"
    text = f"<text x='4' y='{y + 4}'>{escape(name)}{'' if side == 'treatment' else ', itself'}</text>"
    return f"{line}<circle cx='{at:.1f}' cy='{y}' r='4' fill='var(--{side})'/>{text}"


def _bounded(ratio: float, reach: float) -> float:
    """Return the logarithm of a ratio, as far as the plot reaches."""
    return -reach if ratio <= 0 else max(-reach, min(reach, math.log(ratio)))


def _across(value: float, reach: float) -> float:
    return 400 + value / reach * 200


def _distribution(name: str, arms: Sequence[Sequence[float]]) -> str:
    """Draw the shares of requests that took no longer, over the logarithm of the time."""
    times = [time for arm in arms for time in arm]
    if not times:
        return ""
    low, high = math.log(min(times)), math.log(max(times))
    width = max(high - low, 1e-3)
    lines = [_curve(arm, low, width, side) for arm, side in zip(arms, SIDES, strict=True)]
    ends = [(LEFT, "start", min(times)), (WIDTH - 8, "end", max(times))]
    lines += [
        f"<text x='{x}' y='{HEIGHT - 8}' text-anchor='{anchor}'>{milliseconds(time)}</text>" for x, anchor, time in ends
    ]
    for share in (0.5, 0.95):
        y = _height(share)
        lines.append(f"<line x1='{LEFT}' x2='{WIDTH - 8}' y1='{y:.0f}' y2='{y:.0f}' stroke='var(--line)'/>")
        lines.append(f"<text x='4' y='{y + 4:.0f}'>{100 * share:.0f} %</text>")
    return _svg(HEIGHT, "".join(lines), f"{name[0].upper()}{name[1:]}: the share of requests that took no longer")


def _curve(arm: Sequence[float], low: float, width: float, side: str) -> str:
    step = max(1, len(arm) // 200)
    points = " ".join(
        f"{LEFT + (math.log(time) - low) / width * (WIDTH - LEFT - 8):.1f},{_height((place * step + 1) / len(arm)):.1f}"
        for place, time in enumerate(arm[::step])
    )
    return f"<polyline points='{points}' fill='none' stroke='var(--{side})' stroke-width='2'/>"


def _height(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - 10)


def _svg(height: int, inside: str, caption: str) -> str:
    key = "<span style='color:var(--control)'>■ control</span> <span style='color:var(--treatment)'>■ treatment</span>"
    drawn = f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(caption)}'>{inside}</svg>"
    return f"{drawn}<figcaption>{escape(caption)}. {key}</figcaption>"


# --- answers ---------------------------------------------------------------------------------------------------------


def _answers(findings: Findings, told: Told) -> str:
    parity = findings.parity
    rows = [[name, *map(str, values)] for name, values in _counts(parity.pairs.control, parity.pairs.treatment)]
    rows.append(["left the reference first", str(parity.left_first.control), str(parity.left_first.treatment)])
    rows.append([f"farther, of {parity.sampled} sampled", str(parity.farther.control), str(parity.farther.treatment)])
    rails = [
        [one.name, str(one.alone.control), str(one.alone.treatment), _word(one.judged)] for one in findings.guardrails
    ]
    verdict = f"<p>{_word(parity.judged)}: {escape(parity.judged.why)}</p>"
    tables = _table(("answers", "control with itself", "with the treatment"), rows)
    tables += _table(("alone in", "control", "treatment", "verdict"), rails)
    found = "".join(f"<li><code>{escape(line)}</code></li>" for line in examples(parity, told.clear))
    plot = f"<figure>{_bars(parity.pairs.control, parity.pairs.treatment)}</figure>"
    figures = f"<section><h2>Answers</h2>{verdict}{tables}{plot}</section>"
    return f"{figures}<section><h2>Examples</h2><ul>{found}</ul></section>"


def _counts(own: Divergences, across: Divergences) -> list[tuple[str, tuple[object, object]]]:
    rate = (f"{own.per_1000_tokens:.3g}", f"{across.per_1000_tokens:.3g}")
    names = ("pairs", "tokens", "diverged", "ties", "hard", "unknown", "stopped", "formats", "prompts")
    return [
        ("divergences per 1,000 units", rate),
        *((name, (getattr(own, name), getattr(across, name))) for name in names),
    ]


def _bars(own: Divergences, across: Divergences) -> str:
    """Draw how many pairs differ, by kind."""
    kinds = ("ties", "hard", "unknown", "stopped", "formats", "prompts")
    most = max([1, *(getattr(sums, kind) for kind in kinds for sums in (own, across))])
    drawn = []
    for place, kind in enumerate(kinds):
        y = 12 + 36 * place
        drawn.append(f"<text x='4' y='{y + 16}'>{kind}</text>")
        for row, (sums, side) in enumerate(((own, "control"), (across, "treatment"))):
            count = getattr(sums, kind)
            x = 80 + count / most * 500
            drawn.append(f"<rect x='80' y='{y + 13 * row}' width='{x - 80:.1f}' height='11' fill='var(--{side})'/>")
            drawn.append(f"<text x='{x + 6:.1f}' y='{y + 13 * row + 10}'>{count}</text>")
    return _svg(
        36 * len(kinds) + 16,
        "".join(drawn),
        "Pairs that differ, by kind: the control with itself, and with the treatment",
    )
