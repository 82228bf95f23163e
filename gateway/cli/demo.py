"""`pointsman demo`: the gateway over two SIMULATED engines, with traffic one can watch.

Three processes of this same command are started (two simulators, one gateway), asked a round of questions as a
client would, and stopped again. What is shown is which engine answered and how; the text is no model's.
"""

import itertools
import json
import random
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from gateway.cli.exit_status import CommandFailed, ExitStatus

MODEL = "demo-model"
STARTED_WITHIN = 30.0
PAUSE = 0.4
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SUBJECTS = ["continuous batching", "paged attention", "prefix caching", "speculative decoding", "tensor parallelism"]


@dataclass
class DemoQuestion:
    """A request that the demo sends, and what to call it."""

    title: str
    body: dict[str, Any]
    path: str = "/v1/chat/completions"
    pin: str = ""


@dataclass
class DemoAnswer:
    """What one request came to. Times are in seconds."""

    title: str
    status: int
    engine: str
    first: float
    total: float
    tokens: int
    adapted: str
    streamed: bool
    note: str = ""


@dataclass
class DemoTally:
    """What all requests came to, by engine."""

    requests: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, seen: DemoAnswer) -> None:
        """Count one request."""
        self.requests[seen.engine] += 1
        self.tokens[seen.engine] += seen.tokens
        if seen.streamed:
            self.firsts[seen.engine].append(seen.first)


def run(port: int, once: bool) -> None:
    """Run the demo until Ctrl-C, or one round of it. Raises CommandFailed if the gateway does not answer."""
    console = Console()
    console.print("[bold]Pointsman demo.[/] The two engines behind the gateway are [bold]SIMULATED[/]: no model runs.")
    with ExitStack() as stack:
        vllm, tgi, front = (free_port(), free_port(), free_port(port))
        stack.enter_context(process("sim", "vllm", "--port", str(vllm), "--model", MODEL, "--itl-ms", "4"))
        stack.enter_context(process("sim", "tgi", "--port", str(tgi), "--model", MODEL, "--itl-ms", "6"))
        urls = ["--vllm", f"http://127.0.0.1:{vllm}", "--tgi", f"http://127.0.0.1:{tgi}"]
        stack.enter_context(process("serve", *urls, "--port", str(front)))
        base = f"http://127.0.0.1:{front}"
        client = stack.enter_context(httpx.Client(base_url=base, timeout=60, trust_env=False))
        if not wait_ready(client):
            raise CommandFailed(ExitStatus.FAILED, f"the gateway was not ready within {STARTED_WITHIN:g} s")
        console.print(
            f"The gateway is on {base}/v1, model [bold]{MODEL}[/]: point an OpenAI SDK or curl at it.\n", soft_wrap=True
        )
        tally = DemoTally()
        try:
            for number in itertools.count(1):
                play(client, number, console, tally)
                if once:
                    break
        except KeyboardInterrupt:
            console.print()
        except httpx.HTTPError as error:
            raise CommandFailed(ExitStatus.FAILED, f"the gateway stopped answering: {error}") from error
        console.print(summary(tally))
        console.print(
            "Both engines were simulated; against your own: pointsman serve --vllm URL --tgi URL", soft_wrap=True
        )


def play(client: httpx.Client, number: int, console: Console, tally: DemoTally) -> None:
    """Send one round of questions, and show each answer as it comes."""
    for question in questions(random.Random(number)):
        seen = ask(client, question)
        tally.add(seen)
        console.print(line(seen), soft_wrap=True)
        time.sleep(PAUSE)


