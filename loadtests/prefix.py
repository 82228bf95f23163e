"""What prefix caching brings: the time to the first token, by the length of a head that requests share.

    python -m loadtests.prefix on=http://127.0.0.1:8000 off=http://127.0.0.1:8001 --words 0,512,2048

A head is a system prompt or a document that stands before many questions. For each length, each server is asked
questions one at a time, all with the same head, which it was asked once before, and as many with a head that it has
never seen. Lengths, servers and the two kinds take turns in random order. Prints a table; with --out writes JSON.
"""

import argparse
import asyncio
import json
import sys
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtests.asking import AskFailed, ask, session
from loadtests.latency import TEXT
from loadtests.open_loop import percentile
from loadtests.throughput import counts

KINDS = ("shared", "new")
Cell = tuple[str, int, str]


def head(words: int, random: Random) -> str:
    """Return a head of so many words that is like no other from its first word on."""
    text = TEXT.split()
    return " ".join([f"{random.getrandbits(64):x}", *(random.choice(text) for _ in range(words))])


async def first_token(http: aiohttp.ClientSession, url: str, model: str, said: str) -> float:
    """Return the time to the first token, in milliseconds. Raises AskFailed."""
    question = {"role": "user", "content": said}
    request = {"model": model, "messages": [question], "max_tokens": 2, "temperature": 0, "stream": True}
    answered = await ask(http, url, request | {"ignore_eos": True})
    if answered.first_ms is None:
        raise AskFailed("a stream without text")
    return answered.first_ms


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ask for all cells; return what was measured."""
    random = Random(options.seed)
    servers = dict(server.split("=", 1) if "=" in server else (server, server) for server in options.servers)
    cells: list[Cell] = list(product(servers, options.words, KINDS))
    heads = {cell: head(cell[1], random) for cell in cells}
    took: dict[Cell, list[float]] = {cell: [] for cell in cells}
    order = [cell for _ in range(options.questions) for cell in random.sample(cells, len(cells))]
    async with session() as http:
        for (name, _, _), text in heads.items():
            await first_token(http, servers[name], options.model, text)
        with Progress(console=Console(stderr=True)) as progress:
            for cell in progress.track(order, description="first tokens"):
                text = heads[cell] if cell[2] == "shared" else head(cell[1], random)
                said = f"{text} {random.getrandbits(64):x}"
                took[cell].append(await first_token(http, servers[cell[0]], options.model, said))
    told = [
        {
            "server": name,
            "words": words,
            "head": kind,
            "first_ms": {f"p{point}": percentile(times, point) for point in (50, 95)},
        }
        for (name, words, kind), times in took.items()
    ]
    return {"options": vars(options), "cells": told}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table("server", "words of the head", "head", "first token p50 ms", "p95 ms")
    for cell in result["cells"]:
        times = (f"{cell['first_ms'][point]:.1f}" for point in ("p50", "p95"))
        table.add_row(cell["server"], str(cell["words"]), cell["head"], *times)
    Console().print(table)


def lengths(text: str) -> list[int]:
    """Read a list of lengths, of which one may be 0. Raises ArgumentTypeError."""
    return [0 if word.strip() == "0" else counts(word)[0] for word in text.split(",")]


def main() -> int:
    """Measure as the command line says; return 1 if a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="URLs, each with a name before it if you like: name=URL")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--words", type=lengths, default=[0, 256, 1024, 2048], help="of the head: numbers, with commas")
    parser.add_argument("--questions", type=int, default=20, help="for each server, length and kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    options = parser.parse_args()
    try:
        result = asyncio.run(run(options))
    except AskFailed as error:
        print(f"prefix: a request failed: {error}", file=sys.stderr)
        return 1
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
