"""The locustfile tells first token, time per token and the whole of a stream as metrics of Locust's own."""

import asyncio
import csv
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.delayed import delayed
from tests.support.harness import Asked, engine

# Found, not imported: Locust patches the sockets and threads of the process that imports it.
pytestmark = pytest.mark.skipif(find_spec("locust") is None, reason="pip install .[loadtests]")
LOCUSTFILE = Path(__file__).parents[2] / "loadtests" / "locustfile.py"


@pytest.mark.process
async def test_a_streams_times_are_told_apart(tmp_path: Path) -> None:
    """First token after 60 ms, four more 20 ms apart: the whole after 140 ms."""
    enough, answer = asyncio.Event(), delayed(0.06, 0.02)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await answer(asked, writer)
        if len(behind.asked) > 5:
            enough.set()

    async with engine(script) as behind:
        command = ["-m", "locust", "-f", str(LOCUSTFILE), "--host", behind.url, "--headless", "--users", "1"]
        ends = ["--csv", str(tmp_path / "locust"), "--only-summary", "--loglevel", "ERROR"]
        running = await asyncio.create_subprocess_exec(
            sys.executable, *command, *ends, env={**os.environ, "LOAD_MODEL": "tiny"}
        )
        await asyncio.wait_for(enough.wait(), 150)  # a busy machine takes long to import Locust
        running.terminate()
        assert await running.wait() == 0
    with (tmp_path / "locust_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    least = {name: float(rows[name]["Min Response Time"]) for name in ("first token", "per token", "whole answer")}
    assert least["first token"] >= 59
    assert least["per token"] >= 15
    assert least["whole answer"] >= 138
    assert {row["Failure Count"] for row in rows.values()} == {"0"}
