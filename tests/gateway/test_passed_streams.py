"""Streams on passed paths: whole events, signs of life between them alone, the client's names in them."""

import asyncio
from typing import Any

import pytest

from gateway import config
from gateway.api.passthrough import frames
from tests.support.clock import Clock
from tests.support.harness import (
    Asked,
    Gateway,
    Script,
    asking,
    begun,
    checked,
    cuts,
    engine,
    gateway,
    head,
    leave,
    over,
    piece,
    says,
    settled,
    streamed,
    until,
    whole,
)
from tests.support.passed import (
    COMPLETED,
    CREATED,
    LAST,
    MESSAGES,
    PIECE,
    RESPONSES,
    STARTED,
    STOPPED,
    STREAMED,
    TEXT,
    event,
    heard,
    response,
)

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
SIGNS = {MESSAGES: PING, RESPONSES: b": keep-alive\n\n"}
MESSAGE = STARTED + TEXT + LAST + STOPPED
KEPT = config.TimeoutsConfig(keep_alive=0.1, between_events=1000, first_event=1000)


def paused(*said: bytes) -> tuple[Script, asyncio.Semaphore]:
    """Return a script that writes one piece each time that the semaphore is released."""
    gate = asyncio.Semaphore(0)

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for one in said:
            await gate.acquire()
            writer.write(one)
            await writer.drain()

    return script, gate


@pytest.mark.parametrize("split", [b"event: message_start\n", b"event: message_start\ndata: {", b""])
@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_signs_of_life_never_stand_inside_an_event(path: str, split: bytes) -> None:
    """The engine says nothing, then the beginning of an event, then the rest; the client hears signs all the while."""
    before, rest = STARTED.split(split, 1) if split else (b"", STARTED)
    script, gate = paused(head(), piece(split or b": wait\n\n"), piece(rest + TEXT), piece(b"event: "), b"")
    clock = Clock()
    async with over(script, clock=clock, timeouts=KEPT) as (front, behind):
        came = bytearray()
        reading = asyncio.ensure_future(collect(front, path, came))
        await until(lambda: behind.asked)
        for signs in range(1, 5):
            gate.release()
            await settled()
            clock.now += 1
            await until(lambda: came.count(SIGNS[path]) >= signs)  # noqa: B023 - it is awaited here
        await leave(reading)
        assert before == b""
        names = [one.name for one in heard(bytes(came)) if one.name != "ping"]
        assert names == ["message_start", "content_block_delta"]
        assert bytes(came).replace(SIGNS[path], b"").removeprefix(b": wait\n\n") == STARTED + TEXT


async def collect(front: Gateway, path: str, came: bytearray) -> None:
    async with front.client.stream("POST", path, json=STREAMED) as answer:
        async for data in answer.aiter_raw():
            came.extend(data)


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
async def test_an_engine_that_says_nothing_at_all_is_waited_for_with_signs_of_life(path: str) -> None:
    script, gate = paused(streamed(MESSAGE if path == MESSAGES else CREATED + PIECE + COMPLETED))
    clock = Clock()
    async with over(script, clock=clock, timeouts=KEPT) as (front, behind):
        async with asking(front, STREAMED, path) as answering:
            await until(lambda: behind.asked)
            clock.now += 1
            await until(lambda: begun(front))
            gate.release()
            answer = await answering
        assert answer.content.startswith(SIGNS[path])
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert heard(answer.content)[-1].name in ("message_stop", "response.completed")


async def test_a_stream_without_a_dialect_of_its_own_is_kept_alive_by_comments() -> None:
    script, gate = paused(streamed(b"data: [DONE]\n\n"))
    clock = Clock()
    form: Any = {"model": "tiny", "stream": "true"}
    async with over(script, clock=clock, timeouts=KEPT) as (front, behind):
        files = {"file": ("a.wav", b"0", "audio/wav")}
        asked = asyncio.ensure_future(front.client.post("/v1/audio/transcriptions", data=form, files=files))
        await until(lambda: behind.asked)
        clock.now += 1
        await until(lambda: begun(front))
        gate.release()
        assert (await asked).content == b": keep-alive\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
