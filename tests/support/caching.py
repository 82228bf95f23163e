"""The gateway with a response cache: run over an engine, asked by many, and what came compared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx

from gateway import config
from tests.support.engine_answers import FAILED, WRONG
from tests.support.harness import (
    ANSWER,
    CHAT,
    END,
    STREAM,
    USAGE,
    Asked,
    Engine,
    Gateway,
    Script,
    events,
    head,
    over,
    piece,
    until,
    whole,
)

MEMORY = config.CacheConfig(store="memory")
STREAMED = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
OWN = ("id", "created")  # of each answer


@asynccontextmanager
async def keeping(
    script: Script, kind: str = "vllm", clock: Callable[[], float] = monotonic, **more: Any
) -> AsyncIterator[tuple[Gateway, Engine]]:
    """Run the gateway with a cache in memory over one engine; at the end nothing is held that was taken."""
    async with over(script, kind, clock, **{"cache": MEMORY} | more) as (front, behind):
        yield front, behind
        await given_back(front)


async def given_back(front: Gateway) -> None:
    """See that every place has been given back, exactly once."""
    services = front.services
    assert services.cache is not None
    flights = services.cache.flights
    await until(lambda: not services.sweep.open and not flights.tasks)
    assert services.admission.in_flight == 0
    assert [endpoint.in_flight for endpoint in services.catalog.endpoints] == [0] * len(services.catalog.endpoints)


def said(answer: httpx.Response) -> str:
    """Return what the cache did: hit, miss, coalesced, bypass, or nothing where there is no cache."""
    return str(answer.headers.get("x-pointsman-cache", ""))


def plain(answer: httpx.Response) -> list[Any]:
    """Return what an answer says, without what each has of its own; usage as if it were not marked."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        found = [answer.json()]
    else:
        found = events(answer.content)
    for one in found:
        if isinstance(one, dict):
            for name in OWN:
                assert one.pop(name)
            (one.get("usage") or {}).pop("prompt_tokens_details", None)
            for tool in tool_calls(one):
                tool.pop("id", None)
    return found


def tool_calls(one: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tool calls, or the pieces of such, of an answer or a chunk."""
    said = [choice.get("message") or choice.get("delta") or {} for choice in one["choices"]]
    return [tool for inner in said for tool in inner.get("tool_calls") or ()]


def tool_ids(answer: httpx.Response) -> list[str]:
    """Return the ids of an answer's tool calls, whole or streamed."""
    streams = answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.content) if streams else [answer.json()]
    return [tool["id"] for one in found if isinstance(one, dict) for tool in tool_calls(one) if tool.get("id")]


def joined(said: list[Any]) -> tuple[str, list[str], Any, bool]:
    """Return the text, the finish reasons, the usage, and whether the stream has its end."""
    text, reasons, usage = "", [], None
    for one in said:
        if isinstance(one, dict):
            usage = one.get("usage") or usage
            for choice in one["choices"]:
                inner = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
                text += inner.get("content") or ""
                reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
    return text, reasons, usage, said[-1] == "data: [DONE]"


# What `joined` finds in a whole STREAM.
FULL = ("Grüße dir", ["stop"], USAGE, True)


def gated(gate: asyncio.Event, *statuses: str) -> Script:
    """Return a script that begins its streams at once, and waits for the gate before the rest and for whole answers.

    The first requests are refused with these statuses instead, behind the gate as well.
    """
    left = list(statuses)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        refused, begins = left.pop(0) if left else "", asked.json.get("stream")
        if begins and not refused:
            writer.write(head() + piece(STREAM[0]) + piece(STREAM[1]))
        await gate.wait()
        if refused:
            writer.write(whole(WRONG if refused.startswith("4") else FAILED, refused))
        elif begins:
            writer.write(b"".join(piece(one) for one in STREAM[2:]) + END)
        else:
            writer.write(whole(ANSWER))
        await writer.drain()

    return script


@asynccontextmanager
async def crowd(front: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client with as many connections as it wants."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    url = f"http://127.0.0.1:{front.port}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False, verify=False) as client:
        yield client
