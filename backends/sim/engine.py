"""What both simulators do: draw a fault, count permits, pace tokens, notice the client leave. The rest is dialect."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Any, ClassVar

import msgspec

from backends.sim.faults import Broken, Fault, draw
from backends.sim.http import JSON, App, Receive, Reply, Request, Scope, Send, lifespan, read, respond, until_gone
from backends.sim.metrics import Metrics
from backends.sim.text import Step

Sleep = Callable[[float], Awaitable[object]]
Round = list[tuple[int, Step]]
_HTML = b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a simulator is launched: what an engine's flags say, and how fast and how badly it works."""

    model: str = "sim-model"
    aliases: tuple[str, ...] = ()  # vllm: further served names
    max_model_len: int = 8192
    ttft_ms: float = 30.0
    itl_ms: float = 5.0
    answer_tokens: tuple[int, int] = (24, 160)  # an answer ends by itself somewhere between
    api_key: str = ""
    faults: tuple[Fault, ...] = ()
    seed: int = 0  # of faults with a share, and of requests that sample without a seed
    max_concurrent: int = 128  # sequences in flight; tgi: its permits, vllm: its queue limit; 0 is no limit
    tools: bool = True  # vllm: --enable-auto-tool-choice --tool-call-parser hermes
    calls: bool = False  # with tool_choice auto, call the first tool even if the last message names none
    request_id_headers: bool = False  # vllm
    prompt_tokens_details: bool = False  # vllm
    keep_alive_s: float = 0.0  # vllm: --sse-keep-alive-interval; tgi always says `:` after 15 s
    max_top_n: int = 5  # tgi
    max_stops: int = 4  # tgi
    max_batch: int = 4  # tgi: prompts in one completions request


class Overloaded(Exception):
    """No room for another sequence."""


class Job:
    """One request on its way: what it asked, what shall go wrong, what is to be given back when it is over."""

    def __init__(self, request: Request, fault: Fault | None, stack: ExitStack) -> None:
        self.request, self.fault, self.stack = request, fault, stack
        self.started = self.first = self.last = time.monotonic()
        self.prompt_tokens = self.generated = 0
        self.finishes: list[str] = []
        self.state = "new"  # then running, done or broken; one that is left running lost its client
        self.told: Callable[[Any], Reply] | None = None  # how errors are told, where not by a status

    def struck_by(self, kind: str) -> bool:
        """Whether that is what shall go wrong."""
        return self.fault is not None and self.fault.kind == kind


Handler = Callable[[Job], Awaitable[Reply]]