async def test_events_comments_and_pings_pass_as_they_come_however_they_are_split(size: int, end: bytes) -> None:
    said = (b": hello\n\n" + STARTED + event("ping") + TEXT + b": x\n\n" + LAST + STOPPED).replace(b"\n", end)
    pieces = [said[begin : begin + size] for begin in range(0, len(said), size)]
    async with over(says(streamed(*pieces))) as (front, _):
        assert (await front.post(STREAMED, MESSAGES)).content == said


async def test_an_event_beyond_the_bound_passes_in_time_and_is_ended_before_the_error() -> None:
    large = event("content_block_delta", delta={"text": "x" * frames.LIMIT})[: frames.LIMIT + 10]
    script, gate = paused(head() + piece(STARTED) + piece(large))
    clock = Clock()
    async with over(script, clock=clock, timeouts=KEPT) as (front, behind):
        gate.release()
        async with front.client.stream("POST", MESSAGES, json=STREAMED) as answer:
            came = bytearray()
            async for data in answer.aiter_raw():
                came += data
                if len(came) > frames.LIMIT:
                    clock.now += 1  # there is no sign of life inside the event
                    await settled()
                    behind.stop()
    assert PING not in came
    assert b"\n\nevent: error\ndata: " in came


MAPPED = [
    (MESSAGES, b'event: message_start\ndata: {"type" : "message_start", "message" : {"model" : "own" , "id":"m"}}\n\n'),
    (MESSAGES, b'event: message_start\ndata:{"message":{"model":"own"}}\n\n'),
    (MESSAGES, b'data: {"message":\ndata: {"model":"own"}}\nevent: message_start\n\n'),
    (RESPONSES, b'event: response.completed\ndata: {"response": {"model": "own", "id": "resp_1"}}\n\n'),
    (RESPONSES, b'event: x\r\ndata: {"model"\t:\t"own"}\r\n\r\n'),
    (RESPONSES, b'event: response.completed\ndata: {"response": {"model": "own", "text": "\\ud83d"}}\n\n'),
]


@pytest.mark.parametrize(("path", "said"), MAPPED)
async def test_the_models_name_is_the_clients_wherever_it_stands_in_an_event(path: str, said: bytes) -> None:
    async with engine(says(streamed(said))) as behind:
        models = config.from_urls({"vllm": [behind.url]}, "mine", {})
        async with gateway(checked(config.Config(models=models))) as front:
            answer = await front.post(STREAMED | {"model": "mine"}, path)
            event_ = heard(answer.content)[0]
            found = event_.data.get("message") or event_.data.get("response") or event_.data
            assert found["model"] == "mine"
            assert event_.name == heard(said)[0].name


async def test_words_of_the_answer_are_left_alone() -> None:
    words = event("content_block_delta", delta={"type": "text_delta", "text": '"model": "tiny", "error": {"a": 1}'})
    said = STARTED + words + LAST + STOPPED
    async with over(says(streamed(said))) as (front, _):
        assert (await front.post(STREAMED, MESSAGES)).content == said


async def test_half_of_a_character_in_the_last_event_is_no_cut() -> None:
    last = event("response.completed", response=response(output=[{"text": "a\ud83d"}]))
    async with over(says(streamed(CREATED, last))) as (front, _):
        *_, told = heard((await front.post(STREAMED, RESPONSES)).content)
        assert (told.name, told.data["response"]["output"]) == ("response.completed", [{"text": "a\ufffd"}])


async def test_an_answer_that_is_whole_where_a_stream_was_asked_for_passes_whole() -> None:
    async with over(says(whole({"type": "message", "model": "tiny"}))) as (front, _):
        answer = await front.post(STREAMED, MESSAGES)
        assert (answer.status_code, answer.json()) == (200, {"type": "message", "model": "tiny"})


async def test_a_cut_event_is_not_passed() -> None:
    async with over(cuts(head() + piece(STARTED + b"event: content_block_delta\n"))) as (front, _):
        answer = await front.post(STREAMED, MESSAGES)
        assert answer.content.startswith(STARTED + b"event: error\ndata: ")
