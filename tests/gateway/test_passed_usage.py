"""What an engine has worked on a passed path is counted and debited, however the answer comes and ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from backends import estimate
from tests.support.harness import (
    Asked,
    Engine,
    Gateway,
    Script,
    asking,
    begun,
    cuts,
    head,
    leave,
    over,
    piece,
    says,
    streamed,
    until,
    whole,
)
from tests.support.keys import GOOD, changed, ring
from tests.support.passed import (
    ASKED,
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
    response,
)

LIMIT = 1_000_000
CACHED = {"input_tokens": 2, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 3, "output_tokens": 4}


@asynccontextmanager
async def keyed(script: Script) -> AsyncIterator[tuple[Gateway, Engine]]:
    """Run the gateway over an engine, and ask it with a key that has a limit of tokens."""
    async with over(script) as (front, behind):
        front.services.keyring = ring(changed(tokens_per_minute=LIMIT))
        front.client.headers["authorization"] = f"Bearer {GOOD}"
        yield front, behind


async def debited(front: Gateway) -> int:
    """Return what the key has been debited: the next answer says what is left."""
    await until(lambda: not front.services.sweep.open)
    return LIMIT - int((await front.client.get("/v1/models")).headers["x-ratelimit-remaining-tokens"])


def told(**usage: Any) -> dict[str, Any]:
    return {"id": "x", "model": "tiny", "usage": usage}


WHOLE: list[tuple[str, dict[str, Any], int]] = [
    (RESPONSES, response(), 16),
    (RESPONSES, response(output=[{"text": "\ud83d"}]), 16),
    (MESSAGES, told(input_tokens=12, output_tokens=4), 16),
    (MESSAGES, told(**CACHED), 16),
    ("/v1/embeddings", told(prompt_tokens=16, total_tokens=16), 16),
    ("/v1/embeddings", told(prompt_tokens=16, total_tokens=16, completion_tokens=0), 16),
    ("/v1/rerank", told(prompt_tokens=16, total_tokens=16), 16),
    ("/rerank", told(total_tokens=16), 16),
    ("/v2/rerank", told(prompt_tokens=16, total_tokens=16), 16),
    ("/v1/score", told(prompt_tokens=16, total_tokens=16, completion_tokens=0), 16),
    ("/score", told(prompt_tokens=16, total_tokens=16), 16),
    ("/pooling", told(prompt_tokens=16, total_tokens=16), 16),
    ("/classify", told(prompt_tokens=16, total_tokens=16), 16),
    ("/v2/embed", {"meta": {"billed_units": {"input_tokens": 16}}}, 16),
    ("/tokenize", {"count": 500, "tokens": [1]}, 0),
    ("/detokenize", {"prompt": "x"}, 0),
    ("/v1/responses/input_tokens", {"object": "response.input_tokens", "input_tokens": 500}, 0),
    ("/v1/messages/count_tokens", {"input_tokens": 500}, 0),
]


@pytest.mark.parametrize(("path", "answer", "tokens"), WHOLE, ids=[f"{path}-{n}" for n, (path, *_) in enumerate(WHOLE)])
async def test_a_whole_answer_is_debited_what_it_says(path: str, answer: dict[str, Any], tokens: int) -> None:
    async with keyed(says(whole(answer))) as (front, _):
        assert (await front.post(ASKED, path)).status_code == 200
        assert await debited(front) == tokens


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES, "/v1/embeddings", "/v1/rerank"])
@pytest.mark.parametrize("answer", [{"id": "x"}, {"usage": None}, {"usage": {}}, {"usage": "much"}, {"usage": [1]}])
async def test_an_answer_that_does_not_say_is_debited_an_estimate_of_its_prompt(path: str, answer: Any) -> None:
    async with keyed(says(whole(answer))) as (front, behind):
        assert (await front.post(ASKED, path)).status_code == 200
        assert 0 < await debited(front) <= len(behind.asked[0].body) // 3


async def test_a_sound_is_debited_what_its_answer_says() -> None:
    for usage, tokens in (({"type": "duration", "seconds": 9}, 0), ({"input_tokens": 12, "output_tokens": 4}, 16)):
        async with keyed(says(whole({"text": "x", "usage": usage}))) as (front, _):
            form: Any = {"model": "tiny"}
            for path in ("/v1/audio/transcriptions", "/v1/audio/translations"):
                answer = await front.client.post(path, data=form, files={"file": ("a.wav", b"0" * 999, "audio/wav")})
                assert answer.status_code == 200
            assert await debited(front) == 2 * tokens


INCOMPLETE = event("response.incomplete", response=response(), sequence_number=9)
FAILED = event("response.failed", response=response(error={"code": "server_error", "message": "boom"}))
CHUNKS = b'data: {"choices": [{"delta": {"content": "a"}}], "model": "tiny"}\n\n' * 3

STREAMS = [
    (RESPONSES, [CREATED, PIECE, COMPLETED], 16),
    (RESPONSES, [CREATED, PIECE * 9, COMPLETED], 16),
    (RESPONSES, [CREATED, PIECE, INCOMPLETE], 16),
    (RESPONSES, [CREATED, PIECE, FAILED], 16),
    (MESSAGES, [STARTED, TEXT, LAST, STOPPED], 16),
    (MESSAGES, [STARTED, TEXT * 9, LAST, STOPPED], 16),
    (MESSAGES, [STARTED, TEXT, event("message_delta", delta={}, usage=CACHED), STOPPED], 16),
    (MESSAGES, [STARTED, TEXT * 9], 12 + 9),  # cut
    (MESSAGES, [STARTED, TEXT, TEXT * 4, TEXT * 4], 12 + 9),
    (MESSAGES, [STARTED, TEXT * 2, event("error", error={"type": "api_error", "message": "x"})], 12 + 2),
]


@pytest.mark.parametrize(("path", "events", "tokens"), STREAMS)
async def test_a_stream_is_debited_what_its_events_say(path: str, events: list[bytes], tokens: int) -> None:
    async with keyed(says(streamed(*events))) as (front, _):
        assert (await front.post(STREAMED, path)).status_code == 200
        assert await debited(front) == tokens


async def test_pieces_are_counted_where_nothing_is_said_of_usage() -> None:
    async with keyed(says(streamed(CHUNKS, b"data: [DONE]\n\n"))) as (front, _):
        form: Any = {"model": "tiny", "stream": "true"}
        files = {"file": ("a.wav", b"0", "audio/wav")}
        answer = await front.client.post("/v1/audio/transcriptions", data=form, files=files)
        assert answer.content.endswith(b"data: [DONE]\n\n")
        assert await debited(front) == 3


CUT = [(RESPONSES, CREATED + PIECE * 20, 20), (MESSAGES, STARTED + TEXT * 20, 12 + 20)]


@pytest.mark.parametrize(("path", "said", "least"), CUT)
async def test_a_stream_that_the_engine_cuts_is_debited_what_was_delivered(path: str, said: bytes, least: int) -> None:
    async with keyed(cuts(head() + piece(said))) as (front, behind):
        assert (await front.post(STREAMED, path)).status_code == 200
        assert least <= await debited(front) <= least + estimate.of_body(behind.asked[0].body) + 10


@pytest.mark.parametrize(("path", "said", "least"), CUT)
async def test_a_stream_that_the_client_leaves_is_debited_what_was_delivered(
    path: str, said: bytes, least: int
) -> None:
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(said))
        await asyncio.Event().wait()

    async with keyed(script) as (front, behind):
        async with asking(front, STREAMED, path) as answering:
            await until(lambda: begun(front))
            await leave(answering)
        assert least <= await debited(front) <= least + estimate.of_body(behind.asked[0].body) + 10


async def test_the_log_and_the_metrics_say_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    async with over(says(streamed(STARTED, TEXT, LAST, STOPPED))) as (front, _):
        await front.post(STREAMED, MESSAGES)
        await until(lambda: not front.services.sweep.open)
        text = (await front.client.get("/metrics")).text
        (read,) = [line for line in text.splitlines() if "token_usage_sum" in line and 'type="input"' in line]
        (written,) = [line for line in text.splitlines() if "token_usage_sum" in line and 'type="output"' in line]
        assert (read.split()[-1], written.split()[-1]) == ("12.0", "4.0")
    assert '"prompt_tokens":12,"completion_tokens":4,' in capsys.readouterr().err
