"""Streams in trouble: clients that do not read, comments in between, times, and streams that are passed on."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from gateway import config
from tests.support.clock import Clock
from tests.support.errors import is_error
from tests.support.harness import (
    ANSWER,
    CHAT,
    STREAM,
    Gateway,
    asking,
    begun,
    chunk,
    configured,
    cuts,
    engine,
    events,
    gateway,
    hangs,
    head,
    over,
    piece,
    says,
    settled,
    streamed,
    until,
    whole,
)
from tests.support.passed import heard

STREAMED = CHAT | {"stream": True}


async def raw(front: Gateway, body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a chat on a connection of its own."""
    sent = msgspec.json.encode(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=2**10)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent)
    await writer.drain()
    return reader, writer


@dataclass
class Count:
    """How often something has been done."""

    now: int = 0


async def test_a_client_that_does_not_read_is_not_called_the_engines_silence_and_ends_at_the_total() -> None:
    clock, count = Clock(), Count()

    async def endless(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        while True:
            writer.write(piece(chunk({"content": "x" * 10_000})))
            await writer.drain()
            count.now += 1

    times = config.TimeoutsConfig(between_events=10, total=100, keep_alive=0.1)
    async with over(endless, clock=clock, timeouts=times) as (front, behind):
        _, writer = await raw(front, STREAMED)
        try:
            await until(lambda: count.now)
            await settled(lambda: count.now)  # all buffers are full: the gateway waits for the client
            clock.now += 50
            await settled(lambda: front.services.sweep.open)
            assert front.services.sweep.open, "the engine was blamed for the client's slowness"
            clock.now += 51
            await until(lambda: behind.left == 1)
            await until(lambda: front.services.sweep.open == set())
        finally:
            writer.transport.abort()


async def test_a_client_that_reads_slowly_gets_everything() -> None:
    many = [chunk({"content": "x" * 1000, "role": str(i)}) for i in range(600)]
    async with over(says(streamed(*many, chunk({}, "stop"), b"data: [DONE]\n\n"))) as (front, _):
        reader, writer = await raw(front, STREAMED)
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += await reader.read(50_000)
            await asyncio.sleep(0.001)
        assert received.count(b"data: ") == 602
        writer.close()


@pytest.mark.parametrize(
    ("keep_alive", "first_event", "commented"),
    [(0.1, 5, True), (5, 0.1, False), (0.1, 0.1, False)],
    ids=["the comment is first", "the deadline is first", "both at once"],
)
async def test_a_deadline_and_a_comment_make_one_answer(
    keep_alive: float, first_event: float, commented: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    times = config.TimeoutsConfig(keep_alive=keep_alive, first_event=first_event)
    async with (
        over(hangs(head()), clock=clock, timeouts=times) as (front, behind),
        asking(front, STREAMED) as answering,
    ):
        await until(lambda: behind.asked)
        await settled()  # the head has come
        clock.now += 1
        if commented:
            await until(lambda: begun(front))
            clock.now += 10
        answer = await answering
    if commented:
        assert (answer.status_code, events(answer.content)[0]) == (200, ": keep-alive")
    else:
        assert answer.status_code == 504
    error = events(answer.content)[-1] if commented else answer.json()
    assert is_error(error, "server_error")["code"] == "engine_timeout"
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("stream", "kept_alive"), [(False, False), (True, False), (True, True)], ids=["whole", "stream", "kept alive"]
)
@pytest.mark.parametrize("n", [1, 3])
async def test_the_overhead_is_the_gateways_own_time_alone(
    n: int, stream: bool, kept_alive: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """However long the engines take, and however many are asked at once: here no time passes but the engines'."""
    clock, all_asked, count = Clock(), asyncio.Event(), Count()

    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        count.now += 1
        if count.now == n:
            clock.now += 300
            all_asked.set()
        await all_asked.wait()
        if kept_alive:
            await until(lambda: begun(front))
        choice = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "logprobs": None}
        delta = {"delta": {"role": "assistant", "content": "x"}, "finish_reason": "stop", "logprobs": None}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        event = b"data: " + json.dumps({"choices": [delta], "usage": usage}).encode() + b"\n\n"
        whole_answer = whole({"choices": [choice], "usage": usage})
        writer.write(streamed(event, b"data: [DONE]\n\n") if asked.json.get("stream") else whole_answer)

    times = config.TimeoutsConfig(keep_alive=0.1 if kept_alive else 1000)
    async with over(slow, "tgi", clock=clock, timeouts=times) as (front, _):
        answer = await front.post(CHAT | {"n": n, "temperature": 1, "stream": stream})
        assert answer.status_code == 200
        assert answer.content.startswith(b": keep-alive\n\n") == kept_alive
        assert answer.headers.get("x-pointsman-overhead-ms") == (None if kept_alive else "0.000")
        front.services.records.flush()
        assert '"overhead_ms":0.0,' in capfd.readouterr().err


async def test_a_passed_stream_that_is_cut_ends_in_an_error_event() -> None:
    first = b'event: response.created\ndata: {"type": "response.created"}\n\n'
    async with over(cuts(head() + piece(first))) as (front, _):
        answer = await front.post({"model": "tiny", "input": "x", "stream": True}, "/v1/responses")
        assert answer.status_code == 200
        assert answer.content.startswith(first)
        assert heard(answer.content)[-1].name == "error"


async def test_a_passed_stream_is_kept_alive_while_it_is_silent() -> None:
    clock, commented = Clock(), asyncio.Event()

    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        await commented.wait()
        writer.write(piece(b"data: 1\n\n") + b"0\r\n\r\n")

    times = config.TimeoutsConfig(keep_alive=0.1, between_events=0.1, first_event=5)
    async with over(slow, clock=clock, timeouts=times) as (front, behind):
        body = {"model": "tiny", "input": "x", "stream": True}
        async with asking(front, body, "/v1/responses") as answering:
            await until(lambda: behind.asked)
            clock.now += 1
            await until(lambda: begun(front))
            commented.set()
            answer = await answering
        assert answer.content == b": keep-alive\n\ndata: 1\n\n"


async def test_a_passed_path_goes_to_an_engine_that_can_be_reached() -> None:
    async with engine(says(whole({"ok": 1}))) as one, engine(says(whole({"ok": 2}))) as two:
        given = configured(one.url)
        models = config.from_urls({"vllm": [one.url, two.url]}, "tiny", {})
        async with gateway(msgspec.structs.replace(given, models=models)) as front:
            one.stop()
            for _ in range(10):
                answer = await front.post({"model": "tiny", "input": "x"}, "/v1/responses")
                assert answer.json() == {"ok": 2}


async def test_a_passed_answer_names_the_model_as_the_client_did_in_streams_too() -> None:
    created = b'data: {"type":"response.completed","response":{"model":"own","id":"r"}}\n\n'
    async with engine(says(streamed(created[:20], created[20:]))) as behind:
        models = config.from_urls({"vllm": [behind.url]}, "mine", {})
        async with gateway(msgspec.structs.replace(configured(behind.url), models=models)) as front:
            for name in ("mine", ""):
                answer = await front.post({"model": name, "input": "x", "stream": True}, "/v1/responses")
                (event,) = events(answer.content)
                assert event["response"] == {"model": "mine", "id": "r"}


def reading(front: Gateway) -> int:
    """Return on how many connections an answer of an engine is being read."""
    return sum(one.busy for one in front.services.upstream.connections)


async def test_an_engine_stays_in_use_after_a_stream_whose_end_came_late() -> None:
    """The connection is given back, although `[DONE]` and the end of the body came apart."""
    connections, read = set(), asyncio.Event()

    async def script(asked: Any, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        writer.write(head() + b"".join(piece(one) for one in STREAM))
        await read.wait()
        writer.write(b"0\r\n\r\n")

    async with over(script) as (front, _):
        for _ in range(5):
            assert (await front.post(STREAMED)).status_code == 200
            assert reading(front) == 1, "the rest of the body is waited for"
            read.set()
            await until(lambda: not reading(front))
            read.clear()
        assert len(connections) == 1


async def test_a_choice_that_never_finished_is_an_error_though_the_stream_says_done() -> None:
    first, second = chunk({"content": "a"}, "stop"), chunk({"content": "b"}).replace(b'"index": 0', b'"index": 1')
    async with over(says(streamed(first, second, b"data: [DONE]\n\n"))) as (front, _):
        answer = await front.post(STREAMED | {"n": 2, "temperature": 1})
        is_error(events(answer.content)[-1], "server_error")


async def test_an_answer_of_a_lesser_openai_engine_is_taken() -> None:
    """No `content` beside tool calls, no finish reason before the last chunk, empty events in between."""
    tool = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = ANSWER | {
        "choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": [tool]}, "finish_reason": "tool_calls"}]
    }
    async with over(says(whole(said))) as (front, behind):
        message = (await front.post(CHAT)).json()["choices"][0]["message"]
        assert message["content"] is None
        assert message["tool_calls"][0]["function"]["name"] == "f"
        plain = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
        behind.script = says(streamed(plain, b"data:\n\n", chunk({}, "stop"), b"data: [DONE]\n\n"))
        answer = await front.post(STREAMED)
        assert events(answer.content)[0]["choices"][0]["finish_reason"] is None
        assert answer.content.endswith(b"[DONE]\n\n")
