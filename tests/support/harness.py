"""The gateway over real sockets: a scripted engine behind it, a client in front, all in the test's own event loop.

A scripted engine is no simulator: it says on the wire exactly what a test wrote down, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any

import httpx
import msgspec
import uvicorn

from gateway import config, services
from gateway.app import create_app
from gateway.server import run as server
from gateway.upstream.refresh import CatalogRefresh

PATIENCE = 30.0  # seconds, after which a test gives a condition up: how long it takes is nobody's promise
TURNS = 50
CHAT_PATH = "/v1/chat/completions"
MODEL = "tiny"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}
TEXT = {"model": MODEL, "prompt": "hi", "max_tokens": 4, "temperature": 0}
FACTS = {
    "/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 1024}]},
    "/info": {"model_id": MODEL, "max_total_tokens": 1024},
    "/health": b"",
    "/version": {"version": "0.32.0"},
    "/metrics": b"",
}


@dataclass
class Asked:
    """A request that the engine got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]
Asking = asyncio.Task[httpx.Response]


@dataclass
class Engine:
    """A scripted engine. `asked` holds what it was asked; `left` counts connections closed on it in mid-answer."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    left: int = 0
    url: str = ""
    listening: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    hung: set[str] = field(default_factory=set)  # paths that are never answered
    facts: dict[str, Any] = field(default_factory=lambda: dict(FACTS))  # what a GET is answered; else by the script
    gets: Counter[str] = field(default_factory=Counter)  # how often each path was asked for by a GET
    ailing: set[str] = field(default_factory=set)  # paths that are answered with a 503

    def stop(self) -> None:
        """Be gone: no new connections, and the old ones closed."""
        assert self.listening is not None
        self.listening.close()
        for writer in self.writers:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = await read_request(reader)
                self.gets[asked.path] += asked.method == "GET"
                if asked.path in self.hung:
                    await asyncio.Event().wait()
                if asked.path in self.ailing:
                    writer.write(whole(b"", "503 Service Unavailable"))
                    continue
                if asked.path in self.facts and asked.method == "GET":
                    writer.write(whole(self.facts[asked.path]))
                    continue
                self.asked.append(asked)
                await self._play(asked, reader, writer)
        writer.close()

    async def _play(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        playing = asyncio.ensure_future(self.script(asked, writer))
        leaving = asyncio.ensure_future(reader.read(1))  # the gateway asks nothing before it has its answer
        await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            try:
                playing.result()
            except (ConnectionResetError, BrokenPipeError):
                self.left += 1
                raise
            return
        self.left += 1
        playing.cancel()
        await asyncio.gather(playing, return_exceptions=True)
        raise ConnectionError


async def read_request(reader: asyncio.StreamReader) -> Asked:
    """Read one HTTP/1.1 request with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


def whole(value: Any, status: str = "200 OK", kind: str = "application/json", headers: str = "") -> bytes:
    """Write a whole answer; a value that is not bytes is written as JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def head(kind: str = "text/event-stream", status: str = "200 OK") -> bytes:
    """Write the head of a chunked answer."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()


def piece(data: bytes) -> bytes:
    """Write one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"


def says(data: bytes) -> Script:
    """Return a script that writes these bytes."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return script


def cuts(data: bytes) -> Script:
    """Return a script that writes these bytes and closes the connection."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.close()
        raise ConnectionError

    return script


def hangs(data: bytes = b"") -> Script:
    """Return a script that writes these bytes and then nothing more."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.Event().wait()

    return script


def when(holds: Callable[[], Any], data: bytes) -> Script:
    """Return a script that writes these bytes once a condition holds."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await until(holds)
        writer.write(data)
        await writer.drain()

    return script


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """Write an event of a vLLM chat stream, with the nulls that vLLM sends."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
    value = {
        "id": "chatcmpl-engine",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "own",
        "choices": [choice],
    }
    return b"data: " + json.dumps(value | more).encode() + b"\n\n"


USAGE = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}
STREAM = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Grüße"}),
    chunk({"content": " dir"}, "stop", system_fingerprint="vllm-0.32.0-x"),
    b"data: "
    + json.dumps({"id": "x", "object": "o", "created": 1, "model": "m", "choices": [], "usage": USAGE}).encode()
    + b"\n\n",
    b"data: [DONE]\n\n",
]
ANSWER = {
    "id": "chatcmpl-engine",
    "object": "chat.completion",
    "created": 1,
    "model": "own",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Grüße dir", "refusal": None, "annotations": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ],
    "service_tier": None,
    "system_fingerprint": "vllm-0.32.0-x",
    "usage": USAGE,
}


def streamed(*pieces: bytes) -> bytes:
    """Write a whole chunked event stream."""
    return head() + b"".join(piece(one) for one in pieces) + END


class Quiet(uvicorn.Server):
    """A server that leaves the process's signals alone, and ends as soon as it is told to."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the date
        while not self.should_exit:  # noqa: ASYNC110 - it is a flag of uvicorn's
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, without the tenth of a second that it waits, and waits again, before it looks."""
        for one in (*self.servers, *(sockets or ())):
            one.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await until(lambda: self.force_exit or not (self.server_state.connections or self.server_state.tasks))
        if not self.force_exit:
            await asyncio.gather(*(one.wait_closed() for one in self.servers))
            await self.lifespan.shutdown()


