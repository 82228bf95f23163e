"""A workload of repeated prompts, as people repeat them: few often, most once or twice (Zipf's law).

    python -m loadtests.zipf                                            the memory tier alone, in virtual time
    python -m loadtests.zipf --url http://127.0.0.1:8080 --model tiny   a running gateway, asked for real

Either says the share of hits beside the best possible one for the same trace: with no bound on the room, and with the
same room used by somebody who knows the future (L. Belady, "A study of replacement algorithms", IBM Systems Journal,
1966). The room of a running gateway is what its `/metrics` say that it holds at the end: start one for each run, with
a `cache.max_bytes` that is too small for all the answers.
"""

import argparse
import asyncio
import heapq
import json
import re
from bisect import bisect
from collections import Counter, OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from time import perf_counter
from typing import Any

import httpx

from gateway.cache.entry import CachedAnswer, Label
from gateway.cache.memory import MemoryTier, weight

NEVER = 2**62
ANSWER = b"x" * 4000


def trace(requests: int, prompts: int, alpha: float, random: Random) -> list[int]:
    """Return which prompt each request has: prompt k is asked for in proportion to 1/k^alpha."""
    sums = list(accumulate(1 / rank**alpha for rank in range(1, prompts + 1)))
    return [bisect(sums, random.random() * sums[-1]) for _ in range(requests)]


def best(asked: Sequence[int], room: int) -> float:
    """Return the most hits that any cache with room for so many answers can have, as a share of the requests."""
    following, again = [NEVER] * len(asked), dict.fromkeys(asked, NEVER)
    for place in range(len(asked) - 1, -1, -1):
        following[place], again[asked[place]] = again[asked[place]], place
    kept: dict[int, int] = {}  # when each is asked for again
    furthest: list[tuple[int, int]] = []
    hits = 0
    for place, prompt in enumerate(asked):
        hits += prompt in kept
        kept[prompt] = following[place]
        heapq.heappush(furthest, (-following[place], prompt))
        while len(kept) > room:
            until, victim = heapq.heappop(furthest)
            if kept.get(victim) == -until:
                del kept[victim]
    return hits / len(asked)


def least_recent(asked: Sequence[int], room: int) -> float:
    """Return the hits of an LRU cache, to compare with."""
    kept: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for prompt in asked:
        hits += prompt in kept
        kept[prompt] = None
        kept.move_to_end(prompt)
        if len(kept) > room:
            kept.popitem(last=False)
    return hits / len(asked)


def of_memory(asked: Sequence[int], room: int) -> float:
    """Return the hits of the gateway's memory tier."""
    memory = MemoryTier(room * weight(b"k" * 32, _entry(0)))
    hits = 0
    for prompt in asked:
        if memory.get(prompt.to_bytes(32, "big"), 0.0) is not None:
            hits += 1
        else:
            memory.put(_entry(prompt))
    return hits / len(asked)


def _entry(prompt: int) -> CachedAnswer:
    return CachedAnswer(Label(prompt.to_bytes(32, "big"), "m", 0.0, 1e9), ANSWER, b"")


async def of_gateway(asked: Sequence[int], url: str, model: str, together: int) -> Counter[str]:
    """Ask a gateway; return how often it said hit, miss, coalesced or bypass, or another status than 200."""
    said: Counter[str] = Counter()
    left = iter(asked)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:

        async def ask() -> None:
            for prompt in left:
                message = {"role": "user", "content": f"Prompt number {prompt}: " + "say something. " * 20}
                body = {"model": model, "messages": [message], "max_tokens": 64, "temperature": 0}
                answer = await client.post("/v1/chat/completions", json=body)
                what = answer.headers.get("x-pointsman-cache", "none")
                said[what if answer.status_code == 200 else str(answer.status_code)] += 1

        await asyncio.gather(*(ask() for _ in range(together)))
    return said


def held(url: str) -> int:
    """Return how many answers a gateway has in its memory."""
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    found = re.search(r"^pointsman_cache_entries (\S+)", text, re.MULTILINE)
    return round(float(found[1])) if found else 0


def main() -> None:
    """Run it, and print a JSON object."""
    parser = argparse.ArgumentParser(description="A Zipf-shaped workload for the response cache.")
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--alpha", type=float, default=0.9)
    parser.add_argument("--room", type=int, default=1_000, help="answers that the memory tier holds, alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="of a running gateway; without it the memory tier is asked alone")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--together", type=int, default=16, help="requests at a time")
    given = parser.parse_args()
    asked = trace(given.requests, given.prompts, given.alpha, Random(given.seed))
    told: dict[str, Any] = {name: getattr(given, name) for name in ("requests", "prompts", "alpha", "seed")}
    room: int = given.room
    began = perf_counter()
    if given.url:
        told["said"] = said = asyncio.run(of_gateway(asked, given.url, given.model, given.together))
        told["hits"] = (said["hit"] + said["coalesced"]) / len(asked)
        room = held(given.url)
    else:
        told["hits"] = of_memory(asked, room)
    told["seconds"] = perf_counter() - began
    told["room"] = room
    told["best_unbounded"] = 1 - len(set(asked)) / len(asked)
    told["best_in_room"] = best(asked, room)
    told["lru_in_room"] = least_recent(asked, room)
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
