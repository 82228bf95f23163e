"""The gateway as a process of its own, as a user runs it, over a file of its own; and scripts that last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.harness import ANSWER, CHAT, END, STREAM, Asked, Script, head, piece, streamed, whole
from tests.support.ports import free_port

PATIENCE = 60.0  # seconds, after which a test gives up: a Python that starts takes 1 s, and 10 on a busy machine


@dataclass
class Served:
    """A running `pointsman serve`, and a client of it."""

    process: asyncio.subprocess.Process
    client: httpx.AsyncClient
    port: int
    stderr: Path

    @property
    def said(self) -> str:
        """What it has said on stderr."""
        return self.stderr.read_text()

    async def chat(self, model: str, **more: Any) -> httpx.Response:
        """Ask for a chat completion, on a connection of its own."""
        body = CHAT | {"model": model} | more
        return await self.client.post("/v1/chat/completions", json=body, headers={"connection": "close"})

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait for the end; return the exit status."""
        return await asyncio.wait_for(self.process.wait(), within)


@contextlib.asynccontextmanager
async def served(
    file: Path, *words: str, ready: bool = True, program: tuple[str, ...] = ("-m", "gateway")
) -> AsyncIterator[Served]:
    """Run `pointsman serve`, or another program in its place, over a file; what it leaves is killed at the end."""
    port = free_port()
    stderr = file.with_suffix(".stderr")
    command = [sys.executable, *program, "serve", "--config", str(file), "--port", str(port), *words]
    with stderr.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(*command, stderr=sink, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False, timeout=PATIENCE) as client:
            running = Served(process, client, port, stderr)
            if ready:
                await become(lambda: status(running, "/readyz"), 200)
            yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def status(running: Served, path: str) -> int:
    """Return the status of a path, 0 if there is no connection."""
    try:
        return (await running.client.get(path, headers={"connection": "close"}, timeout=2)).status_code
    except httpx.TransportError:
        return 0


async def become(ask: Callable[[], Any], wanted: Any, within: float = PATIENCE) -> None:
    """Ask again and again until the answer is the wanted one."""
    ends = time.monotonic() + within
    while (found := await ask()) != wanted:
        assert time.monotonic() < ends, f"it is still {found!r} and not {wanted!r} after {within:g} s"
        await asyncio.sleep(0.05)


async def eventually(holds: Callable[[], Any], within: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    ends = time.monotonic() + within
    while not holds():
        assert time.monotonic() < ends, f"it did not come to that within {within:g} s"
        await asyncio.sleep(0.05)


# The gateway over a uvicorn that is not as expected.
OTHER_UVICORN = """
from gateway.__main__ import main
from gateway.server import uvicorn_internals

uvicorn_internals.server_fault = uvicorn_internals.supervisor_fault = lambda found: "it is another one"
main()
"""


def written(models: dict[str, dict[str, str]], before: str = "") -> str:
    """Write a configuration: by model, the name of each deployment and its URL, which may have more lines behind it."""
    text = [before]
    for model, deployments in models.items():
        text.append(f'[[models]]\nname = "{model}"')
        text += [
            f'[[models.deployments]]\nname = "{name}"\nengine = "vllm"\nurl = "{url}"{more and chr(10) + more}'
            for name, (url, _, more) in ((name, given.partition("\n")) for name, given in deployments.items())
        ]
    return "\n".join(text) + "\n"


def replace(file: Path, text: str) -> None:
    """Put another text in a file's place, all at once."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def answers() -> Script:
    """Return a script that answers, streamed or whole, as it is asked."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(streamed(*STREAM) if asked.json.get("stream") else whole(ANSWER))
        await writer.drain()

    return script


def held(event: asyncio.Event, begun: bool = True) -> Script:
    """Return a script whose streams wait for an event, after their first chunk or, if not `begun`, before it."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not asked.json.get("stream"):
            await answers()(asked, writer)
            return
        if begun:
            writer.write(head() + piece(STREAM[0]))
        await event.wait()
        rest = b"".join(piece(one) for one in STREAM[1:]) + END
        writer.write(rest if begun else head() + piece(STREAM[0]) + rest)
        await writer.drain()

    return script


@contextlib.asynccontextmanager
async def streaming(running: Served, model: str) -> AsyncIterator[asyncio.Task[str]]:
    """Ask for a stream and give it, with a first chunk read, as a task that reads it to its end."""
    body = CHAT | {"model": model, "stream": True}
    async with running.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        chunks = response.aiter_text()
        first = await anext(chunks)

        async def read() -> str:
            return first + "".join([chunk async for chunk in chunks])

        reading = asyncio.ensure_future(read())
        try:
            yield reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


def workers(front: Served) -> set[int]:
    """Return the workers' process ids; another child of the supervisor's is Python's own resource tracker."""
    pid = front.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


def run(*words: str, timeout: float = 60, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "gateway", *words]
    env = {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=env)