@contextlib.asynccontextmanager
async def engine(script: Script, *models: str) -> AsyncIterator[Engine]:
    """Run a scripted engine on a real port, which serves these models, or the usual one."""
    made = Engine(script)
    if models:
        made.facts = FACTS | {"/v1/models": {"data": [{"id": name, "max_model_len": 1024} for name in models]}}
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=2**25, backlog=4096)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    made.listening = listening
    try:
        yield made
    finally:
        listening.close()


@dataclass
class Gateway:
    """A running gateway, and a client of it."""

    client: httpx.AsyncClient
    port: int
    services: services.Services

    async def post(self, body: Any, path: str = CHAT_PATH, **headers: str) -> httpx.Response:
        """Send a JSON request and read the whole answer."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, json=body, headers=names)


@contextlib.asynccontextmanager
async def gateway(
    given: config.Config, ready: bool = True, clock: Callable[[], float] = monotonic
) -> AsyncIterator[Gateway]:
    """Run the gateway on a real port; if `ready`, wait until it has heard all engines.

    With a `Clock` of the test's, time-outs and keep-alives come when the test says so; the sweep looks for them every
    quarter of `keep_alive`, at least twice a second. Engines are asked for one unknown model right after the other.
    """
    # The protocol is named because asyncio, unlike uvloop, switches Nagle's delay off only where it is.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        made = services.make(given, Random(1), clock, lambda: 1_700_000_000.0)
        made.catalog_refresh = CatalogRefresh(made.catalog, made.upstream, clock, no_pause)
        running = Quiet(server.settings(given, create_app(made)))
        task = asyncio.ensure_future(running.serve(sockets=[listening]))
        try:
            url = f"http://127.0.0.1:{port}"
            # Without TLS there is nothing to verify, and to make ready for it takes 30 ms.
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False, verify=False) as client:
                await until(lambda: running.started and (not ready or all(one.up for one in made.catalog.endpoints)))
                yield Gateway(client, port, made)
        finally:
            running.should_exit = True
            await task


async def no_pause(_: float) -> None:
    """Wait for nothing, instead of so many seconds."""


def configured(
    vllm: str = "", tgi: str = "", timeouts: config.TimeoutsConfig | None = None, **more: Any
) -> config.Config:
    """Return the configuration of engines by URL, all behind one model."""
    urls = {name: [url] for name, url in (("vllm", vllm), ("tgi", tgi)) if url}
    given = config.Config(models=config.from_urls(urls, MODEL, {}), timeouts=timeouts or config.TimeoutsConfig())
    return checked(msgspec.structs.replace(given, **more))


def checked(given: config.Config) -> config.Config:
    """Return a configuration that has to be without fault."""
    faults: list[str] = []
    made = config.check(given, {}, faults)
    assert faults == []
    return made


def of(behind: Engine, kind: str, **more: Any) -> config.Config:
    """Return the configuration of one engine."""
    return configured(behind.url, **more) if kind == "vllm" else configured(tgi=behind.url, **more)


@contextlib.asynccontextmanager
async def over(
    script: Script, kind: str = "vllm", clock: Callable[[], float] = monotonic, **more: Any
) -> AsyncIterator[tuple[Gateway, Engine]]:
    """Run the gateway over one scripted engine."""
    async with engine(script) as behind, gateway(of(behind, kind, **more), clock=clock) as front:
        yield front, behind


def events(body: bytes) -> list[Any]:
    """Return the events of a stream: JSON values, `[DONE]` and comments as text."""
    blocks = [block.decode() for block in body.split(b"\n\n") if block]
    return [json.loads(block[6:]) if block.startswith("data: {") else block for block in blocks]


@contextlib.asynccontextmanager
async def both(vllm: Script, tgi: Script) -> AsyncIterator[tuple[Gateway, Engine]]:
    """Run the gateway over a vLLM and a TGI; give the gateway and the TGI."""
    async with engine(vllm) as one, engine(tgi) as two, gateway(configured(one.url, two.url)) as front:
        yield front, two


async def until(holds: Callable[[], Any]) -> None:
    """Wait until a condition holds; fail if it has not after `PATIENCE`, which no busy machine needs."""
    ends = monotonic() + PATIENCE
    while not holds():
        assert monotonic() < ends, f"it did not come to that within {PATIENCE:g} s"
        await asyncio.sleep(0.01)


async def settled(value: Callable[[], object] = lambda: None) -> None:
    """Wait until all that is under way has arrived, and a value stays what it is.

    Gateway, engines and clients share the test's event loop: what has not happened in so many turns, never will by
    itself.
    """
    same, last = 0, value()
    while same < TURNS:
        await asyncio.sleep(0.001)
        now = value()
        same, last = (same + 1, now) if now == last else (0, now)


@contextlib.asynccontextmanager
async def asking(front: Gateway, body: Any, path: str = CHAT_PATH, **headers: str) -> AsyncIterator[Asking]:
    """Send a request beside the test; a client that has no answer at the end leaves."""
    task = asyncio.create_task(front.post(body, path, **headers))
    try:
        yield task
    finally:
        await leave(task)


async def swept(front: Gateway) -> None:
    """Have the gateway look for what has taken too long, or been silent, by now; wait for what comes of it."""
    front.services.sweep.look(front.services.clock())
    await settled()


def begun(front: Gateway) -> int:
    """Return how many of the open requests have begun to be answered."""
    return sum(context.status == 200 for context in front.services.sweep.open)


async def leave(task: asyncio.Task[Any]) -> None:
    """Have a client leave: it closes its connection, unless it has its answer."""
    task.cancel()
    await asyncio.wait([task])
