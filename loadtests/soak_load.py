"""The load of a soak: visitors that behave, and visitors that do not. Each visit ends in one word."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from time import monotonic
from typing import Any

import aiohttp

PATH = "/v1/chat/completions"
DONE = b"data: [DONE]\n\n"
PAUSE = 0.1  # seconds between two visits of one visitor, on average
SLOW = 0.05  # seconds between two reads of a slow reader
TOTAL = aiohttp.ClientTimeout(total=60)

Visit = Callable[[aiohttp.ClientSession, Random], Awaitable[str]]


def asked(random: Random, **more: Any) -> dict[str, Any]:
    """Return a request for some words; no two are alike."""
    prompt = f"Tell me of {random.random()} in a few words."
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": random.randrange(5, 60), **more}


async def whole(session: aiohttp.ClientSession, random: Random) -> str:
    """Ask, and read the answer."""
    async with session.post(PATH, json=asked(random)) as answer:
        await answer.read()
        return str(answer.status)


async def stream(session: aiohttp.ClientSession, random: Random) -> str:
    """Ask for a stream, and read it to its end."""
    async with session.post(PATH, json=asked(random, stream=True)) as answer:
        body = await answer.read()
        return _ended(answer.status, body)


async def slow(session: aiohttp.ClientSession, random: Random) -> str:
    """Ask for a stream, and read it in sips."""
    async with session.post(PATH, json=asked(random, stream=True)) as answer:
        body = b""
        while sip := await answer.content.read(256):
            body += sip
            await asyncio.sleep(SLOW)
        return _ended(answer.status, body)


async def leaver(session: aiohttp.ClientSession, random: Random) -> str:
    """Ask, and leave after some time, whatever has come by then."""
    try:
        async with asyncio.timeout(random.uniform(0, 0.2)):
            async with session.post(PATH, json=asked(random, stream=random.random() < 0.7)) as answer:
                await answer.content.read(64)
                await asyncio.sleep(1)
    except TimeoutError:
        pass
    return "left"


async def bad(session: aiohttp.ClientSession, random: Random) -> str:
    """Ask what cannot be; a 4xx is what is wanted."""
    wrong = random.choice([{"messages": "hi"}, asked(random, temperature=9), asked(random, model="none"), 7])
    async with session.post(PATH, json=wrong) as answer:
        await answer.read()
        return "refused" if 400 <= answer.status < 500 else f"bad-{answer.status}"


def _ended(status: int, body: bytes) -> str:
    """Say how a stream ended; an error event is how it has to if an engine breaks it."""
    if status != 200 or body.endswith(DONE):
        return str(status)
    return "broken" if b'"error"' in body.rsplit(b"data: ", 1)[-1] else "cut"


# How many of each hundred visits.
MIX: dict[Visit, int] = {whole: 40, stream: 35, leaver: 10, bad: 10, slow: 5}
FINE = frozenset({"200", "left", "refused"})
EXPECTED = frozenset({"429", "502", "503", "504", "broken"})  # where engines are made to fail


@dataclass
class Seen:
    """What visits came to, and how long those took that were served whole, in seconds."""

    words: Counter[str] = field(default_factory=Counter)
    lengths: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return a percentile of the lengths, 0 if there are none."""
        ordered = sorted(self.lengths)
        return ordered[int(share * (len(ordered) - 1))] if ordered else 0.0


class Load:
    """Visitors that come again and again."""

    def __init__(self, url: str, visitors: int, seed: int) -> None:
        self.seen = Seen()
        self.total: Counter[str] = Counter()
        self._url = url
        self._visitors = visitors
        self._random = Random(seed)

    async def run(self) -> None:
        """Visit until cancelled."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, connector=connector, timeout=TOTAL) as session:
            await asyncio.gather(*(self._visitor(session) for _ in range(self._visitors)))

    def take(self) -> Seen:
        """Return what there was since the last call."""
        seen, self.seen = self.seen, Seen()
        return seen

    async def _visitor(self, session: aiohttp.ClientSession) -> None:
        visits, weights = list(MIX), list(MIX.values())
        while True:
            visit = self._random.choices(visits, weights)[0]
            began = monotonic()
            try:
                word = await visit(session, self._random)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                word = type(error).__name__
            self.seen.words[word] += 1
            self.total[word] += 1
            if visit is whole and word == "200":
                self.seen.lengths.append(monotonic() - began)
            await asyncio.sleep(self._random.uniform(0, 2 * PAUSE))
