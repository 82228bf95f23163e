"""Sends one question of the demo, and reads its answer to the end."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.cli.demo.questions import DemoQuestion


@dataclass
class DemoAnswer:
    """What one request came to. Times are in seconds; `text` is what was said, a tool call as its arguments."""

    title: str
    status: int
    engine: str
    first: float
    total: float
    tokens: int
    adapted: str
    streamed: bool
    text: str = ""
    note: str = ""


def ask(client: httpx.Client, question: DemoQuestion) -> DemoAnswer:
    """Send one question, and read its answer."""
    began = time.perf_counter()
    headers = {"x-pointsman-engine": question.pin} if question.pin else {}
    answers: list[tuple[float, dict[str, Any]]] = []
    with client.stream("POST", question.path, json=question.body, headers=headers) as response:
        answers = [(time.perf_counter() - began, piece) for piece in pieces(response)]
    last = answers[-1][1] if answers else {}
    return DemoAnswer(
        title=question.title,
        status=response.status_code,
        engine=response.headers.get("x-pointsman-engine", "none"),
        first=answers[0][0] if answers else 0.0,
        total=time.perf_counter() - began,
        tokens=(last.get("usage") or {}).get("completion_tokens", 0),
        adapted=response.headers.get("x-pointsman-adapted", ""),
        streamed=response.status_code == 200 and "stream" in question.body,
        text="".join(said(piece) for _, piece in answers),
        note=last.get("error", {}).get("message", ""),
    )


def pieces(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream, or the one object of a whole answer."""
    if "text/event-stream" in response.headers.get("content-type", ""):
        for event in response.iter_lines():
            if event.startswith("data: {"):
                yield json.loads(event[6:])
    else:
        yield json.loads(response.read())


def said(piece: dict[str, Any]) -> str:
    """Return the text of the first choice of an answer, or of a piece of one."""
    choice: dict[str, Any] = next(iter(piece.get("choices") or []), {})
    message = choice.get("message") or choice.get("delta") or {}
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in message.get("tool_calls") or []]
    return choice.get("text") or message.get("content") or "".join(calls)
