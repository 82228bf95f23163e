"""A soak: a steady mixed load for minutes or hours, and whether the gateway grows. `python -m loadtests.soak`.

Prints a line every ten seconds; at the end a verdict by slope (least squares over the second half, as the first is
warming up), a result in `results/`, and exit status 1 if memory or handles grow, or an answer came that must not.
With `--url` it visits a gateway that runs already; with `--pid` it looks at that process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.soak_load import EXPECTED, FINE, MIX, Load
from loadtests.soak_stage import handles, in_flight, rss, stage

RESULTS = Path(__file__).parent / "results"
EVERY = 10.0  # seconds
VISITORS = 40
SEED = 6
# What the second half of a run may seem to grow by, in an hour; short runs are given `NOISE` as well.
MAX_MIB = 6.0
MAX_HANDLES = 20.0
NOISE_MIB = 2.0
NOISE_HANDLES = 30.0
HOUR = 3600.0


@dataclass(frozen=True)
class Sample:
    """A line of the soak. Times are in seconds, memory is in MiB."""

    at: float
    requests: int
    words: dict[str, int]
    in_flight: int
    rss: float
    handles: int
    p50: float
    p99: float

    def line(self) -> str:
        """Return it for people."""
        errors = " ".join(f"{word}:{count}" for word, count in sorted(self.words.items()) if word not in FINE)
        times = f"p50 {self.p50 * 1000:6.1f} ms  p99 {self.p99 * 1000:6.1f} ms"
        held = f"{self.rss:7.1f} MiB  {self.handles:4d} handles  {self.in_flight:3d} in flight"
        return f"{self.at:7.0f} s  {self.requests:6d} requests  {held}  {times}  {errors or '-'}"


@dataclass(frozen=True)
class Verdict:
    """What became of it. Slopes are per hour, growths over the second half."""

    rss_slope: float
    rss_grown: float
    handles_slope: float
    handles_grown: float
    unexpected: dict[str, int]

    @property
    def good(self) -> bool:
        """Whether nothing grows and nothing came that must not."""
        return not self.unexpected and not self.grows

    @property
    def grows(self) -> bool:
        """Whether memory or handles grow by more than chance."""
        memory = self.rss_slope > MAX_MIB and self.rss_grown > NOISE_MIB
        return memory or (self.handles_slope > MAX_HANDLES and self.handles_grown > NOISE_HANDLES)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line of least squares, 0 if there is none."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / max(n, 1), sum(y for _, y in points) / max(n, 1)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def judged(samples: Sequence[Sample], total: dict[str, int]) -> Verdict:
    """Return the verdict on a run."""
    half = samples[len(samples) // 2 :]
    length = half[-1].at - half[0].at
    memory = slope([(one.at, one.rss) for one in half])
    files = slope([(one.at, one.handles) for one in half])
    unexpected = {word: count for word, count in total.items() if word not in FINE | EXPECTED}
    return Verdict(memory * HOUR, memory * length, files * HOUR, files * length, unexpected)


async def soak(url: str, pid: int, seconds: float) -> tuple[list[Sample], dict[str, int]]:
    """Visit for so long, and print a line now and then; return the lines, and how all visits ended."""
    load = Load(url, VISITORS, SEED)
    running = asyncio.ensure_future(load.run())
    began = time.monotonic()
    samples: list[Sample] = []
    try:
        while (at := time.monotonic() - began) < seconds and not running.done():
            await asyncio.sleep(min(EVERY, seconds - at))
            samples.append(await asyncio.to_thread(sampled, load, url, pid, time.monotonic() - began))
            print(samples[-1].line(), flush=True)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    return samples, dict(load.total)


def sampled(load: Load, url: str, pid: int, at: float) -> Sample:
    """Look at the load and the gateway."""
    seen = load.take()
    memory, files = (rss(pid), handles(pid)) if pid else (0.0, 0)
    words = dict(seen.words)
    return Sample(
        at, seen.words.total(), words, in_flight(url), memory, files, seen.percentile(0.5), seen.percentile(0.99)
    )


def written(found: dict[str, Any]) -> str:
    """Return a result as JSON, with each sample on a line of its own."""
    samples = ",\n".join(json.dumps(sample) for sample in found["samples"])
    text = json.dumps(found | {"samples": []}, indent=1)
    return text.replace('"samples": []', f'"samples": [\n{samples}\n]') + "\n"


def result(samples: Sequence[Sample], total: dict[str, int], verdict: Verdict) -> dict[str, Any]:
    """Return all that is to be kept of a run."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "method": f"{VISITORS} visitors, {mix()}; simulators with a share of faults, on the same machine",
        "minutes": round(samples[-1].at / 60, 1),
        "requests": sum(total.values()),
        "ends": total,
        "verdict": asdict(verdict) | {"good": verdict.good},
        "samples": [asdict(sample) for sample in samples],
    }


def mix() -> str:
    """Return the mix of visits in words."""
    return ", ".join(f"{share} % {visit.__name__}" for visit, share in MIX.items())


def commit() -> str:
    """Return the commit that is tested, with a mark if files differ from it."""
    said = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def main() -> int:
    """Soak, keep the result, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--url", default="", help="a gateway that runs already, with one model or a default one")
    parser.add_argument("--pid", type=int, default=0, help="its process, to be looked at")
    options = parser.parse_args()
    place = nullcontext((options.url, options.pid)) if options.url else stage()
    with place as (url, pid):
        samples, total = asyncio.run(soak(url, pid, options.minutes * 60))
    verdict = judged(samples, total)
    kept = RESULTS / f"{datetime.now(UTC).date().isoformat()}-soak.json"
    kept.write_text(written(result(samples, total, verdict)))
    print(f"\n{sum(total.values())} visits: {total}")
    print(f"memory {verdict.rss_slope:+.1f} MiB/h ({verdict.rss_grown:+.2f} MiB in the second half), ", end="")
    print(f"handles {verdict.handles_slope:+.0f}/h; unexpected: {verdict.unexpected or 'nothing'}")
    print(f"{'good' if verdict.good else 'NOT GOOD'}; kept in {kept}")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
