"""`pointsman demo`: the gateway over two SIMULATED engines, or over a real one, with traffic one can watch.

Processes are started (two simulators or a vLLM on the CPU, and a gateway), asked a round of questions as a client
would, and stopped again. What the simulators say is no model's, and is not shown; what the real one says is.

    processes   what is started, and the wait until it answers
    questions   what is asked
    ask         one question, and its answer
    show        what is printed
"""

import itertools
import random
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import httpx
from rich.console import Console

from gateway.cli import engine
from gateway.cli.demo import questions
from gateway.cli.demo.ask import DemoAnswer, ask
from gateway.cli.demo.processes import ended_by_signals, free_port, ours, running, wait_ready
from gateway.cli.demo.questions import DemoQuestion
from gateway.cli.demo.show import DemoTally, line, summary, text
from gateway.cli.exit_status import CommandFailed, ExitStatus

__all__ = ["free_port", "run", "run_real"]

STARTED_WITHIN = 30.0
LOADED_WITHIN = 3600.0  # a busy machine takes long, and an engine that ends is seen at once
PAUSE = 0.4

Round = Callable[[random.Random], Iterable[DemoQuestion]]


def run(port: int, once: bool) -> None:
    """Run the demo over simulators until Ctrl-C, or one round. Raises CommandFailed if the gateway does not answer."""
    console = Console()
    console.print("[bold]Pointsman demo.[/] The two engines behind the gateway are [bold]SIMULATED[/]: no model runs.")
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        vllm, tgi, front = free_port(), free_port(), free_port(port)
        named = ("--model", questions.SIMULATED)
        stack.enter_context(ours("sim", "vllm", "--port", str(vllm), "--itl-ms", "4", *named))
        stack.enter_context(ours("sim", "tgi", "--port", str(tgi), "--itl-ms", "6", *named))
        urls = ["--vllm", f"http://127.0.0.1:{vllm}", "--tgi", f"http://127.0.0.1:{tgi}"]
        stack.enter_context(ours("serve", *urls, "--port", str(front)))
        client = stack.enter_context(client_of(front))
        wait_ready(client, STARTED_WITHIN)
        welcome(console, client, questions.SIMULATED)
        tally = play(client, questions.simulated, once, lambda seen: [line(seen)], console)
        console.print(summary(tally, "simulated"))
        console.print(
            "Both engines were simulated; against your own: pointsman serve --vllm URL --tgi URL", soft_wrap=True
        )


def run_real(port: int, once: bool) -> None:
    """Run the demo over a real vLLM on the CPU, set up the first time, until Ctrl-C or for one round.

    Raises CommandFailed if it cannot be set up, or if it or the gateway does not answer.
    """
    console = Console()
    console.print("[bold]Pointsman demo.[/] Behind the gateway is a real vLLM, with SmolLM2 135M on the CPU.")
    cache = engine.launch.cache_folder()
    engine.prepare_cpu("", cache)
    with ExitStack() as stack:
        stack.enter_context(ended_by_signals())
        vllm, front, log = free_port(), free_port(port), cache / "demo-vllm.log"
        start = engine.cpu_launch(cache, ["--port", str(vllm)])
        written = stack.enter_context(log.open("wb"))
        loading = stack.enter_context(running(start.words, start.environment, written))
        stack.enter_context(ours("serve", "--vllm", f"http://127.0.0.1:{vllm}", "--port", str(front)))
        client = stack.enter_context(client_of(front))
        with console.status(f"vLLM loads the model, in a minute or two; it writes to {log}"):
            wait_ready(client, LOADED_WITHIN, loading, log)
        welcome(console, client, questions.SMALL)
        tally = play(client, questions.real, once, lambda seen: [line(seen), text(seen)], console)
        console.print(summary(tally, "real"))
        console.print("The engine alone: pointsman engine vllm --profile cpu", soft_wrap=True)


def client_of(port: int) -> httpx.Client:
    """Return a client of the gateway at a port of this machine."""
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False)


def welcome(console: Console, client: httpx.Client, model: str) -> None:
    """Say where the gateway is."""
    base = str(client.base_url).rstrip("/")
    console.print(
        f"The gateway is on {base}/v1, model [bold]{model}[/]: point an OpenAI SDK or curl at it.\n", soft_wrap=True
    )


def play(
    client: httpx.Client, rounds: Round, once: bool, shown: Callable[[DemoAnswer], list[str]], console: Console
) -> DemoTally:
    """Ask rounds of questions until Ctrl-C, or one; show each answer as it comes, and return what they came to.

    Raises CommandFailed if the gateway stops answering.
    """
    tally = DemoTally()
    try:
        for number in itertools.count(1):
            for question in rounds(random.Random(number)):
                seen = ask(client, question)
                tally.add(seen)
                for one in filter(None, shown(seen)):
                    console.print(one, soft_wrap=True)
                time.sleep(PAUSE)
            if once:
                break
    except KeyboardInterrupt:
        console.print()
    except httpx.HTTPError as error:
        raise CommandFailed(ExitStatus.FAILED, f"the gateway stopped answering: {error}") from error
    return tally
