"""Two simulators compared in virtual time: what differs is what was planted, to the microsecond."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import uvicorn

from backends.sim import Fault, Options
from backends.sim.tgi import Tgi
from backends.sim.vllm import Vllm
from loadtests.compare_front import SIDES, EngineUrl, fronted
from loadtests.compare_judge import Findings, Rules, judged
from loadtests.compare_run import Measured, measure
from loadtests.compare_workload import Prompt, rounds
from tests.support.harness import MODEL, Quiet, until
from tests.support.virtual_time import run_in_virtual_time

ENGINES = {"vllm": Vllm, "tgi": Tgi}
SPREAD = 0.1  # of the logarithms of the simulators' times


@dataclass
class Planted:
    """A simulator: its kind, its times in milliseconds, and what goes wrong."""

    kind: str = "vllm"
    ttft_ms: float = 100.0
    itl_ms: float = 10.0
    faults: tuple[Fault, ...] = ()
    seed: int = 0


class Waiting(Quiet):
    """A server that waits to be ended, and does not look at a clock meanwhile."""

    ended: asyncio.Event

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ended.wait()


@contextlib.asynccontextmanager
async def simulated(planted: Planted, path: Path) -> AsyncIterator[str]:
    """Run it behind a Unix socket, which passes everything on at once, as a network does not."""
    chance = Random(planted.seed + 1)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds * chance.lognormvariate(0.0, SPREAD))

    options = Options(
        model=MODEL,
        ttft_ms=planted.ttft_ms,
        itl_ms=planted.itl_ms,
        answer_tokens=(3, 9),
        faults=planted.faults,
        seed=planted.seed,
    )
    app: Any = ENGINES[planted.kind](options, sleep=sleep)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        server = Waiting(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        server.ended = asyncio.Event()
        task = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            await until(lambda: server.started)
            yield f"unix:{path}"
        finally:
            server.should_exit = server.force_exit = True
            server.ended.set()
            await task


def compared(
    place: Path, control: Planted, treatment: Planted, prompts: Iterator[Prompt], count: int
) -> tuple[Measured, Findings]:
    """Compare two simulators over about so many prompts, in 40 rounds; `place` is a directory for their sockets."""
    measured = Measured()
    plan = rounds(prompts, count / 40, 120.0, 1.0, SIDES, Random(5))

    async def work() -> None:
        async with (
            simulated(control, place / "a") as one,
            simulated(treatment, place / "b") as other,
            fronted([EngineUrl(control.kind, one), EngineUrl(treatment.kind, other)], {}, 10.0) as front,
        ):
            measured.stopped = await measure(front, plan, True, measured, lambda _: None)

    run_in_virtual_time(work())
    return measured, judged(measured, Rules(planned=len(plan)), Random(7))
