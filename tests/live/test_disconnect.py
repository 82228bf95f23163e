"""A client that leaves frees its engine within a second, whatever it was waiting for."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import openai
import pytest

from tests.live.direct import JSON, Engine

pytestmark = [pytest.mark.live, pytest.mark.timeout(180, func_only=True)]

# The tiny model's greedy text never ends by itself: left alone, these run for seconds.
LONG: JSON = {"model": "live", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 950, "temperature": 0}
SEVERAL: JSON = LONG | {"n": 4, "temperature": 1, "seed": 1}
FLOOD: JSON = {
    "prompt": "hello",
    "max_tokens": 950,
    "n": 300,
    "ignore_eos": True,
}  # more than vLLM runs at once on a CPU


def soon(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true within that time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def assert_freed(engine: Engine) -> None:
    """The engine is idle within a second; or on a busy machine, where all takes longer, long before it would have been.

    How long it works on such a chat that is left alone is looked at only then.
    """
    left = time.monotonic()
    assert soon(lambda: engine.running() == 0, 60)
    took = time.monotonic() - left
    if took > 1:
        began = time.monotonic()
        engine.chat(LONG["messages"], max_tokens=LONG["max_tokens"], temperature=0)
        assert took < (time.monotonic() - began) / 2


@contextmanager
def request(url: str, path: str, body: JSON, **headers: str) -> Iterator[socket.socket]:
    """A request on a connection of its own, which is closed at the end, answered or not."""
    where = urlsplit(url)
    content = json.dumps(body).encode()
    lines = {"host": where.netloc, "content-type": "application/json", "content-length": str(len(content))} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection((where.hostname or "", where.port or 80), timeout=10) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content)
        yield connection


@contextmanager
def chat(gateway: str, engine: Engine, body: JSON) -> Iterator[socket.socket]:
    """The same for a chat through the gateway, pinned to the engine, which was idle before."""
    assert soon(lambda: engine.running() == 0, 10), "the engine was not idle"
    with request(gateway, "/v1/chat/completions", body, **{"x-pointsman-engine": engine.name}) as connection:
        yield connection


def test_stream_midway(gateway: str, engine: Engine) -> None:
    """A client that leaves in the middle of a stream."""
    with chat(gateway, engine, LONG | {"stream": True}) as connection:
        received = b""
        while received.count(b"data: ") < 10:
            received += connection.recv(4096)
        assert engine.running() == 1
    assert_freed(engine)


@pytest.mark.parametrize("body", [LONG, SEVERAL], ids=["one choice", "several choices"])
def test_whole_answer(gateway: str, engine: Engine, body: JSON) -> None:
    """A client that leaves while it waits for a whole answer, of one choice or several."""
    with chat(gateway, engine, body):
        assert soon(lambda: engine.running() > 0, 10)
    assert_freed(engine)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_at_once(gateway: str, engine: Engine, stream: bool) -> None:
    """A client that leaves as soon as it has asked."""
    with chat(gateway, engine, LONG | {"stream": stream}):
        pass
    time.sleep(0.2)
    assert_freed(engine)


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_before_the_first_token(gateway: str, engine: Engine, stream: bool) -> None:
    """A client that leaves while its request waits in the engine's queue, before there is a token to send."""
    with request(engine.url, "/v1/completions", FLOOD):
        assert soon(lambda: engine.running() + engine.waiting() == FLOOD["n"], 10)
        if not (queue := engine.waiting()):
            pytest.skip(f"this engine runs {FLOOD['n']} at once: nothing waits")
        with request(gateway, "/v1/chat/completions", LONG | {"stream": stream}, **{"x-pointsman-engine": "vllm"}):
            assert soon(lambda: engine.waiting() == queue + 1, 10)
        assert soon(lambda: engine.waiting() == queue, 10)
    assert soon(lambda: engine.running() == 0, 10)


def test_sdk_stream_closed(client: openai.OpenAI, engine: Engine) -> None:
    """OpenAI's client closes a stream that it has begun to read."""
    stream = client.chat.completions.create(**LONG, stream=True)
    next(stream)
    stream.close()
    assert_freed(engine)


async def test_sdk_task_cancelled(async_client: openai.AsyncOpenAI, engine: Engine) -> None:
    """A task that waits for a whole answer is cancelled."""
    task = asyncio.create_task(async_client.chat.completions.create(**LONG))
    assert await asyncio.to_thread(soon, lambda: engine.running() > 0, 10)
    task.cancel()
    await asyncio.to_thread(assert_freed, engine)
