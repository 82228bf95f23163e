"""Engines that are down, slow, broken or not what they should be: a clear error, and the next request is served."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway import config
from tests.support.clock import Clock
from tests.support.engine_answers import BUSY, DEAD, DONE, TGI_BUSY, TGI_CHUNK, TGI_FAILED, event, tgi_chunk
from tests.support.errors import is_error
from tests.support.harness import (
    ANSWER,
    CHAT,
    STREAM,
    Script,
    asking,
    begun,
    checked,
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
from tests.support.raw_client import connected

STREAMED = CHAT | {"stream": True}


# (engine, what it says on the wire, the status a client gets whole, and streamed)
REFUSALS: dict[str, tuple[str, Script, int]] = {
    "vLLM is busy": ("vllm", says(whole(BUSY, "503 Service Unavailable")), 503),
    "vLLM died": ("vllm", says(whole(DEAD, "500 Internal Server Error")), 502),
    "vLLM's key is wrong": ("vllm", says(whole({"error": "Unauthorized"}, "401 Unauthorized")), 502),
    "an upstream's rate limit": (
        "vllm",
        says(whole({"error": {"message": "slow down"}}, "429 Too Many Requests")),
        429,
    ),
    "vLLM has no such path": ("vllm", says(whole({"detail": "Not Found"}, "404 Not Found")), 404),
    "a proxy's page": ("vllm", says(whole(b"<html>Bad gateway</html>", "502 Bad Gateway", "text/html")), 502),
    "a page with status 200": ("vllm", says(whole(b"<html>Welcome</html>", "200 OK", "text/html")), 502),
    "JSON that is no answer": ("vllm", says(whole({"hello": "world"})), 502),
    "no choices": ("vllm", says(whole({"choices": []})), 502),
    "not HTTP at all": ("vllm", cuts(b"220 ftp.example.org ready\r\n"), 502),
    "nothing": ("vllm", cuts(b""), 502),
    "half a body": ("vllm", cuts(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"), 502),
    "TGI is busy": ("tgi", says(whole(TGI_BUSY, "429 Too Many Requests")), 503),
    "TGI failed": ("tgi", says(whole(TGI_FAILED, "424 Failed Dependency")), 502),
    "TGI's key is wrong": ("tgi", says(whole(b"", "401 Unauthorized")), 502),
    "vLLM where TGI should be": ("tgi", says(whole(BUSY, "503 Service Unavailable")), 503),
}
TYPES = {404: "invalid_request_error", 429: "rate_limit_error"}
# Streams that fail before the first chunk: the status can still be told.
EARLY: dict[str, tuple[str, bytes, int]] = {
    "TGI is busy": ("tgi", event({"error": {"message": "Model is overloaded", "http_status_code": 422}}) + DONE, 503),
    "TGI refuses": (
        "tgi",
        event(
            {"error": {"message": "Input validation error: `top_p` must be > 0.0 and < 1.0", "http_status_code": 422}}
        ),
        400,
    ),
    "TGI failed": ("tgi", event({"error": {"message": TGI_FAILED["error"], "http_status_code": 422}}) + DONE, 502),
    "vLLM failed": ("vllm", event(DEAD) + DONE, 502),
    "nothing but the end": ("vllm", DONE, 502),
    "nothing": ("vllm", b"", 502),
    "no JSON": ("vllm", b"data: hello\n\n", 502),
    "another's event": ("vllm", event({"type": "message_start"}), 502),
    "half an event": ("vllm", b'data: {"choices":', 502),
}
# Streams that fail after a chunk: an error event, and no [DONE].
LATE: dict[str, tuple[str, bytes]] = {
    "vLLM failed": ("vllm", b"".join(STREAM[:2]) + event(DEAD) + DONE),
    "cut": ("vllm", b"".join(STREAM[:2])),
    "half an event": ("vllm", STREAM[0] + STREAM[1][:30]),
    "garbage": ("vllm", STREAM[0] + b"data: \x00\xff\n\n"),
    "no finish reason": ("vllm", b"".join(STREAM[:2]) + DONE),
    "TGI failed": (
        "tgi",
        TGI_CHUNK + event({"error": {"message": TGI_FAILED["error"], "http_status_code": 422}}) + DONE,
    ),
    "TGI cut": ("tgi", TGI_CHUNK),
    "TGI without a finish reason": ("tgi", TGI_CHUNK + DONE),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_becomes_a_status_that_sdks_act_on(name: str, stream: bool) -> None:
    kind, script, status = REFUSALS[name]
    async with over(script, kind) as (front, behind):
        answer = await front.post(CHAT | {"stream": stream})
        assert answer.status_code == status
        error = is_error(answer.json(), TYPES.get(status, "server_error"))
        assert "EngineCore" not in error["message"]
        assert (status in (429, 503)) == ("retry-after" in answer.headers)
        if kind == "vllm":
            behind.script = says(whole(ANSWER))
            assert (await front.post(CHAT)).status_code == 200


@pytest.mark.parametrize("name", EARLY)
async def test_a_stream_that_fails_before_its_first_chunk_has_a_status(name: str) -> None:
    kind, said, status = EARLY[name]
    async with over(says(streamed(*([said] if said else []))), kind) as (front, _):
        answer = await front.post(STREAMED)
        assert answer.status_code == status
        is_error(answer.json(), "invalid_request_error" if status == 400 else "server_error")


@pytest.mark.parametrize("ends", ["properly", "by a cut"])
@pytest.mark.parametrize("name", LATE)
async def test_a_stream_that_fails_later_ends_in_an_error_event_and_without_done(name: str, ends: str) -> None:
    kind, said = LATE[name]
    script = says(streamed(said)) if ends == "properly" else cuts(head() + piece(said))
    async with over(script, kind) as (front, behind):
        answer = await front.post(STREAMED)
        assert answer.status_code == 200
        *chunks, last = events(answer.content)
        assert all("choices" in one for one in chunks)
        is_error(last, "server_error")
        assert b"[DONE]" not in answer.content
        if kind == "vllm":
            behind.script = says(streamed(*STREAM))
            assert (await front.post(STREAMED)).content.endswith(b"data: [DONE]\n\n")


async def test_an_engine_that_is_down_is_a_503_until_it_comes_up() -> None:
    async with engine(says(whole(ANSWER))) as behind:
        url = behind.url
    async with gateway(configured(url), ready=False) as front:
        answer = await front.post(CHAT)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        is_error(answer.json(), "server_error")
        ready = await front.client.get("/readyz")
        assert ready.status_code == 503
        assert "vllm" in ready.json()["missing"]
        assert (await front.client.get("/healthz")).status_code == 200
        port = int(url.rsplit(":", 1)[1])
        listening = await asyncio.start_server(behind.serve, "127.0.0.1", port)
        try:
            await until(lambda: front.services.catalog.endpoints[0].up)
            assert (await front.client.get("/readyz")).status_code == 200
            assert (await front.post(CHAT)).status_code == 200
        finally:
            listening.close()


async def test_an_engine_that_goes_down_leaves_its_model_known_and_another_engine_answers() -> None:
    async with engine(says(whole(ANSWER))) as one:
        dead = one.url
    async with engine(says(whole(ANSWER))) as two:
        models = config.from_urls({"vllm": [dead, two.url]}, "tiny", {})
        async with gateway(checked(config.Config(models=models)), ready=False) as front:
            await until(lambda: front.services.catalog.endpoints[1].up)
            front.services.catalog.endpoints[0].mark_up(front.services.catalog.endpoints[1].served, 0.0)
            front.services.catalog.refresh()
            for _ in range(10):
                answer = await front.post(CHAT)
                assert answer.status_code == 200
                assert answer.headers["x-pointsman-deployment"] == "vllm-2"


async def test_a_connection_that_the_engine_closed_while_idle_is_not_a_failure() -> None:
    """vLLM closes idle connections; the request that meets one is sent again on a new one."""
    async with over(says(whole(ANSWER)), clock=Clock()) as (front, behind):
        for _ in range(3):
            assert (await front.post(CHAT)).status_code == 200

            async def once(asked: Any, writer: asyncio.StreamWriter) -> None:
                behind.script = says(whole(ANSWER))
                writer.close()
                raise ConnectionError

            behind.script = once
            assert (await front.post(CHAT)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("before", [b"", head() + piece(STREAM[0])], ids=["before anything", "in the answer"])
async def test_a_client_that_leaves_ends_the_engines_work_at_once(stream: bool, before: bytes) -> None:
    async with over(hangs(before if stream else b"")) as (front, behind):
        body = msgspec.json.encode(CHAT | {"stream": stream})
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await until(lambda: behind.asked)
        await settled()
        assert behind.left == 0
        writer.close()
        await until(lambda: behind.left == 1)
        await until(lambda: front.services.sweep.open == set())


async def test_a_client_that_leaves_ends_all_of_a_fan_out() -> None:
    async with over(hangs(), "tgi") as (front, behind):
        body = msgspec.json.encode(CHAT | {"n": 3, "temperature": 1, "stream": True})
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: len(behind.asked) == 3)
        writer.close()
        await until(lambda: behind.left == 3)


async def test_a_silent_engine_is_bridged_by_comments_and_then_an_error_is_an_event() -> None:
    clock, times = Clock(), config.TimeoutsConfig(keep_alive=0.125, first_event=0.6)
    async with over(hangs(head()), clock=clock, timeouts=times) as (front, behind), connected(front.port) as client:
        client.send(STREAMED)
        await until(lambda: behind.asked)
        await settled()  # the head has come
        clock.now += 0.125
        answer = await client.head()
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for _ in range(3):
            assert await client.chunk() == b": keep-alive\n\n"
            clock.now += 0.125
        assert await client.chunk() == b": keep-alive\n\n"
        clock.now += 0.11  # 0.61 in all
        (last,) = events(await client.chunk())
        assert is_error(last, "server_error")["code"] == "engine_timeout"
        assert await client.chunk() == b""
        await until(lambda: behind.left == 1)


async def test_comments_bridge_a_silence_in_the_middle_and_the_stream_goes_on() -> None:
    go = asyncio.Event()

    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]))
        await go.wait()
        writer.write(piece(b"".join(STREAM[1:])) + b"0\r\n\r\n")

    clock, times = Clock(), config.TimeoutsConfig(keep_alive=0.1)
    async with over(slow, clock=clock, timeouts=times) as (front, _), connected(front.port) as client:
        client.send(STREAMED)
        await client.head()
        (first,) = events(await client.chunk())
        assert first["choices"]
        clock.now += 1
        assert await client.chunk() == b": keep-alive\n\n"
        go.set()
        assert (await client.chunk()).endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("stream", "script", "times"),
    [
        (True, hangs(head()), config.TimeoutsConfig(first_event=5, keep_alive=10)),
        (False, hangs(), config.TimeoutsConfig(total=5, keep_alive=10)),
        (True, hangs(), config.TimeoutsConfig(total=5, keep_alive=10)),
    ],
    ids=["no first event", "no answer", "no head"],
)
async def test_an_engine_that_takes_too_long_is_a_504(
    stream: bool, script: Script, times: config.TimeoutsConfig
) -> None:
    clock = Clock()
    async with over(script, clock=clock, timeouts=times) as (front, behind):
        async with asking(front, CHAT | {"stream": stream}) as asked:
            await until(lambda: behind.asked)
            await settled()  # a head has come
            clock.now += 6
            answer = await asked
        assert answer.status_code == 504
        assert is_error(answer.json(), "server_error")["code"] == "engine_timeout"
        await until(lambda: behind.left == 1)


async def test_a_stream_that_stalls_between_events_ends_in_an_error_event() -> None:
    clock, times = Clock(), config.TimeoutsConfig(between_events=5, keep_alive=10)
    async with over(hangs(head() + piece(STREAM[0])), clock=clock, timeouts=times) as (front, _):
        async with asking(front, STREAMED) as asked:
            await until(lambda: begun(front))
            await settled()  # the next event is waited for
            clock.now += 6
            first, last = events((await asked).content)
        assert first["choices"]
        assert is_error(last, "server_error")["code"] == "engine_timeout"


async def test_a_fan_out_of_which_one_fails_is_one_error_and_leaves_nothing_running() -> None:
    async def one_fails(asked: Any, writer: asyncio.StreamWriter) -> None:
        if asked.json["seed"] == 8:
            writer.write(whole(TGI_BUSY, "429 Too Many Requests"))
        else:
            await hangs(head() + piece(TGI_CHUNK))(asked, writer)

    async with over(one_fails, "tgi") as (front, behind):
        answer = await front.post(STREAMED | {"n": 3, "temperature": 1, "seed": 7})
        assert answer.status_code == 503
        await until(lambda: behind.left == 2 * front.services.config.retries.attempts)


async def test_tgi_is_asked_again_with_what_room_there_is() -> None:
    given = "Given: 511 `inputs` tokens and 1000 `max_new_tokens`"
    room = f"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1024. {given}"
    good = tgi_chunk("length")

    async def first_refuses(asked: Any, writer: asyncio.StreamWriter) -> None:
        refused = event({"error": {"message": room, "http_status_code": 422}}) + DONE
        writer.write(streamed(refused if len(behind.asked) == 1 else good + DONE))

    async with over(first_refuses, "tgi") as (front, behind):
        answer = await front.post(STREAMED | {"max_tokens": 1000})
        assert answer.status_code == 200
        assert [asked.json["max_tokens"] for asked in behind.asked] == [1000, 513]


async def test_many_events_in_one_read_are_one_write() -> None:
    burst = [chunk({"content": str(i)}) for i in range(500)] + [chunk({}, "stop"), DONE]
    async with over(says(streamed(b"".join(burst)))) as (front, _):
        sent = msgspec.json.encode(STREAMED)
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent)
        await reader.readuntil(b"\r\n\r\n")
        sizes, body = [], b""
        while size := int(await reader.readuntil(b"\r\n"), 16):  # each write of uvicorn's is one HTTP chunk
            sizes.append(size)
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        writer.close()
        assert len(events(body)) == 502
        assert len(sizes) < 50, "the events of one read were written one by one"


async def test_a_whole_answer_that_becomes_unreadable_half_way_is_a_502_and_not_a_long_wait() -> None:
    async def breaks(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head("application/json") + piece(b'{"id"'))
        await writer.drain()
        await settled()  # what came before has been taken
        writer.write(b"zz\r\n\r\n")
        await writer.drain()
        writer.close()
        raise ConnectionError

    async with over(breaks) as (front, _):
        answer = await front.post(CHAT)
        assert answer.status_code == 502
        assert is_error(answer.json(), "server_error")["code"] == "engine_error"


async def test_a_model_that_writes_no_tool_call_is_not_held_against_its_engine() -> None:
    """TGI says 422 to what a model wrote where a call was asked for (CONTRACT.md 3.5)."""
    empty = {"error": "Tool error: missing field `function`", "error_type": "tool_error"}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    asked = CHAT | {"tools": [tool], "tool_choice": "required"}
    async with over(says(whole(empty, "422 Unprocessable Entity")), "tgi") as (front, behind):
        for count in range(1, 11):
            answer = await front.post(asked)
            assert answer.status_code == 502
            assert len(behind.asked) == count  # greedy: the same again would come to the same
        assert front.services.catalog.endpoints[0].breaker.open_until == 0
