"""Whether an engine still says the same: perplexity on a text, and divergences of greedy answers per 1,000 tokens.

    python -m loadtests.quality base=http://127.0.0.1:8000 int8=http://127.0.0.1:8001 --text held-out.txt

The first server is the reference. Perplexity is exp of the mean negative logprob of the text's tokens, in pieces of
--words words, asked of `/v1/completions` with vLLM's `prompt_logprobs` (TGI's protocol has no equal). Then each server
goes on greedily from the head of each piece. Two answers are compared token by token until they first differ; the
hazard is first differences per 1,000 tokens compared, whatever the answers' length. The reference is asked twice: that
pair is the self-pair, the noise of one engine under load, and a server is judged by its ratio to it. A first difference
is a tie where both sides hold the two tokens within half a nat of each other, a stop where one answer ends before the
other, and else hard. Prints tables; with --out writes JSON.
"""

import argparse
import asyncio
import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from loadtests.asking import COMPLETIONS, session

TIE = 0.5  # nats
Z = 1.96
SELF = "self-pair"


@dataclass(frozen=True)
class Said:
    """A greedy answer: its tokens, and of each place the logprobs of the likeliest tokens there."""

    tokens: list[str]
    likely: list[dict[str, float]]


@dataclass(frozen=True)
class Difference:
    """Where two answers part: how many tokens were compared, and the kind of the first difference; None: nowhere."""

    compared: int
    kind: str | None = None


def difference(a: Said, b: Said) -> Difference:
    """Compare two answers until they first differ."""
    for place, (one, other) in enumerate(zip_longest(a.tokens, b.tokens)):
        if one != other:
            if one is None or other is None:
                return Difference(place + 1, "stop")
            both = all(close(said.likely[place], one, other) for said in (a, b))
            return Difference(place + 1, "tie" if both else "hard")
    return Difference(len(a.tokens))


def close(likely: dict[str, float], one: str, other: str) -> bool:
    """Say whether two tokens are within half a nat of each other."""
    return one in likely and other in likely and abs(likely[one] - likely[other]) <= TIE


def hazard(found: list[Difference]) -> dict[str, Any]:
    """Return what there is to say of one pair of servers: differences per 1,000 tokens, and their kinds."""
    compared = sum(one.compared for one in found)
    kinds = Counter(one.kind for one in found if one.kind)
    return {
        "answers": len(found),
        "tokens_compared": compared,
        "differences": kinds.total(),
        "per_1000_tokens": round(1000 * kinds.total() / max(1, compared), 3),
        "kinds": dict(kinds),
    }


