"""The gateway as users start it, from outside: its memory and handles by `/proc`, its account by `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.totals import totals
from tests.support.processes import PATIENCE, Served, served, written
from tests.support.raw_client import Answer, connected

MIB = 2**20
HELD = ("pointsman_in_flight", "pointsman_waiting", "pointsman_deployment_in_flight")


@dataclass
class Process:
    """A running gateway; with several workers, all of them and who supervises them."""

    front: Served

    def rss(self) -> int:
        """Return the resident memory of all, in bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(self.front.process.pid))
        return pages * resource.getpagesize()

    def handles(self) -> int:
        """Return how many files and sockets all have open."""
        return sum(handles(pid) for pid in family(self.front.process.pid))

    async def ask(self, body: Any) -> Answer:
        """Ask on a connection of its own."""
        async with connected(self.front.port) as client:
            return await client.ask(body)

    async def account(self) -> dict[str, float]:
        """Return what it says that it holds, and how many requests it has counted and logged."""
        async with connected(self.front.port) as client:
            there = totals((await client.get("/metrics")).body)
        counted = {"counted": there["pointsman_requests_total"], "logged": self.front.said.count('"event":"request"')}
        return counted | {name: there[name] for name in HELD}


def family(pid: int) -> list[int]:
    """Return a process and its children, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def handles(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def assert_settled(process: Process, sent: int) -> None:
    """See that nothing is held any more, and that each of the requests was counted once, and logged once."""
    wanted = {"counted": sent, "logged": sent} | dict.fromkeys(HELD, 0)
    found: dict[str, float] = {}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while found != wanted:
                await asyncio.sleep(0.05)
                found = await process.account()
    assert found == wanted, f"{found}, not {wanted}"


@contextlib.asynccontextmanager
async def process(directory: Path, url: str, *words: str, more: str = "") -> AsyncIterator[Process]:
    """Run a gateway over an engine; when it is told to end, it has to do so with status 0. `more` is TOML."""
    file = directory / "pointsman.toml"
    file.write_text(written({"tiny": {"one": url}}) + more)
    async with served(file, *words) as front:
        yield Process(front)
        front.process.terminate()
        assert await front.ended() == 0, front.said


def allow_handles(wanted: int) -> None:
    """Let this process, and those that it starts, open so many files and sockets, if that may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
