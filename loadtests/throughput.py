"""Throughput by how many requests are in flight, to saturation: of one server or of several compared.

    python -m loadtests.throughput http://127.0.0.1:8000 --in-flight 1,16,64,256
    python -m loadtests.throughput base=http://127.0.0.1:8000 int8=http://127.0.0.1:8001 --blocks 2 --seconds 10

Closed loop: so many clients each send their next request when the last is answered. That finds what a server can do at
most; what users wait at a rate that they choose is `loadtests.latency`'s to say. Blocks of one server and one number in
flight are run in random order within each round. Tokens count where they fall into the measured seconds, after the
clients have settled; of a request that laps over the edge, its share. Answers have from half of --max-tokens to half as
many again, so that the clients do not move in step. Saturated is the least number in flight with 95 %
of the most tokens. Prints a table, and with --out writes JSON.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtests.asking import Answered, AskFailed, ask, session
from loadtests.latency import TEXT
from loadtests.open_loop import percentile

SATURATED = 0.95  # of the most


@dataclass
class Level:
    """What one server did with so many in flight, over all its blocks."""

    seconds: float = 0.0
    tokens: float = 0.0
    answers: list[Answered] = field(default_factory=list)
    failed: dict[str, int] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Return what there is to say of it."""
        first = [one.first_ms for one in self.answers if one.first_ms is not None]
        gaps = [one.token_ms for one in self.answers if one.token_ms is not None]
        return {
            "tokens_per_second": round(self.tokens / self.seconds, 1) if self.seconds else 0.0,
            "answers": len(self.answers),
            "failed": self.failed,
            "total_ms_p50": percentile([(one.ended - one.sent) * 1000 for one in self.answers], 50),
            "first_ms_p50": percentile(first, 50),
            "token_ms_p50": percentile(gaps, 50),
        }


def saturation(levels: dict[int, float]) -> int:
    """Return the least number in flight whose tokens per second reach 95 % of the most."""
    most = max(levels.values())
    return min(count for count, rate in levels.items() if rate >= SATURATED * most)


def body(options: argparse.Namespace, random: Random) -> dict[str, Any]:
    """Return a request with a prompt of its own, so that no engine has read it before, and an answer of any length."""
    words, most = TEXT.split(), options.max_tokens
    text = " ".join(random.choice(words) for _ in range(options.prompt_words))
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if options.stream else {}
    return {
        "model": options.model,
        "messages": [{"role": "user", "content": f"{random.getrandbits(64):x} {text}"}],
        "max_tokens": random.randint(max(1, most // 2), most + most // 2),
        "temperature": 0,
        **streamed,
        **json.loads(options.extra),
    }


async def client(http: aiohttp.ClientSession, url: str, options: argparse.Namespace, seed: str, into: Level) -> None:
    """Ask again and again until the block ends; the last answer is read to its end."""
    random = Random(seed)
    until = time.perf_counter() + options.settle + options.seconds
    while time.perf_counter() < until:
        try:
            into.answers.append(await ask(http, url, body(options, random)))
        except AskFailed as error:
            into.failed[str(error)] = into.failed.get(str(error), 0) + 1
            await asyncio.sleep(0.1)  # a server that refuses is not asked as fast as it can refuse


async def block(url: str, in_flight: int, options: argparse.Namespace, seed: int, into: Level) -> None:
    """Keep so many requests in flight for some seconds, and count the tokens that came after all had settled."""
    mine = Level()
    begin = time.perf_counter() + options.settle
    async with session() as http, asyncio.TaskGroup() as group:
        for number in range(in_flight):
            group.create_task(client(http, url, options, f"{seed}-{number}", mine))
    end = begin + options.seconds
    into.tokens += sum(one.tokens_within(begin, end) for one in mine.answers)
    into.seconds += options.seconds
    into.answers += [one for one in mine.answers if begin <= one.sent < end]
    for why, count in mine.failed.items():
        into.failed[why] = into.failed.get(why, 0) + count


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ask all servers at all levels, block by block; return what was measured."""
    random = Random(options.seed)
    servers = dict(server.split("=", 1) if "=" in server else (server, server) for server in options.servers)
    cells = [(name, count) for name in servers for count in options.in_flight]
    measured = {cell: Level() for cell in cells}
    rounds = [cell for _ in range(options.blocks) for cell in random.sample(cells, len(cells))]
    with Progress(console=Console(stderr=True)) as progress:
        for name, count in progress.track(rounds, description="throughput"):
            await block(servers[name], count, options, random.getrandbits(64), measured[name, count])
    told = {name: {count: measured[name, count].told() for count in options.in_flight} for name in servers}
    ends = {
        name: saturation({count: one["tokens_per_second"] for count, one in levels.items()})
        for name, levels in told.items()
    }
    return {"options": vars(options), "servers": told, "saturated_at": ends}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("server", "in flight", "tokens/s", "answers", "failed", "p50 ms", "first p50", "per token p50")
    for name, levels in result["servers"].items():
        for count, one in levels.items():
            times = (one["total_ms_p50"], one["first_ms_p50"], one["token_ms_p50"])
            mark = " *" if result["saturated_at"][name] == count else ""
            failed = str(sum(one["failed"].values()))
            cells = ("" if value is None else f"{value:.1f}" for value in times)
            table.add_row(
                name, f"{count}{mark}", f"{one['tokens_per_second']:.0f}", str(one["answers"]), failed, *cells
            )
    Console().print(table, "* saturated")


def counts(text: str) -> list[int]:
    """Read a list of numbers in flight. Raises ArgumentTypeError."""
    numbers = [int(word) if word.strip().isdigit() else 0 for word in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers from 1, separated by commas, not {text!r}")
    return numbers


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="URLs, each with a name before it if you like: name=URL")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--in-flight", type=counts, default=[1, 4, 16, 64, 256], help="numbers, with commas")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each block")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds before each block that do not count")
    parser.add_argument("--blocks", type=int, default=2, help="for each server and number in flight")
    parser.add_argument("--max-tokens", type=int, default=128, help="of an answer, on average")
    parser.add_argument("--prompt-words", type=int, default=128)
    parser.add_argument("--stream", action="store_true", help="for first-token times; costs the client CPU")
    parser.add_argument("--extra", default="{}", help='more fields of each request, as JSON: {"ignore_eos": true}')
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
