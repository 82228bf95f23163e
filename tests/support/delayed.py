"""A scripted engine with known delays, for the load tests: it is seldom quicker than it says, and never by much."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.harness import END, Asked, Script, chunk, head, piece, whole

TOKENS = 5


def usage(tokens: int) -> dict[str, int]:
    """Return the usage of an answer."""
    return {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 3 + tokens}


def delayed(first: float, gap: float) -> Script:
    """Return a script of five tokens, streamed if so asked: the first after `first` seconds, the others `gap` apart."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not asked.json.get("stream"):
            await asyncio.sleep(first + gap * (TOKENS - 1))
            writer.write(whole({"choices": [], "usage": usage(TOKENS)}))
            return
        writer.write(head() + piece(chunk({"role": "assistant", "content": ""})))
        for place in range(TOKENS):
            await asyncio.sleep(gap if place else first)
            writer.write(piece(chunk({"content": "word"})))
        last = {"choices": [], "usage": usage(TOKENS)}
        writer.write(piece(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n") + END)

    return script


def heads(cold: float, warm: float) -> Script:
    """Return a script with a prefix cache: the first token is late unless a prompt's first word was there before."""
    known: set[str] = set()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        first = asked.json["messages"][0]["content"].split()[0]
        wait = warm if first in known else cold
        known.add(first)
        await delayed(wait, 0.0)(asked, writer)

    return script


def scores(logprob: float, words: list[str], margin: float) -> Script:
    """Return a script that holds each token of a prompt for equally likely, and goes on with these words.

    Where it says a word, it holds "other" for less likely by `margin` nats.
    """

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if "prompt_logprobs" in asked.json:
            places: list[Any] = [{"7": {"logprob": logprob, "rank": 1}} for _ in asked.json["prompt"].split()]
            writer.write(whole({"choices": [{"prompt_logprobs": [None, *places]}]}))
            return
        likely = [{word: -1.0, "other": -1.0 - margin, "word": -1.0} for word in words]
        writer.write(whole({"choices": [{"logprobs": {"tokens": words, "top_logprobs": likely}}]}))

    return script
