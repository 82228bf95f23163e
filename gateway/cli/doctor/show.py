"""The doctor's report, as a table for people and as JSON for pipelines. Pure.

The JSON document: {"models": [{"model", "engines": [{"name", "engine", "url", "version", "serves", "context",
"trouble", "unanswered": [question]}], "findings": [{"severity", "area", "check", "said": {engine: text},
"gateway"}]}], "counts": {severity: number}, "status": exit status}. Fields may be added; none goes away or changes its
meaning.
"""

from collections import Counter
from typing import Any

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.doctor.examine import Side
from gateway.cli.doctor.judge import Finding, Severity
from gateway.cli.exit_status import ExitStatus

COLOURS = {Severity.OK: "green", Severity.HANDLED: "cyan", Severity.DIFFERS: "yellow", Severity.BROKEN: "bold red"}
WIDTH = 100
CONCLUSIONS = {
    ExitStatus.DONE: "Nothing found that would break a client.",
    ExitStatus.FAILED: "Something would break a client.",
    ExitStatus.UNREACHABLE: "An engine could not be asked.",
}


class Report(Struct):
    """What was found about one model."""

    model: str
    sides: list[Side]
    findings: list[Finding]


def status(reports: list[Report]) -> ExitStatus:
    """Return the exit status: UNREACHABLE an engine did not answer, FAILED something breaks a client, else DONE."""
    if any(side.trouble for report in reports for side in report.sides):
        return ExitStatus.UNREACHABLE
    broken = any(finding.severity is Severity.BROKEN for report in reports for finding in report.findings)
    return ExitStatus.FAILED if broken else ExitStatus.DONE


def document(reports: list[Report]) -> dict[str, Any]:
    """Return the report as this file's opening says."""
    return {
        "models": [
            {
                "model": report.model,
                "engines": [_engine(side) for side in report.sides],
                "findings": [_finding(finding) for finding in report.findings],
            }
            for report in reports
        ],
        "counts": counts(reports),
        "status": status(reports),
    }


def counts(reports: list[Report]) -> dict[str, int]:
    """Return how many findings there are of each severity."""
    found = Counter(finding.severity for report in reports for finding in report.findings)
    return {severity.word: found[severity] for severity in Severity}


def _engine(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "engine": side.engine,
        "url": side.url,
        "version": side.version,
        "serves": [one.name for one in side.served],
        "context": side.served[0].max_model_len if side.served else None,
        "trouble": side.trouble,
        "unanswered": side.unanswered,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.word,
        "area": finding.area,
        "check": finding.check,
        "said": finding.said,
        "gateway": finding.does,
    }


def tables(reports: list[Report]) -> RenderableType:
    """Return the report for people, at most 100 columns wide."""
    parts: list[RenderableType] = []
    for report in reports:
        parts += [Text(f"{side.name}: cannot be asked: {side.trouble}", "bold red") for side in _dead(report)]
        if report.findings:
            parts.append(_table(report))
        parts += [Text(_unanswered(side), "yellow") for side in report.sides if side.unanswered]
    parts.append(_summary(reports))
    return Group(*parts)


def _dead(report: Report) -> list[Side]:
    return [side for side in report.sides if side.trouble]


def _unanswered(side: Side) -> str:
    return f"{side.name}: no answer in time, so nothing is said about: {'; '.join(side.unanswered)}."


def _table(report: Report) -> Table:
    names = " and ".join(f"{side.name} ({side.url})" for side in report.sides)
    title = Text(f"{report.model}: {names}" if report.model else names, "bold")
    table = Table(title=title, width=WIDTH, show_lines=False)
    table.add_column("", width=7)
    table.add_column("what", width=22)
    table.add_column("the engines", ratio=5)
    table.add_column("the gateway", ratio=5)
    area = ""
    for finding in report.findings:
        if finding.area != area:
            table.add_section()
        what = f"{finding.area}: {finding.check}"
        area = finding.area
        severity = Text(finding.severity.word, COLOURS[finding.severity])
        table.add_row(severity, Text(what), Text(_said(finding)), Text(finding.does))
    return table


def _said(finding: Finding) -> str:
    """Write what the engines said: once where all said the same."""
    if len(finding.said) > 1 and len(set(finding.said.values())) == 1:
        return next(iter(finding.said.values()))
    return "\n".join(f"{name}: {text}" for name, text in finding.said.items())


def _summary(reports: list[Report]) -> Text:
    found = counts(reports)
    totals = ", ".join(f"{number} {word}" for word, number in found.items())
    return Text(f"{totals}. {CONCLUSIONS[status(reports)]}")
