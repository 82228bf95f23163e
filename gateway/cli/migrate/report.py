"""The account of every source flag, as a table for people and as JSON for pipelines. Pure.

The JSON document: {"engine": {"name", "version", "checked"}, "launches": [{"name", "form", "place", "image", "rows":
[row], "arguments", "environment"}], "metrics": [row], "notes": [{"place", "text"}], "counts": {fate: number}, "files":
[name], "next": [command], "status": exit status}. A row is {"fate", "source", "place", "target", "why",
"enforced_by"}. Secrets are left out. Fields may be added; none goes away or changes its meaning.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, field
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.exit_status import ExitStatus
from gateway.cli.migrate.fates import Fate, ReportRow
from gateway.cli.migrate.launch import Note
from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.table import CHECKED

WIDTH = 120
COLOURS = {
    Fate.SAME: "green",
    Fate.MAPPED: "green",
    Fate.DEFAULT: "cyan",
    Fate.DROPPED: "dim",
    Fate.LOST: "yellow",
    Fate.BLOCKED: "bold red",
}
ORDER = (Fate.BLOCKED, Fate.LOST, Fate.DEFAULT, Fate.MAPPED, Fate.SAME, Fate.DROPPED)


class Migration(Struct):
    """All that a run has to tell. `version` is vLLM's, to which it was translated."""

    version: tuple[int, ...]
    plans: list[VllmPlan] = field(default_factory=list)
    metrics: list[ReportRow] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[Fate]:
        """How many flags and metrics came to each fate."""
        return Counter(row.fate for row in [*(row for plan in self.plans for row in plan.rows), *self.metrics])

    @property
    def status(self) -> ExitStatus:
        """FAILED where something is blocked."""
        return ExitStatus.FAILED if self.counts[Fate.BLOCKED] else ExitStatus.DONE


def document(migration: Migration) -> dict[str, Any]:
    """Return the account as this file's opening says."""
    return {
        "engine": {"name": "vllm", "version": dotted(migration.version), "checked": dotted(CHECKED)},
        "launches": [_launch(plan) for plan in migration.plans],
        "metrics": [_row(row) for row in migration.metrics],
        "notes": [{"place": str(note.place), "text": note.text} for note in migration.notes],
        "counts": {fate.value: migration.counts[fate] for fate in Fate},
        "files": migration.files,
        "next": migration.next,
        "status": migration.status,
    }


def _launch(plan: VllmPlan) -> dict[str, Any]:
    launch = plan.launch
    return {
        "name": launch.name,
        "form": launch.form,
        "place": str(launch.place),
        "image": launch.image,
        "rows": [_row(row) for row in plan.rows],
        "arguments": plan.arguments,
        "environment": plan.shown_environment,
    }


def _row(row: ReportRow) -> dict[str, str]:
    return {
        "fate": row.fate.value,
        "source": row.source,
        "place": str(row.place),
        "target": row.target,
        "why": row.why,
        "enforced_by": row.enforced_by,
    }


def tables(migration: Migration) -> RenderableType:
    """Return the account for people."""
    parts: list[RenderableType] = []
    for plan in migration.plans:
        title = f"{plan.launch.name} ({plan.launch.place}): TGI to vLLM {dotted(migration.version)}"
        parts.append(_table(title, plan.rows))
    if migration.metrics:
        parts.append(_table("TGI's metrics by the gateway's names", migration.metrics))
    if migration.version != CHECKED:
        said = f"The table was checked against vLLM {dotted(CHECKED)}: for {dotted(migration.version)} use --check."
        parts.append(Text(said, "yellow"))
    parts += [Text(f"{note.place}: {note.text}", "yellow") for note in migration.notes]
    parts.append(Text(_summary(migration), "bold red" if migration.status else ""))
    parts += [Text(f"wrote {name}") for name in migration.files]
    if migration.next:
        parts.append(Text("Next:"))
        parts += [Text(f"  {command}") for command in migration.next]
    return Group(*parts)


def _summary(migration: Migration) -> str:
    counts = migration.counts
    return ", ".join(f"{counts[fate]} {fate.value}" for fate in ORDER if counts[fate]) + "."


def _table(title: str, rows: Sequence[ReportRow]) -> Table:
    table = Table(title=Text(title, "bold"), width=WIDTH)
    table.add_column("", width=12)
    table.add_column("TGI", width=30, overflow="fold")
    table.add_column("vLLM and the gateway", width=30, overflow="fold")
    table.add_column("where, and why", ratio=1)
    for fate in ORDER:
        of_fate = _once(row for row in rows if row.fate is fate)
        for row, places in of_fate:
            target = row.target + (f"\nenforced by {row.enforced_by}" if row.enforced_by else "")
            why = f"{', '.join(places)}: {row.why}" if row.why else ", ".join(places)
            table.add_row(Text(fate.value, COLOURS[fate]), Text(row.source), Text(target.strip()), Text(why))
        if of_fate:
            table.add_section()
    return table


def _once(rows: Iterable[ReportRow]) -> list[tuple[ReportRow, list[str]]]:
    """Return the rows that say the same once, with all of their places: a dashboard names a metric many times."""
    found: dict[tuple[str, str, str], tuple[ReportRow, list[str]]] = {}
    for row in rows:
        _, places = found.setdefault((row.source, row.target, row.why), (row, []))
        if str(row.place) not in places:
            places.append(str(row.place))
    return [(row, places[:6] + (["…"] if len(places) > 6 else [])) for row, places in found.values()]


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))
