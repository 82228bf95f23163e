"""The report for people, as tables for a terminal. Pure."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.experiments.report import ArmReport, ExperimentReport, MetricReport

COLOURS = {
    "success": "green",
    "failure": "red",
    "inconclusive": "yellow",
    "better": "green",
    "not worse": "green",
    "slightly worse": "yellow",
    "worse": "red",
}
NAMES = {
    "ttft": "time to first token",
    "itl": "time per token",
    "e2e": "time in all",
    "errors": "errors (first attempt)",
    "late": "late first tokens",
    "left": "left before the first token",
    "seen_errors": "errors that clients saw",
    "refused": "refused by the engine",
}
MOST_EXAMPLES = 5


def shown(report: ExperimentReport) -> RenderableType:
    """Return the report."""
    parts = [_heading(report), _arms(report), _metrics(report), _parity(report), _population(report), _epochs(report)]
    return Group(*(part for part in parts if part is not None), *_examples(report), *_notes(report))


def _heading(report: ExperimentReport) -> Text:
    words = Text.assemble(
        (f"{report.name}", "bold"), f" of {report.model}: ", (report.verdict, COLOURS.get(report.verdict, ""))
    )
    words.append(f" ({report.reason})\nStage: {report.stage}. Unit: {report.unit}. Run: {report.run}.\n")
    return words


def _table(*columns: str, title: str = "") -> Table:
    made = Table(box=None, pad_edge=False, title=title or None, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place == 0 or column in ("verdict", "why") else "right")
    return made


def _arms(report: ExperimentReport) -> Table:
    made = _table("arm", "share", "requests", "units", "answered by the other", "shadows", "slots", title="Arms")
    for name, arm in report.arms.items():
        shadows = report.shadow["asked"].get(name, 0)
        cells = (f"{arm.share:.1%}", f"{arm.requests:,}", f"{arm.units:,}", f"{arm.crossed:,}", f"{shadows:,}")
        made.add_row(f"{name}: {_deployments(arm)}", *cells, str(arm.slots or "?"))
    return made


def _deployments(arm: ArmReport) -> str:
    return ", ".join(f"{name} ({arm.fingerprints.get(name) or 'not heard'})" for name in arm.deployments)


def _metrics(report: ExperimentReport) -> Table:
    title = "\nTreatment over control, with bounds that hold at every look"
    made = _table("metric", "ratio", "from", "to", "samples", "verdict", title=title)
    for name, found in report.metrics.items():
        _add(made, NAMES.get(name, name), found)
        if found.shadow is not None:
            _add(made, "  shadows, at their load", found.shadow)
    return made


def _add(made: Table, name: str, found: MetricReport) -> None:
    verdict = Text(found.verdict, COLOURS.get(found.verdict, ""))
    if found.verdict == "not comparable":
        verdict.append(f": {found.why}")
    if found.needed:
        verdict.append(f" (at about {found.needed:,} samples{_in(found.seconds)})")
    made.add_row(name, *(_ratio(value) for value in (found.ratio, found.low, found.high)), f"{found.n:,}", verdict)


def _in(seconds: float | None) -> str:
    if not seconds:
        return ""
    hours = seconds / 3600
    return f", in {hours:.1f} h" if hours >= 1 else f", in {seconds / 60:.0f} min"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _parity(report: ExperimentReport) -> Table | None:
    parity = report.parity
    if not parity.pairs:
        return None
    made = _table("answers", "between the engines", "the control's own", title="\nAnswers, each beside the self-pair")
    rows = (
        ("pairs", parity.pairs, parity.self_pairs),
        ("differences per 1,000 tokens", f"{parity.per_1000_tokens:.2f}", f"{parity.self_per_1000_tokens:.2f}"),
        ("hard differences", parity.hard, parity.self_hard),
        ("ties", parity.ties, ""),
        ("kind not known", parity.unknown, ""),
        ("stopped elsewhere", parity.stopped, ""),
        ("tool calls or JSON differ", parity.formats, ""),
        ("prompts of other lengths", parity.prompt, ""),
    )
    for name, between, own in rows:
        made.add_row(name, str(between), str(own))
    for coin, words in (("left_first", "left the client's answer first"), ("farther", "farther from it (sampled)")):
        own, between = parity.coins[coin]
        made.add_row(words, str(between), str(own))
    made.add_row(Text(f"verdict: {parity.verdict}", COLOURS.get(parity.verdict, "")), "", "")
    made.add_row(f"  {parity.why}", "", "")
    return made


def _population(report: ExperimentReport) -> Table:
    made = _table("who", "requests", title="\nWho was in, and who was not")
    for arm, count in report.population["assigned"].items():
        made.add_row(f"drawn for the {arm}", f"{count:,}")
    for why, count in sorted(report.population["excluded"].items()):
        made.add_row(f"not drawn: {why}", f"{count:,}")
    for what in ("failed", "dropped"):
        for why, count in sorted(report.shadow[what].items()):
            made.add_row(f"shadow {what}: {why}", f"{count:,}")
    srm = report.srm
    fits = "does NOT fit" if srm.mismatch else "fits"
    made.add_row(f"units {srm.control:,} : {srm.treatment:,}, which {fits} the share of {srm.share:.1%}", "")
    return made


def _epochs(report: ExperimentReport) -> Table:
    made = _table("epoch", "stage", "share", "from", "to", "control", "treatment", "load", "pooled", title="\nEpochs")
    for epoch in report.epochs:
        load = "?" if epoch.load_ratio is None else f"{epoch.load_ratio:.2f}"
        times = (_time(epoch.began), _time(epoch.seen))
        counts = (f"{epoch.requests[arm]:,}" for arm in ("control", "treatment"))
        made.add_row(
            epoch.id, epoch.stage, f"{epoch.share:.1%}", *times, *counts, load, "yes" if epoch.pooled else "no"
        )
    return made


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _examples(report: ExperimentReport) -> list[RenderableType]:
    if not report.examples:
        return []
    made = _table("example", "parts at", "client", "shadow", title="\nAnswers that differ (characters, finish, hash)")
    for kind, examples in report.examples.items():
        for example in examples[:MOST_EXAMPLES]:
            made.add_row(kind, str(example["offset"]), _answer(example["client"]), _answer(example["shadow"]))
    return [made]


def _answer(told: dict[str, Any]) -> Text:
    words = f"{told['characters']}, {told['finish'] or '?'}, {told['sha256']}"
    return Text(f"{words}\n…{told['before'][-30:]}|{told['after'][:50]}" if "after" in told else words)


def _notes(report: ExperimentReport) -> list[RenderableType]:
    return [Text("\n" + "\n".join(f"Note: {note}." for note in report.notes))] if report.notes else []


def table(found: list[dict[str, Any]]) -> Table:
    """Return a line for each experiment."""
    made = _table("experiment", "model", "stage", "control", "treatment", "verdict")
    for one in found:
        requests = one["requests"]
        verdict = Text.assemble((one["verdict"], COLOURS.get(one["verdict"], "")), f": {one['reason']}")
        counts = (f"{requests[arm]:,}" for arm in ("control", "treatment"))
        made.add_row(one["name"], one["model"], one["stage"], *counts, verdict)
    return made
