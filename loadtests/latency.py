"""Latency at a set rate, of one server or of several compared: open loop, as users come, and not as answers allow.

    python -m loadtests.latency http://127.0.0.1:8000 --rate 100 --seconds 30
    python -m loadtests.latency direct=http://127.0.0.1:8000 gateway=http://127.0.0.1:8080 --rate 100 --blocks 6

Requests are due at the times of a Poisson process, and a latency counts from when its request was due
(`loadtests.open_loop`). Several servers are asked in blocks, one server a block, in random order within each round, so
that what changes on the machine meanwhile falls on all of them; in a round each gets the same requests at the same
times, with another first word, so that no engine has read them before. Prints a table, and with --out writes JSON.
"""

import argparse
import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtests.open_loop import due_times, paced, percentile
from loadtests.zipf import trace

PATIENCE = aiohttp.ClientTimeout(total=120)
WARM_UP = 20  # requests to each server, which do not count
TEXT = "the engine reads a prompt and writes an answer token by token while others wait for their turn"
POINTS = (50, 95, 99)


@dataclass
class Measured:
    """What one server took, in milliseconds: to the first event of a stream, and to the end."""

    first: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    tokens: int = 0
    hits: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    def fail(self, why: str) -> None:
        """Count a failure."""
        self.failed[why] = self.failed.get(why, 0) + 1

    def told(self, seconds: float) -> dict[str, Any]:
        """Return what there is to say of it; `seconds` is how long it was asked."""
        return {
            "requests": len(self.total),
            "failed": self.failed,
            "per_second": round(len(self.total) / seconds, 1),
            "tokens_per_second": round(self.tokens / seconds, 1),
            "cache_hits": round(self.hits / max(1, len(self.total)), 3),
            "total_ms": {f"p{point}": percentile(self.total, point) for point in POINTS},
            "first_ms": {f"p{point}": percentile(self.first, point) for point in POINTS},
        }


def prompts(options: argparse.Namespace, count: int, random: Random) -> list[str]:
    """Return so many prompts: all different, or repeated as Zipf's law has it, in this block and the others."""
    places, salt = list(range(count)), random.getrandbits(32)
    if options.zipf:
        places, salt = trace(count, options.prompts, options.zipf, random), 0
    words = TEXT.split()
    text = " ".join(words[place % len(words)] for place in range(options.prompt_words))
    return [f"{salt:x}-{place}: {text}" for place in places]


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any], due: float, into: Measured) -> None:
    """Send one request, and note what it took from when it was due."""
    clock = asyncio.get_running_loop().time
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            if answer.status != 200:
                into.fail(str(answer.status))
                return
            first = 0.0
            async for _ in answer.content.iter_any():
                first = first or (clock() - due) * 1000
            into.hits += answer.headers.get("x-pointsman-cache") == "hit"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        into.fail(type(error).__name__)
        return
    into.total.append((clock() - due) * 1000)
    if body["stream"]:
        into.first.append(first)
    into.tokens += body["max_tokens"]


async def block(
    server: tuple[str, str], options: argparse.Namespace, seed: int, into: Measured, seconds: float
) -> None:
    """Ask one server for so many seconds; what it is asked, and when, follows from the seed."""
    name, url = server
    random = Random(seed)
    times = due_times(options.rate, seconds, random)
    texts = [f"{name} {text}" for text in prompts(options, len(times), random)]
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=PATIENCE) as session:

        async def asked(place: int, due: float) -> None:
            await ask(session, url, request(options, texts[place]), due, into)

        await paced(times, asked)


def request(options: argparse.Namespace, text: str) -> dict[str, Any]:
    """Return the body of a request, whose answer has a set length."""
    return {
        "model": options.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": options.max_tokens,
        "temperature": 0,
        "stream": options.stream,
        **json.loads(options.extra),
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ask all servers, block by block; return what was measured."""
    random = Random(options.seed)
    servers = dict(server.split("=", 1) if "=" in server else (server, server) for server in options.servers)
    measured = {name: Measured() for name in servers}
    with Progress(console=Console(stderr=True)) as progress:
        for name in progress.track([*servers], description="warm-up"):
            await block((name, servers[name]), options, -1, Measured(), WARM_UP / options.rate)
        seeds = [random.getrandbits(64) for _ in range(options.blocks)]
        rounds = [(name, seed) for seed in seeds for name in random.sample([*servers], len(servers))]
        for name, seed in progress.track(rounds, description=f"{options.rate:g} requests/s"):
            await block((name, servers[name]), options, seed, measured[name], options.seconds)
    seconds = options.blocks * options.seconds
    return {"options": vars(options), "servers": {name: one.told(seconds) for name, one in measured.items()}}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(
        "server", "requests", "failed", "hits", *(f"p{point} ms" for point in POINTS), "first p50", "first p99"
    )
    for name, one in result["servers"].items():
        total, first = one["total_ms"], one["first_ms"]
        took = [shown(total[f"p{point}"]) for point in POINTS]
        failed = str(sum(one["failed"].values()))
        hits = f"{one['cache_hits']:.1%}"
        table.add_row(name, str(one["requests"]), failed, hits, *took, shown(first["p50"]), shown(first["p99"]))
    Console().print(table)


def shown(value: float | None) -> str:
    """Return a time as the table has it."""
    return "" if value is None else f"{value:.1f}"


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="URLs, each with a name before it if you like: name=URL")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each block")
    parser.add_argument("--blocks", type=int, default=3, help="for each server")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--prompt-words", type=int, default=32)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--zipf", type=float, default=0.0, help="repeat prompts with this exponent; 0: never")
    parser.add_argument("--prompts", type=int, default=2000, help="that are repeated with --zipf")
    parser.add_argument("--extra", default="{}", help="more fields of each request, as JSON")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
