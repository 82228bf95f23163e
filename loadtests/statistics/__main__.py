"""Run the simulations and write what they found: `python -m loadtests.statistics [--runs N] [NAME ...]`.

Exit status 1 where a promise is broken, or a simulation is one that the plain method passes, too.
"""

import argparse
import json
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from loadtests.statistics.finding import Finding
from loadtests.statistics.simulations import SIMULATIONS, simulated

RESULTS = Path(__file__).parent.parent / "results"
AT_ONCE = 100  # runs, which is what fits into memory


def main() -> int:
    """Run it; return the exit status."""
    given = _arguments()
    console, began = Console(stderr=True), time.process_time()
    unknown = set(given.names) - SIMULATIONS.keys()
    if unknown:
        console.print(f"No such simulation: {', '.join(sorted(unknown))}. There are: {', '.join(SIMULATIONS)}")
        return 2
    found = _found(given.names or list(SIMULATIONS), given.runs, console)
    result = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "runs": given.runs,
        "cpu_seconds": round(time.process_time() - began),
        "simulations": {name: _said(name, one) for name, one in found.items()},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"written to {given.out}")
    return int(not all(one.kept and one.hard for one in found.values()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.statistics", description="Prove the statistics.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of simulations; all, if none is given")
    parser.add_argument("--runs", type=int, default=1000, help="of each")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-statistics.json")
    given = parser.parse_args()
    if given.runs < 1:
        parser.error("--runs: a number of at least 1 was expected")
    return given


def _found(names: list[str], runs: int, console: Console) -> dict[str, Finding]:
    parts = [min(AT_ONCE, runs - begun) for begun in range(0, runs, AT_ONCE)]
    found: dict[str, Finding] = {}
    with Progress(console=console) as progress:
        task = progress.add_task("simulating", total=len(names) * runs)
        for name in names:
            progress.update(task, description=name)
            for part, some in enumerate(parts):
                one = simulated(name, some, part)
                found[name] = found[name] + one if name in found else one
                progress.advance(task, some)
            console.print(_line(name, found[name]), soft_wrap=True)
    return found


def _line(name: str, found: Finding) -> str:
    verdict = "kept" if found.kept and found.hard else "BROKEN" if not found.kept else "PROVES NOTHING"
    plain = "" if found.plain is None else f", plainly {found.plain}"
    return f"{name}: {verdict}, {found.wrong} of {found.runs} wrong (at most {found.most}){plain}"


def _said(name: str, found: Finding) -> dict[str, Any]:
    return {
        "promise": " ".join((SIMULATIONS[name].__doc__ or "").split()),
        "runs": found.runs,
        "wrong": found.wrong,
        "allowed": found.allowed,
        "most_by_chance": found.most,
        "kept": found.kept,
        "plain_method_wrong": found.plain,
        "figures": {label: round(value, 3) for label, value in found.figures.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
