"""One request of a load test to an OpenAI-compatible server, whole or streamed, and when its parts came."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATH = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
PATIENCE = aiohttp.ClientTimeout(total=600)


class AskFailed(Exception):
    """No answer: the status, or the name of the error, is its only argument."""


@dataclass
class Answered:
    """When an answer came, in seconds of `time.perf_counter`, and how many tokens it had, as its usage says."""

    sent: float
    events: list[float] = field(default_factory=list)  # of a stream: when each event with text came
    ended: float = 0.0
    tokens: int = 0

    @property
    def first_ms(self) -> float | None:
        """The time to the first token, in milliseconds; None of a whole answer."""
        return (self.events[0] - self.sent) * 1000 if self.events else None

    @property
    def token_ms(self) -> float | None:
        """The mean time between tokens after the first, in milliseconds: by the usage, as an event may hold several."""
        if not self.events or self.tokens < 2:
            return None
        return (self.events[-1] - self.events[0]) * 1000 / (self.tokens - 1)

    def tokens_within(self, begin: float, end: float) -> float:
        """Return how many of its tokens came between two times, as if they had come evenly."""
        since, until = (self.events[0], self.events[-1]) if len(self.events) > 1 else (self.sent, self.ended)
        if until <= since:
            return float(self.tokens) if begin <= since < end else 0.0
        return self.tokens * max(0.0, min(until, end) - max(since, begin)) / (until - since)


def session() -> aiohttp.ClientSession:
    """Return a session without a bound on its connections."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=PATIENCE)


async def ask(client: aiohttp.ClientSession, url: str, body: dict[str, Any], path: str = PATH) -> Answered:
    """Send one request; return what came. Raises AskFailed."""
    answered = Answered(time.perf_counter())
    try:
        async with client.post(f"{url}{path}", json=body) as answer:
            if answer.status != 200:
                raise AskFailed(str(answer.status))
            if body.get("stream"):
                await _read_stream(answer.content, answered)
            else:
                answered.tokens = json.loads(await answer.read())["usage"]["completion_tokens"]
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError) as error:
        raise AskFailed(type(error).__name__) from error
    answered.ended = time.perf_counter()
    return answered


async def _read_stream(lines: aiohttp.StreamReader, answered: Answered) -> None:
    async for line in lines:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise AskFailed("error event")
        if has_text(event):
            answered.events.append(time.perf_counter())
        if usage := event.get("usage"):
            answered.tokens = usage["completion_tokens"]


def has_text(event: dict[str, Any]) -> bool:
    """Say whether an event of a stream brings text, and not only a role, a finish reason or the usage."""
    for choice in event.get("choices") or []:
        delta = choice.get("delta") or choice
        if any(delta.get(name) for name in ("content", "text", "reasoning", "reasoning_content", "tool_calls")):
            return True
    return False
