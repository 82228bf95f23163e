"""Locust, aware of streams: time to the first token and time per token are metrics of Locust's own, beside the total.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8080 --users 50 --spawn-rate 10 --run-time 1m --headless

Environment: LOAD_MODEL (bench), LOAD_MAX_TOKENS (64), LOAD_PROMPT_WORDS (64), LOAD_KEY (an API key, if the server wants
one), LOAD_WAIT (0: seconds between two requests of a user). In Locust's table and charts `first token` is the time
until the first event with text; `per token` is the mean between tokens after it, of each answer, in milliseconds;
`whole answer` is the request. Closed loop: users wait for their answers, so a server that slows down is asked less.
What it does at a set rate is `loadtests.latency`'s to say.
"""

import json
import os
import time
from collections.abc import Iterable
from random import choice, getrandbits
from typing import Any

from locust import HttpUser, constant, events, task

PATH = "/v1/chat/completions"
TEXT = "the engine reads a prompt and writes an answer token by token while others wait for their turn"


def setting(name: str, default: str) -> str:
    """Return a setting from the environment."""
    return os.environ.get(f"LOAD_{name}", default)


def body() -> dict[str, Any]:
    """Return a request for a stream whose prompt is like no other."""
    words = TEXT.split()
    said = " ".join(choice(words) for _ in range(int(setting("PROMPT_WORDS", "64"))))
    return {
        "model": setting("MODEL", "bench"),
        "messages": [{"role": "user", "content": f"{getrandbits(64):x} {said}"}],
        "max_tokens": int(setting("MAX_TOKENS", "64")),
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def read(lines: Iterable[bytes]) -> tuple[list[float], int]:
    """Read a stream; return when each event with text came, and the tokens its usage tells.

    Raises ValueError where the stream holds an error, or ends without `[DONE]`.
    """
    came: list[float] = []
    tokens = 0
    for line in lines:
        if line == b"data: [DONE]":
            return came, tokens
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise ValueError(f"error event: {event['error']}")
        if any((choice.get("delta") or {}).get("content") for choice in event.get("choices") or []):
            came.append(time.perf_counter())
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    raise ValueError("the stream ended without [DONE]")


def tell(name: str, milliseconds: float) -> None:
    """Give Locust a metric of its own."""
    events.request.fire(  # type: ignore[no-untyped-call]
        request_type="stream", name=name, response_time=milliseconds, response_length=0, exception=None, context={}
    )


class Chat(HttpUser):
    """A user who asks, reads the answer as it comes, and asks again."""

    wait_time = constant(float(setting("WAIT", "0")))

    @task
    def ask(self) -> None:
        """Ask for one stream."""
        key = setting("KEY", "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        began = time.perf_counter()
        asking = self.client.post(
            PATH, json=body(), headers=headers, stream=True, name="whole answer", catch_response=True
        )
        with asking as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return
            try:
                came, tokens = read(answer.iter_lines())
            except ValueError as error:
                answer.failure(str(error))
                return
            # Locust's own time ends with the head of a streamed answer: a user's ends with its last event.
            answer.request_meta["response_time"] = (time.perf_counter() - began) * 1000
        if came:
            tell("first token", (came[0] - began) * 1000)
        if len(came) > 1 and tokens > 1:
            tell("per token", (came[-1] - came[0]) * 1000 / (tokens - 1))
