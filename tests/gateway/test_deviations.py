"""An engine that does not speak just as OpenAI defines it is read all the same: one request, no fault of anybody's."""

import json
from typing import Any

import msgspec
import pytest

from gateway import config
from tests.support.deviations import DONE, ENDS, EVENTS, FIELDS, HELLO, PLAIN, STOP, USAGE, WHOLE, as_texts, event, said
from tests.support.errors import is_error
from tests.support.harness import (
    CHAT,
    CHAT_PATH,
    TEXT,
    Engine,
    Gateway,
    Script,
    checked,
    cuts,
    engine,
    events,
    gateway,
    hangs,
    head,
    over,
    piece,
    says,
    streamed,
    whole,
)

ODD = FIELDS | EVENTS
CHOSEN = ["delta null", "usage without choices", "index absent", "a ping with data", "an empty object", "CRLF"]
ONCE = config.BreakerConfig(failures=1)  # which opens at the first fault
STREAMED = CHAT | {"stream": True}
JSON_TYPE, EVENT_TYPE = "application/json", "text/event-stream"


async def read(front: Gateway, behind: Engine, body: dict[str, Any], path: str = CHAT_PATH) -> tuple[str, str | None]:
    """Ask twice; return the text and the finish reason that a client reads. Nobody is to be blamed."""
    for asked in (1, 2):
        answer = await front.post(body, path)
        assert answer.status_code == 200, answer.text
        assert len(behind.asked) == asked
    assert [one.breaker.open_until for one in front.services.catalog.endpoints] == [0]
    if not body.get("stream"):
        (choice,) = answer.json()["choices"]
        return choice["message"]["content"] if "messages" in body else choice["text"], choice["finish_reason"]
    *chunks, last = events(answer.content)
    assert last == "data: [DONE]"
    choices = [choice for one in chunks for choice in one["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    texts = [choice["delta"].get("content") or "" if "messages" in body else choice["text"] for choice in choices]
    return "".join(texts), reasons[0] if len(reasons) == 1 else None


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_a_chats_stream_that_is_odd_is_read(kind: str) -> None:
    async with over(says(b""), kind, breaker=ONCE) as (front, behind):
        for name in CHOSEN:
            behind.asked.clear()
            behind.script = says(streamed(ODD[name]))
            assert await read(front, behind, STREAMED) == ("hello", "stop"), name


@pytest.mark.parametrize("name", ENDS)
async def test_half_a_character_never_breaks_an_answer(name: str) -> None:
    stream, shown = ENDS[name]
    async with over(says(streamed(stream)), breaker=ONCE) as (front, behind):
        assert await read(front, behind, STREAMED) == (shown, "stop")


async def test_a_completions_stream_that_is_odd_is_read() -> None:
    async with over(says(b""), breaker=ONCE) as (front, behind):
        for name in EVENTS:
            behind.asked.clear()
            behind.script = says(streamed(as_texts(EVENTS[name])))
            assert await read(front, behind, TEXT | {"stream": True}, "/v1/completions") == ("hello", "stop"), name


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
@pytest.mark.parametrize("content_type", [JSON_TYPE, EVENT_TYPE, "text/plain"])
async def test_the_form_of_an_answer_is_seen_by_what_it_is(kind: str, content_type: str) -> None:
    """A whole answer in the place of a stream, and the reverse, whatever their content type."""
    for data in (WHOLE["plain"], WHOLE["a byte order mark"], PLAIN, EVENTS["a byte order mark"]):
        async with over(says(whole(data, kind=content_type)), kind, breaker=ONCE) as (front, behind):
            assert await read(front, behind, STREAMED) == ("hello", "stop")
            behind.asked.clear()
            assert await read(front, behind, CHAT) == ("hello", "stop")


@pytest.mark.parametrize("name", WHOLE)
async def test_a_whole_answer_that_is_odd_is_read(name: str) -> None:
    async with over(says(whole(WHOLE[name])), breaker=ONCE) as (front, behind):
        assert await read(front, behind, CHAT) == ("hello", "stop")


ENDINGS: dict[str, Script] = {
    "properly": says(streamed(HELLO + STOP)),
    "by a cut": cuts(head() + piece(HELLO) + piece(STOP)),
    "never": hangs(head() + piece(HELLO + STOP)),
    "by a usage and a cut": cuts(head() + piece(HELLO + STOP) + piece(event({"choices": [], "usage": USAGE}))),
}


@pytest.mark.parametrize("ends", ENDINGS)
async def test_a_finish_reason_is_the_end_however_the_body_ends(ends: str) -> None:
    """The usage that comes after it is read; an engine that then says nothing more is not waited for."""
    timeouts = config.TimeoutsConfig(between_events=0.5)
    async with over(ENDINGS[ends], timeouts=timeouts, breaker=ONCE) as (front, behind):
        assert await read(front, behind, STREAMED) == ("hello", "stop")
        behind.asked.clear()
        answer = await front.post(STREAMED | {"stream_options": {"include_usage": True}})
        usages = [one["usage"] for one in events(answer.content)[:-1] if "usage" in one]
        assert usages == ([USAGE] if "usage" in ends else [])
        behind.script = says(streamed(PLAIN))
        assert (await front.post(STREAMED)).content.endswith(DONE)


@pytest.mark.parametrize("ends", ["properly", "by a cut"])
async def test_a_body_that_ends_before_the_finish_reason_is_an_error(ends: str) -> None:
    script = says(streamed(HELLO)) if ends == "properly" else cuts(head() + piece(HELLO))
    async with over(script) as (front, _):
        answer = await front.post(STREAMED)
        assert answer.status_code == 200
        is_error(events(answer.content)[-1], "server_error")
        assert b"[DONE]" not in answer.content


ERRORS = [
    event({"error": {"message": "no", "code": 500}}),
    event({"error": "no"}),
    event({"object": "error", "message": "no", "code": 500}),
    event({"detail": "no"}),
    event(b"no", "error"),
    event({"message": "no"}, "error"),
    event({"type": "error", "error": {"type": "api_error", "message": "no"}}),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_an_error_in_a_stream_is_one_in_whichever_form(error: bytes) -> None:
    async with over(says(b"")) as (front, behind):
        behind.script = says(streamed(HELLO + error + DONE))
        answer = await front.post(STREAMED)
        is_error(events(answer.content)[-1], "server_error")
        assert b"[DONE]" not in answer.content
        behind.script = says(streamed(error + DONE))
        answer = await front.post(STREAMED)
        assert answer.status_code == 502
        is_error(answer.json(), "server_error")


async def test_what_cannot_be_read_is_named() -> None:
    async with over(says(b"")) as (front, behind):
        for data in (
            event(said(delta={"content": 7})),
            json.dumps({"choices": [{"message": {"content": 7}}]}).encode(),
        ):
            behind.script = says(whole(data))
            for body in (CHAT, STREAMED):
                answer = await front.post(body)
                assert answer.status_code == 502
                message = answer.json()["error"]["message"]
                assert ".content'" in message
                assert "It sent: " in message
                front.services.catalog.endpoints[0].breaker.record_success(False, 0.0)


async def test_an_openai_engine_that_leaves_the_finish_reason_out_ends_with_done() -> None:
    async with engine(says(streamed(HELLO + DONE))) as behind:
        models = config.from_urls({"openai": [behind.url]}, "tiny", {})
        async with gateway(checked(config.Config(models=models))) as front:
            assert await read(front, behind, STREAMED) == ("hello", "stop")
            behind.asked.clear()
            assert await read(front, behind, CHAT) == ("hello", "stop")


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/responses", "/tokenize"])
@pytest.mark.parametrize("half", [rb"\ud83d", rb"\ude00", b"\xed\xa0\xbd"])
async def test_half_a_character_in_a_request_is_the_clients_fault(path: str, half: bytes) -> None:
    body = b'{"model": "tiny", "messages": [{"role": "user", "content": "a%b"}]}' % half
    async with over(says(b"")) as (front, behind):
        answer = await front.client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert "surrogate" in error["message"]
        assert error["param"] == (None if half.startswith(b"\xed") else "messages[0].content")
        assert behind.asked == []


@pytest.mark.parametrize("field", ["both", "reasoning", "reasoning_content"])
async def test_reasoning_is_in_the_fields_that_the_models_clients_read(field: Any) -> None:
    async with engine(says(b"")) as behind:
        (model,) = config.from_urls({"vllm": [behind.url]}, "tiny", {})
        given = config.Config(models=[msgspec.structs.replace(model, reasoning_field=field)])
        async with gateway(checked(given)) as front:
            shown = {"reasoning": "hm", "reasoning_content": "hm"} if field == "both" else {field: "hm"}
            for theirs in ("reasoning", "reasoning_content"):
                behind.script = says(streamed(event(said(delta={theirs: "hm"})) + PLAIN))
                delta = events((await front.post(STREAMED)).content)[0]["choices"][0]["delta"]
                assert {name: value for name, value in delta.items() if "reasoning" in name} == shown
                message = (await front.post(CHAT)).json()["choices"][0]["message"]
                assert {name: value for name, value in message.items() if "reasoning" in name} == shown


# TGI's own paths


@pytest.mark.parametrize(
    "stream", [HELLO + STOP + DONE, *(EVENTS[name] for name in ("an empty object", "a word", "CRLF"))]
)
async def test_tgis_own_paths_read_an_odd_vllm(stream: bytes) -> None:
    async with over(says(streamed(as_texts(stream)))) as (front, _):
        answer = await front.post({"inputs": "a"}, "/generate_stream")
        assert events(answer.content.replace(b"data:{", b"data: {"))[-1]["generated_text"] == "hello"
        whole_answer = await front.post({"inputs": "a"}, "/generate")
        assert whole_answer.json()["generated_text"] == "hello"
    body = json.dumps({"choices": [{"text": "hello", "finish_reason": "stop"}]}).encode()
    async with over(says(whole(body))) as (front, _):
        answer = await front.post({"inputs": "a"}, "/generate_stream")
        assert events(answer.content.replace(b"data:{", b"data: {"))[-1]["generated_text"] == "hello"
        assert (await front.post({"inputs": "a"}, "/generate")).json()["generated_text"] == "hello"


async def test_a_heartbeat_of_a_tgi_is_not_passed_to_its_clients() -> None:
    token = {"id": 1, "text": "a", "logprob": 0.0, "special": False}
    last = event({"token": token, "generated_text": "a", "details": None})
    async with over(says(streamed(event({}), event({"type": "ping"}, "ping"), last)), "tgi") as (front, _):
        answer = await front.post({"inputs": "a"}, "/generate_stream")
        assert answer.content.count(b"data:") == 1
