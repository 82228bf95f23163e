"""What the demo prints: a line for each answer, and at the end a table."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from rich.markup import escape
from rich.table import Table

from gateway.cli.demo.ask import DemoAnswer


@dataclass
class DemoTally:
    """What all requests came to, by engine."""

    requests: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, seen: DemoAnswer) -> None:
        """Count one request."""
        self.requests[seen.engine] += 1
        self.tokens[seen.engine] += seen.tokens
        if seen.streamed:
            self.firsts[seen.engine].append(seen.first)


def line(seen: DemoAnswer) -> str:
    """Write what one request came to."""
    colour = "green" if seen.status == 200 else "yellow"
    adapted = f"  adapted: {seen.adapted}" if seen.adapted else ""
    times = f"first {seen.first * 1000:4.0f} ms, all {seen.total * 1000:4.0f} ms, {seen.tokens:3d} tokens"
    what = times if seen.status == 200 else escape(seen.note)
    return f"  {seen.title:<18} [{colour}]{seen.status}[/] -> {seen.engine:<5} {what}{adapted}"


def text(seen: DemoAnswer) -> str:
    """Write what the model said, in a line below; empty if it said nothing."""
    return f"  {'':<18} [dim]{escape(' '.join(seen.text.split()))}[/]" if seen.text else ""


def summary(tally: DemoTally, what: str) -> Table:
    """Return what went where, as a table; `what` says what kind of engines these are."""
    table = Table(title=f"What went where ({what} engines)")
    for column in ("engine", "requests", "tokens", "median TTFT (streamed)"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for engine, requests in sorted(tally.requests.items()):
        firsts = sorted(tally.firsts[engine])
        median = f"{firsts[len(firsts) // 2] * 1000:.0f} ms" if firsts else "-"
        name = "refused by the gateway" if engine == "none" else f"{engine} ({what})"
        table.add_row(name, str(requests), str(tally.tokens[engine]), median)
    return table
