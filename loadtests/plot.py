"""Plots of what the load tests wrote: `python -m loadtests.plot FILE… --out DIR` draws an SVG for each result in them.

A file is what `--out` of throughput, prefix, quality or peers wrote, or one of `results/`, which holds several: results
that repeat a measurement (`throughput-1`, `throughput-2`) are drawn as one, by their mean. Needs matplotlib.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Results = list[dict[str, Any]]


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def draw_throughput(axes: Axes, results: Results) -> None:
    """Draw tokens per second by how many are in flight, a line a server."""
    points: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for name, levels in result["servers"].items():
            for count, told in levels.items():
                points[name][int(count)].append(told["tokens_per_second"])
    for name, levels in points.items():
        axes.plot(list(levels), [mean(rates) for rates in levels.values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="requests in flight", ylabel="tokens per second")
    axes.set_xticks(list(next(iter(points.values()))), labels=[str(count) for count in next(iter(points.values()))])


def draw_prefix(axes: Axes, results: Results) -> None:
    """Draw the time to the first token by the length of the head."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for cell in results[0]["cells"]:
        lines[f"{cell['server']}, {cell['head']} head"].append((cell["words"], cell["first_ms"]["p50"]))
    for name, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set(xlabel="words of the head", ylabel="first token, p50, ms", ylim=(0, None))


def draw_quality(axes: Axes, results: Results) -> None:
    """Draw first differences per 1,000 tokens, a bar a server."""
    pairs = results[0]["pairs"]
    axes.bar(list(pairs), [pair["per_1000_tokens"] for pair in pairs.values()], label="against the reference")
    axes.set(ylabel="first differences per 1,000 tokens")


def draw_peers(axes: Axes, results: Results) -> None:
    """Draw the CPU of a request, a bar a peer."""
    peers = results[0]["peers"]
    axes.bar(list(peers), [mean(peer["us_per_request"]) for peer in peers.values()], label="whole answers")
    axes.set(yscale="log", ylabel="CPU per request, µs")


# What a result holds by which it is known, and who draws it.
KINDS: dict[str, Callable[[Axes, Results], None]] = {
    "saturated_at": draw_throughput,
    "cells": draw_prefix,
    "pairs": draw_quality,
    "peers": draw_peers,
}


def results_in(name: str, found: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Find results in a file: the name of each, its kind, and itself."""
    if not isinstance(found, dict):
        return
    for kind in KINDS:
        if kind in found:
            yield name, kind, found
            return
    for inner, value in found.items():
        yield from results_in(inner, value)


def draw(file: Path, out: Path) -> list[Path]:
    """Draw all results of a file; return the pictures' paths."""
    groups: dict[tuple[str, str], Results] = defaultdict(list)
    for name, kind, result in results_in(file.stem, json.loads(file.read_text())):
        groups[name if name == file.stem else name.split("-")[0], kind].append(result)
    written = []
    for (name, kind), results in groups.items():
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        KINDS[kind](axes, results)
        axes.grid(alpha=0.3)
        axes.legend()
        written.append(out / (f"{file.stem}.svg" if name == file.stem else f"{file.stem}-{name}.svg"))
        with mpl.rc_context({"svg.hashsalt": "pointsman", "svg.fonttype": "none"}):  # the same figures, the same file
            figure.savefig(written[-1], metadata={"Date": None})
    return written


def main() -> int:
    """Draw what the command line names; return 1 if a file has no result that can be drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(), help="a folder for the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    missing = 0
    for file in options.files:
        written = draw(file, options.out)
        print(
            "\n".join(map(str, written)) or f"plot: nothing to draw in {file}",
            file=sys.stdout if written else sys.stderr,
        )
        missing += not written
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