def ratio(one: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Return the ratio of two hazards and its 95 % interval: Poisson counts, log-normal, with half a count added."""
    counts = [told["differences"] + 0.5 for told in (one, base)]
    value = counts[0] / max(1, one["tokens_compared"]) / (counts[1] / max(1, base["tokens_compared"]))
    wide = math.exp(Z * math.sqrt(sum(1 / count for count in counts)))
    return {"ratio": round(value, 2), "low": round(value / wide, 2), "high": round(value * wide, 2)}


def perplexity(logprobs: list[float], size: int) -> dict[str, Any]:
    """Return the perplexity per token and the bits per byte of a text of so many bytes."""
    nats = -sum(logprobs)
    told = {"perplexity": math.exp(nats / len(logprobs)), "bits_per_byte": nats / math.log(2) / size}
    return {"tokens": len(logprobs), **{name: round(value, 4) for name, value in told.items()}}


def scored(answer: dict[str, Any]) -> list[float]:
    """Read the logprobs of the prompt's tokens; the first token has none. vLLM names a place's own token first."""
    places = answer["choices"][0]["prompt_logprobs"]
    return [next(iter(place.values()))["logprob"] for place in places if place]


class Server:
    """A server under test, asked so many requests at a time."""

    def __init__(self, http: aiohttp.ClientSession, url: str, options: argparse.Namespace) -> None:
        self._http, self._url, self._options = http, url, options
        self._room = asyncio.Semaphore(options.in_flight)

    async def score(self, text: str) -> list[float]:
        """Return the logprob of each token of a text but the first."""
        return scored(await self._ask({"prompt": text, "max_tokens": 1, "prompt_logprobs": 0}))

    async def say(self, prompt: str) -> Said:
        """Return the greedy continuation of a prompt."""
        asked = {"prompt": prompt, "max_tokens": self._options.max_tokens, "logprobs": 5}
        found = (await self._ask(asked))["choices"][0]["logprobs"]
        return Said(found["tokens"], found["top_logprobs"])

    async def _ask(self, more: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self._options.model, "temperature": 0, **more}
        async with self._room, self._http.post(f"{self._url}{COMPLETIONS}", json=body) as answer:
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found


def pieces(text: str, words: int, most: int) -> list[str]:
    """Cut a text into pieces of so many words, its white space kept; return some, evenly spread over it."""
    size, found, count, begin = 0, [], 0, 0
    for size, character in enumerate(text):
        count += character.isspace() and not text[size - 1].isspace()
        if count == words:
            found.append(text[begin:size])
            begin, count = size, 0
    return found[:: max(1, len(found) // most)][:most]


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Ask all servers; return what was measured."""
    servers = dict(server.split("=", 1) if "=" in server else (server, server) for server in options.servers)
    found = pieces(options.text.read_text(), options.words, options.pieces)
    heads = [" ".join(piece.split(" ")[: options.head_words]) for piece in found]
    told: dict[str, Any] = {}
    said: dict[str, list[Said]] = {}
    async with session() as http:
        with Progress(console=Console(stderr=True)) as progress:
            for name, url in progress.track([*servers.items()], description="perplexity"):
                server = Server(http, url, options)
                logprobs = await asyncio.gather(*map(server.score, found))
                size = sum(len(piece.encode()) for piece in found)
                told[name] = perplexity([value for piece in logprobs for value in piece], size)
            again = [(SELF, next(iter(servers.values()))), *servers.items()]
            for number, (name, url) in enumerate(progress.track(again, description="greedy answers")):
                said[name] = await shuffled(Server(http, url, options), heads, Random(number))
    return {"options": vars(options), "servers": told, "pairs": pairs(said, next(iter(servers)))}


async def shuffled(server: Server, heads: list[str], random: Random) -> list[Said]:
    """Return the answers to all heads, asked in an order of its own, so that batches differ as they do for users."""
    order = random.sample(range(len(heads)), len(heads))
    answers = await asyncio.gather(*(server.say(heads[place]) for place in order))
    return [answer for _, answer in sorted(zip(order, answers, strict=True), key=lambda one: one[0])]


def pairs(said: dict[str, list[Said]], reference: str) -> dict[str, Any]:
    """Compare each server with the reference, and with what the self-pair has it."""
    told = {}
    for name, answers in said.items():
        if name != reference:
            told[name] = hazard([difference(a, b) for a, b in zip(said[reference], answers, strict=True)])
    return {name: one | {"to_self_pair": ratio(one, told[SELF])} for name, one in told.items()}


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    table = Table("server", "tokens", "perplexity", "bits per byte")
    for name, one in result["servers"].items():
        table.add_row(name, str(one["tokens"]), f"{one['perplexity']:.4f}", f"{one['bits_per_byte']:.4f}")
    Console().print(table)
    table = Table("pair with the reference", "answers", "per 1,000 tokens", "kinds", "ratio to the self-pair")
    for name, one in result["pairs"].items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(one["kinds"].items()))
        against = one["to_self_pair"]
        interval = f"{against['ratio']} ({against['low']} to {against['high']})"
        table.add_row(name, str(one["answers"]), f"{one['per_1000_tokens']}", kinds, interval)
    Console().print(table)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", help="name=URL, the reference first")
    parser.add_argument("--text", type=Path, required=True, help="a file that no model was trained on")
    parser.add_argument("--model", default="bench")
    parser.add_argument("--pieces", type=int, default=200, help="of the text, at most")
    parser.add_argument("--words", type=int, default=200, help="of each piece")
    parser.add_argument("--head-words", type=int, default=64, help="of a piece, that an answer goes on from")
    parser.add_argument("--max-tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--in-flight", type=int, default=32, help="requests at a time")
    parser.add_argument("--out", type=Path, help="a file for the result, as JSON")
    options = parser.parse_args()
    result = asyncio.run(run(options))
    show(result)
    if options.out:
        options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")


if __name__ == "__main__":
    main()