def questions(chance: random.Random) -> Iterator[DemoQuestion]:
    """Yield a round: what clients commonly send, and one mistake."""

    def chat(subject: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"Explain {subject}."}]
        usage = {"stream_options": {"include_usage": True}} if "stream" in more else {}
        return {"model": MODEL, "messages": messages, "max_tokens": 40, "temperature": 0, **usage, **more}

    subject = chance.choice(SUBJECTS)
    yield DemoQuestion("chat, whole", chat(subject))
    for subject in chance.sample(SUBJECTS, 3):
        yield DemoQuestion("chat, streamed", chat(subject, stream=True))
    yield DemoQuestion("the same to vLLM", chat(subject, stream=True, top_p=1), pin="vllm")
    yield DemoQuestion("the same to TGI", chat(subject, stream=True, top_p=1), pin="tgi")
    yield DemoQuestion("two choices", chat(subject, n=2, temperature=1, seed=7))
    yield DemoQuestion("a tool call", chat(subject, tools=[TOOL], tool_choice="required", max_tokens=200))
    text = {"model": MODEL, "prompt": f"{subject} is", "max_tokens": 20, "temperature": 0}
    yield DemoQuestion("completion", text, "/v1/completions")
    yield DemoQuestion("only vLLM can", chat(subject, min_p=0.1))
    yield DemoQuestion("a mistake", chat(subject, temperature=3))


def ask(client: httpx.Client, question: DemoQuestion) -> DemoAnswer:
    """Send one question, and read its answer to the end."""
    began = time.perf_counter()
    headers = {"x-pointsman-engine": question.pin} if question.pin else {}
    tokens = 0
    first = 0.0
    note = ""
    with client.stream("POST", question.path, json=question.body, headers=headers) as response:
        if question.body.get("stream"):
            for event in response.iter_lines():
                first = first or time.perf_counter() - began
                if event.startswith("data: {"):
                    tokens = (json.loads(event[6:]).get("usage") or {}).get("completion_tokens", tokens)
        else:
            answer = httpx.Response(200, content=response.read()).json()
            first = time.perf_counter() - began
            tokens = answer.get("usage", {}).get("completion_tokens", 0)
            note = answer.get("error", {}).get("message", "")
    total = time.perf_counter() - began
    head = response.headers
    return DemoAnswer(
        title=question.title,
        status=response.status_code,
        engine=head.get("x-pointsman-engine", "none"),
        first=first,
        total=total,
        tokens=tokens,
        adapted=head.get("x-pointsman-adapted", ""),
        streamed=response.status_code == 200 and "stream" in question.body,
        note=note,
    )


def line(seen: DemoAnswer) -> str:
    """Write what one request came to."""
    colour = "green" if seen.status == 200 else "yellow"
    adapted = f"  adapted: {seen.adapted}" if seen.adapted else ""
    times = f"first {seen.first * 1000:4.0f} ms, all {seen.total * 1000:4.0f} ms, {seen.tokens:3d} tokens"
    what = times if seen.status == 200 else seen.note
    return f"  {seen.title:<18} [{colour}]{seen.status}[/] -> {seen.engine:<5} {what}{adapted}"


def summary(tally: DemoTally) -> Table:
    """Return what went where, as a table."""
    table = Table(title="What went where (simulated engines)")
    for column in ("engine", "requests", "tokens", "median TTFT (streamed)"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for engine, requests in sorted(tally.requests.items()):
        firsts = sorted(tally.firsts[engine])
        median = f"{firsts[len(firsts) // 2] * 1000:.0f} ms" if firsts else "-"
        name = "refused by the gateway" if engine == "none" else f"{engine} (simulated)"
        table.add_row(name, str(requests), str(tally.tokens[engine]), median)
    return table


@contextmanager
def process(*words: str) -> Iterator[None]:
    """Run this command with other words, for as long as the context lasts."""
    child = subprocess.Popen(
        [sys.executable, "-m", "gateway", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()


def wait_ready(client: httpx.Client) -> bool:
    """Wait until the gateway has heard both engines."""
    until = time.monotonic() + STARTED_WITHIN
    while time.monotonic() < until:
        try:
            answer = client.get("/readyz")
            if answer.status_code == 200 and not answer.json()["missing"]:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return False


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free, or else one that is."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])
