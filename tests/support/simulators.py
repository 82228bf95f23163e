"""Simulators on real ports, and a gateway over one of them, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from backends.sim import SIMULATORS, Options
from tests.support.harness import MODEL, Gateway, Quiet, configured, gateway, until


@contextlib.asynccontextmanager
async def simulated(kind: str, **more: Any) -> AsyncIterator[str]:
    """Run a simulator on a real port; give its URL."""
    given: dict[str, Any] = {"model": MODEL, "ttft_ms": 0.0, "itl_ms": 0.0, "max_model_len": 1024}
    options = Options(**given | more)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        app: Any = SIMULATORS[kind](options)
        server = Quiet(uvicorn.Config(app, log_level="critical", lifespan="off", ws="none"))
        task = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            await until(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True
            await task


@contextlib.asynccontextmanager
async def started(kind: str, **more: Any) -> AsyncIterator[Gateway]:
    """Run the gateway over one simulator; `more` are the simulator's options."""
    async with (
        simulated(kind, **more) as url,
        gateway(configured(url) if kind == "vllm" else configured(tgi=url)) as front,
    ):
        yield front
