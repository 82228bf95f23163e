"""The pre-flight report, as a table for people and as JSON for pipelines. Pure.

The JSON document: {"from", "to", "requests", "counts": {verdict: number}, "unreadable": {"count", "examples":
[{"line", "why"}]}, "reasons": [{"verdict", "parameter", "requests", "lines", "why", "advice", "source"}], "models":
{name: number}, "status": exit status}. A request has one verdict, the worst of its reasons, and counts for each of
them. Fields may be added; none goes away or changes its meaning.
"""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.compat.facts import Verdict
from gateway.cli.compat.judge import Seen, Tally
from gateway.cli.exit_status import ExitStatus

COLOURS = {Verdict.HANDLED: "cyan", Verdict.MENDED: "green", Verdict.CHANGED: "yellow", Verdict.REFUSED: "bold red"}
WIDTH = 100
WORDS = {
    Verdict.SAME: "mean the same",
    Verdict.HANDLED: "are adapted by the gateway",
    Verdict.MENDED: "fail today and will work",
    Verdict.CHANGED: "change their meaning",
    Verdict.REFUSED: "will be refused",
}


def status(tally: Tally) -> ExitStatus:
    """Return the exit status: USAGE no line is a request, FAILED some change or are refused, DONE none."""
    if tally.unreadable and not tally.requests:
        return ExitStatus.USAGE
    broken = tally.verdicts[Verdict.CHANGED] + tally.verdicts[Verdict.REFUSED]
    return ExitStatus.FAILED if broken else ExitStatus.DONE


def ordered(tally: Tally) -> list[Seen]:
    """Return the reasons, the worst first, then the most frequent."""
    return sorted(tally.reasons.values(), key=lambda seen: (-seen.reason.verdict, -seen.requests, seen.lines[0]))


def document(tally: Tally) -> dict[str, Any]:
    """Return the report as this file's opening says."""
    return {
        "from": tally.today,
        "to": tally.then,
        "requests": tally.requests,
        "counts": {verdict.word: tally.verdicts[verdict] for verdict in Verdict},
        "unreadable": {
            "count": tally.unreadable,
            "examples": [{"line": line, "why": why} for line, why in tally.unread],
        },
        "reasons": [_reason(seen) for seen in ordered(tally)],
        "models": dict(tally.models),
        "status": status(tally),
    }


def _reason(seen: Seen) -> dict[str, Any]:
    reason = seen.reason
    return {
        "verdict": reason.verdict.word,
        "parameter": reason.parameter,
        "requests": seen.requests,
        "lines": seen.lines,
        "why": reason.why,
        "advice": reason.advice,
        "source": reason.source,
    }


def tables(tally: Tally) -> RenderableType:
    """Return the report for people, at most 100 columns wide."""
    parts: list[RenderableType] = [_table(tally)] if tally.reasons else []
    parts += [Text(f"line {line}: {why}", "yellow") for line, why in tally.unread]
    if tally.unreadable > len(tally.unread):
        parts.append(Text(f"and {tally.unreadable - len(tally.unread)} more lines that cannot be read", "yellow"))
    counted = [f"{tally.verdicts[verdict]:,} {words}" for verdict, words in WORDS.items() if tally.verdicts[verdict]]
    parts.append(Text(f"{tally.requests:,} requests: {', '.join(counted) or 'nothing to judge'}."))
    if tally.unreadable:
        parts.append(Text(f"{tally.unreadable:,} lines are not requests."))
    if tally.models:
        names = ", ".join(name[:40] for name, _ in tally.models.most_common(5))
        parts.append(
            Text(f"Models: {names}. Each must be a name or an alias of a model in the gateway's configuration.")
        )
    return Group(*parts)


def _table(tally: Tally) -> Table:
    title = Text(f"Requests made to {tally.today}, on {tally.then} behind the gateway", "bold")
    table = Table(title=title, width=WIDTH)
    table.add_column("", width=7)
    table.add_column("parameter", width=20, overflow="fold")
    table.add_column("requests", justify="right", width=8)
    table.add_column("lines", width=12)
    table.add_column("why, and what to do", ratio=1)
    verdict = None
    for seen in ordered(tally):
        reason = seen.reason
        if verdict not in (None, reason.verdict):
            table.add_section()
        verdict = reason.verdict
        lines = ", ".join(map(str, seen.lines)) + (" …" if seen.requests > len(seen.lines) else "")
        said = Text(f"{reason.why} {reason.advice}".strip())
        table.add_row(
            Text(reason.verdict.word, COLOURS[reason.verdict]),
            Text(reason.parameter),
            f"{seen.requests:,}",
            lines,
            said,
        )
    return table
