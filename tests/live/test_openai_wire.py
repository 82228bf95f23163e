"""The bytes on the wire, which OpenAI's client hides: the order of a stream, and what must not be in any answer."""

import json
from typing import Any

import httpx
import pytest

from tests.live.direct import JSON, Engine

pytestmark = [pytest.mark.live, pytest.mark.timeout(60, func_only=True)]

BODIES: dict[str, JSON] = {
    "/v1/chat/completions": {"model": "live", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10},
    "/v1/completions": {"model": "live", "prompt": "hello", "max_tokens": 10},
}
paths = pytest.mark.parametrize("path", BODIES)


def events(http: httpx.Client, path: str, **more: Any) -> list[str]:
    """The data of each event of a stream, as text."""
    response = http.post(path, json=BODIES[path] | {"temperature": 0, "stream": True} | more)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    return [line.removeprefix("data: ") for line in lines]


@paths
def test_stream(http: httpx.Client, path: str) -> None:
    """A stream is chunks of one id, time and model, a finish reason in the last one alone, no usage, and [DONE]."""
    *chunks, end = events(http, path)
    decoded = [json.loads(chunk) for chunk in chunks]
    assert end == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in decoded}) == 1
    assert decoded[0]["model"] == "live"
    choices = [choice for chunk in decoded for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["length"]
    assert not any("usage" in chunk for chunk in decoded)
    if "chat" in path:
        assert choices[0]["delta"]["role"] == "assistant"
        assert not any("role" in choice["delta"] for choice in choices[1:])


@paths
def test_usage_in_a_stream(http: httpx.Client, path: str) -> None:
    """With include_usage one last chunk, without choices, has the usage, and no other has."""
    *chunks, last, end = events(http, path, stream_options={"include_usage": True})
    assert end == "[DONE]"
    assert json.loads(last)["choices"] == []
    assert json.loads(last)["usage"]["completion_tokens"] == 10
    assert all(json.loads(chunk)["choices"] and json.loads(chunk).get("usage") is None for chunk in chunks)


@paths
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_nothing_names_the_engine(http: httpx.Client, engine: Engine, path: str, stream: bool) -> None:
    """No part of a body says which engine answered; the header says it, and that alone."""
    response = http.post(path, json=BODIES[path] | {"temperature": 0, "stream": stream})
    assert response.status_code == 200
    assert [word for word in engine.own_names() if word in response.text] == []
    assert response.headers["x-pointsman-engine"] == engine.name
    assert response.headers["x-request-id"]
    assert [name for name in response.headers if name.startswith(("x-compute", "x-prompt-tokens", "x-generated"))] == []