class Engine:
    """A simulator. A subclass has the routes, the shapes and the words of its engine."""

    generating: ClassVar[frozenset[str]]  # paths that generate text: what faults strike
    keep_alive: ClassVar[bytes]  # the comment of a silent stream, said every so many seconds
    keep_alive_s: float
    routes: dict[tuple[str, str], Handler]
    metrics: Metrics

    def __init__(
        self,
        options: Options,
        *,
        other: "Callable[[Options], App] | None" = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`other` is the other engine's class, for answers in the wrong dialect; a test passes its own `sleep`."""
        self.options, self.sleep = options, sleep
        self.rng = Random(options.seed)
        self.running = 0
        self._other = partial(other, msgspec.structs.replace(options, faults=())) if other else None
        self.prepare()

    def prepare(self) -> None:
        """Set up routes and metrics."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            return await lifespan(receive, send)
        request = await read(scope, receive)
        fault = draw(self.options.faults, self.rng) if self._generates(request) else None
        if fault and fault.kind == "wrong-dialect" and self._other:
            return await self._other()(scope, _again(request.body, receive), send)
        return await until_gone(receive, self._serve(request, fault, send))

    async def _serve(self, request: Request, fault: Fault | None, send: Send) -> None:
        with ExitStack() as stack:
            if fault and fault.kind == "html":
                reply = Reply(status=502, headers=(("content-type", "text/html"),), body=_HTML)
            else:
                job = Job(request, fault, stack)
                stack.callback(self.ended, job)
                reply = await self.reply(job)
            await respond(send, reply)

    def _generates(self, request: Request) -> bool:
        return request.method == "POST" and request.path in self.generating

    async def reply(self, job: Job) -> Reply:
        """The answer to a request."""
        raise NotImplementedError

    def unhealthy(self) -> bool:
        """Whether /health shall say so."""
        return any(fault.kind == "unhealthy" for fault in self.options.faults)

    def admit(self, job: Job, sequences: int, prompt_tokens: int) -> None:
        """Take room for that many sequences until the job is over, or raise Overloaded."""
        limit = self.options.max_concurrent
        if (job.fault and job.fault.kind == "overload") or 0 < limit < self.running + sequences:
            raise Overloaded
        self._occupy(sequences, prompt_tokens)
        job.prompt_tokens += prompt_tokens
        job.stack.callback(self._occupy, -sequences, -prompt_tokens)

    def _occupy(self, sequences: int, prompt_tokens: int) -> None:
        self.running += sequences
        self.occupied(sequences, prompt_tokens)

    def occupied(self, sequences: int, prompt_tokens: int) -> None:
        """Set the gauges; called with negative numbers when room is given back."""

    def ended(self, job: Job) -> None:
        """Count a request that is over; `job.state` says how."""

    async def rounds(self, job: Job, choices: Sequence[Iterator[Step]]) -> AsyncIterator[Round]:
        """One round a token: the next step of each choice that goes on. An empty round is a silence to comment on.

        Raises Broken where a fault strikes.
        """
        live = dict(enumerate(choices))
        token = 0
        job.state = "running"
        while live:
            async for silence in self._pause(job, token):
                yield silence
            steps = [(index, next(choice)) for index, choice in live.items()]
            for index, step in steps:
                if step.finish:
                    job.finishes.append(step.finish)
                    del live[index]
            job.generated += len(steps)
            job.last = time.monotonic()
            job.first = job.last if token == 0 else job.first
            job.state = "running" if live else "done"
            yield steps
            token += 1

    async def whole(self, job: Job, choices: Sequence[Iterator[Step]]) -> list[list[Step]]:
        """All steps of each choice, once the last is done."""
        collected: list[list[Step]] = [[] for _ in choices]
        async for steps in self.rounds(job, choices):
            for index, step in steps:
                collected[index].append(step)
        return collected

    async def _pause(self, job: Job, token: int) -> AsyncIterator[Round]:
        """The time before a token, and the fault that comes instead of it."""
        seconds = (self.options.itl_ms if token else self.options.ttft_ms) / 1000
        if (fault := job.fault) is not None:
            if fault.kind == "slow-first" and token == 0:
                seconds = fault.after
            elif fault.kind == "stall" and fault.after == token:
                seconds = float("inf")
            elif fault.kind in ("error", "cut", "garbage", "half-event") and fault.after == token:
                job.state = "broken"
                raise Broken(fault.kind)
        while 0 < self.keep_alive_s < seconds:
            await self.sleep(self.keep_alive_s)
            yield []
            seconds -= self.keep_alive_s
        if seconds == float("inf"):
            await asyncio.Event().wait()
        elif seconds:
            await self.sleep(seconds)

    def broken(self, fault: Broken, failed: Reply) -> Reply:
        """What a whole answer turns into: `failed` is the engine's own way to say that it did."""
        if fault.kind == "error":
            return failed
        if fault.kind == "garbage":
            return Reply(headers=JSON, body=b"this is not JSON")
        return Reply(headers=JSON, body=b'{"id":"","object":"chat.comp', torn=fault.kind == "cut")

    async def guarded(self, events: AsyncIterator[bytes], failed: bytes) -> AsyncIterator[bytes]:
        """The events, and what a fault puts in their place: `failed` is the engine's own way to say so."""
        instead = {"error": failed, "garbage": b"data: this is not JSON\n\n", "half-event": b'data: {"id":"","obj'}
        try:
            async for chunk in events:
                yield chunk
        except Broken as fault:
            if fault.kind == "cut":
                raise
            yield instead[fault.kind]


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives a body again that has been read, then what comes after it."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> dict[str, object]:
        return parts.pop() if parts else dict(await receive())

    return replayed
