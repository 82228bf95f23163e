"""The load test of latency counts from when a request was due, and asks all servers for the same."""

import asyncio
import json
import sys
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from loadtests import latency
from loadtests.open_loop import due_times, percentile
from tests.support.harness import ANSWER, STREAM, Asked, engine, says, streamed, whole


def test_requests_are_due_at_random_and_at_the_rate() -> None:
    times = due_times(100.0, 50.0, Random(1))
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 50.0
    assert len(times) == pytest.approx(5000, rel=0.05)
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.1)  # as an exponential distribution has it


@pytest.mark.parametrize(
    ("values", "point", "found"),
    [([5.0], 50, 5.0), ([3.0, 1.0, 2.0], 50, 2.0), ([float(n) for n in range(100)], 99, 99.0), ([1.0, 2.0], 0, 1.0)],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], point: float, found: float) -> None:
    assert percentile(values, point) == found


async def measured(tmp_path: Path, *more: str, **servers: str) -> dict[str, Any]:
    """Run the program; return what it wrote."""
    out = tmp_path / "latency.json"
    given = [f"{name}={url}" for name, url in servers.items()]
    command = ["-m", "loadtests.latency", *given, "--rate", "40", "--seconds", "1", "--blocks", "1", "--out", str(out)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, *more)
    assert await process.wait() == 0
    result: dict[str, Any] = json.loads(out.read_text())
    return result["servers"]  # type: ignore[no-any-return]


@pytest.mark.process
async def test_two_servers_are_compared_and_failures_told(tmp_path: Path) -> None:
    async def slow(_: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(whole(ANSWER))

    async with engine(slow) as good, engine(says(whole({}, "503 Service Unavailable"))) as bad:
        result = await measured(tmp_path, good=good.url, bad=bad.url)
    assert result["good"]["failed"] == {}
    assert result["good"]["total_ms"]["p50"] >= 50
    assert result["bad"]["requests"] == 0
    assert set(result["bad"]["failed"]) == {"503"}


@pytest.mark.process
async def test_a_streams_first_event_is_told_and_repeated_prompts_repeat(tmp_path: Path) -> None:
    async with engine(says(streamed(*STREAM))) as behind:
        result = await measured(tmp_path, "--stream", "--zipf", "1.5", "--prompts", "3", one=behind.url)
        prompts = {asked.json["messages"][0]["content"] for asked in behind.asked}
    assert 0 < result["one"]["first_ms"]["p50"] <= result["one"]["total_ms"]["p50"]
    assert 1 <= len(prompts) <= 3


def test_the_options_are_described(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["latency", "--help"])
    with pytest.raises(SystemExit):
        latency.main()
    assert "Poisson" in capsys.readouterr().out
