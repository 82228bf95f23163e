"""What a client gets for a good request, whole and streamed, and what the engine was asked."""

import json
from typing import Any
from urllib.parse import quote

import pytest

from gateway import config
from tests.support.harness import (
    ANSWER,
    CHAT,
    STREAM,
    TEXT,
    USAGE,
    both,
    checked,
    chunk,
    configured,
    engine,
    events,
    gateway,
    over,
    says,
    streamed,
    whole,
)

STREAMED = CHAT | {"stream": True}


async def test_a_whole_answer_has_our_head_and_none_of_the_engines_marks() -> None:
    async with over(says(whole(ANSWER))) as (front, behind):
        answer = await front.post(CHAT)
        assert answer.status_code == 200
        said = answer.json()
        request_id = answer.headers["x-request-id"]
        assert said == {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "tiny",
            "system_fingerprint": front.services.catalog.routes["tiny"].candidates[0].system_fingerprint,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Grüße dir", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
        }
        assert answer.headers["x-pointsman-engine"] == "vllm"
        assert answer.headers["x-pointsman-deployment"] == "vllm"
        assert 0 <= float(answer.headers["x-pointsman-overhead-ms"]) < 1000
        assert "server" not in answer.headers
        (asked,) = behind.asked
        assert asked.json == CHAT
        assert asked.headers["x-request-id"] == request_id


@pytest.mark.parametrize("usage", [None, False, True])
async def test_a_streams_usage_is_there_exactly_when_it_was_asked_for(usage: bool | None) -> None:
    body = STREAMED | ({} if usage is None else {"stream_options": {"include_usage": usage}})
    async with over(says(streamed(*STREAM))) as (front, behind):
        answer = await front.post(body)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        *chunks, last = events(answer.content)
        assert last == "data: [DONE]"
        assert {(one["id"], one["created"], one["model"], one["object"]) for one in chunks} == {
            (f"chatcmpl-{answer.headers['x-request-id']}", 1_700_000_000, "tiny", "chat.completion.chunk")
        }
        assert [one["choices"][0]["delta"] for one in chunks if one["choices"]] == [
            {"role": "assistant", "content": ""},
            {"content": "Grüße"},
            {"content": " dir"},
        ]
        assert [one["usage"] for one in chunks if "usage" in one] == ([USAGE] if usage else [])
        assert (chunks[-1]["choices"] == []) == bool(usage)
        assert behind.asked[0].json["stream_options"] == {"include_usage": True}


async def test_a_stream_is_the_same_however_the_engine_cuts_it() -> None:
    whole_stream = b"".join(STREAM)
    async with over(says(b"")) as (front, behind):
        seen = set()
        for size in (1, 2, 3, 7, 50, len(whole_stream)):
            pieces = [whole_stream[at : at + size] for at in range(0, len(whole_stream), size)]
            behind.script = says(streamed(*pieces))
            answer = await front.post(STREAMED)
            seen.add(answer.content.replace(answer.headers["x-request-id"].encode(), b""))
        assert len(seen) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_unknown_fields_go_to_vllm_and_what_it_answers_to_them_comes_back(stream: bool) -> None:
    """Fields that no table names survive both ways; nulls and the engine's marks do not."""
    more = {"routed_experts": [1], "brand_new": {"a": 1}, "newer": None}
    if stream:
        choice: dict[str, Any] = {"delta": {"content": "x", "reasoning": "because", "odd": 1}, "index": 0}
        event = {"choices": [choice | {"finish_reason": "stop"} | more], "late": 7, "id": "", "object": "", "model": ""}
        script = says(streamed(b"data: " + json.dumps(event).encode() + b"\n\n", b"data: [DONE]\n\n"))
    else:
        message = {"role": "assistant", "content": "x", "reasoning": "because", "odd": 1}
        choice = {"message": message, "index": 0, "finish_reason": "stop"}
        script = says(whole({"choices": [choice | more], "late": 7, "usage": USAGE}))
    async with over(script) as (front, behind):
        answer = await front.post(CHAT | {"stream": stream, "top_k": 3, "of_tomorrow": {"deep": [1, None]}})
        said = events(answer.content)[0] if stream else answer.json()
        inner = said["choices"][0]["delta" if stream else "message"]
        assert inner["reasoning"] == "because"
        assert inner["odd"] == 1
        assert said["late"] == 7
        assert said["choices"][0]["brand_new"] == {"a": 1}
        assert "newer" not in said["choices"][0]
        assert "routed_experts" not in said["choices"][0]
        assert behind.asked[0].json["top_k"] == 3
        assert behind.asked[0].json["of_tomorrow"] == {"deep": [1, None]}


async def test_a_legacy_completion_is_streamed_and_whole() -> None:
    choice = {"index": 0, "text": "yes", "logprobs": None, "finish_reason": "length", "stop_reason": None}
    said = {"id": "cmpl-x", "object": "text_completion", "created": 1, "model": "own", "choices": [choice]}
    async with over(says(whole(said | {"usage": USAGE}))) as (front, behind):
        answer = (await front.post(TEXT, "/v1/completions")).json()
        assert answer["id"].startswith("cmpl-")
        assert answer["choices"] == [{"index": 0, "text": "yes", "logprobs": None, "finish_reason": "length"}]
        event = b"data: " + json.dumps(said).encode() + b"\n\n"
        behind.script = says(streamed(event, b"data: [DONE]\n\n"))
        stream = await front.post(TEXT | {"stream": True}, "/v1/completions")
        first, done = events(stream.content)
        assert first["object"] == "text_completion"
        assert first["choices"] == answer["choices"]
        assert done == "data: [DONE]"


async def test_the_model_is_called_what_the_client_called_it() -> None:
    async with engine(says(whole(ANSWER))) as behind, gateway(configured(behind.url)) as front:
        for name in ("", "tgi", "dummy", "tiny", None):
            body = {key: value for key, value in CHAT.items() if key != "model"}
            answer = await front.post(body if name is None else body | {"model": name})
            assert answer.status_code == 200
            assert answer.json()["model"] == (name or "tiny")
            assert behind.asked[-1].json["model"] == "tiny"


async def test_either_engine_answers_and_a_pin_is_obeyed() -> None:
    tgi_answer = {
        "id": "",
        "choices": [
            {"message": {"role": "assistant", "content": "Grüße dir"}, "finish_reason": "eos_token", "logprobs": None}
        ],
        "usage": USAGE,
    }
    async with both(says(whole(ANSWER)), says(whole(tgi_answer))) as (front, _):
        answers = [await front.post(CHAT) for _ in range(40)]
        assert len({answer.headers["x-pointsman-engine"] for answer in answers}) == 2
        bodies = [answer.json() | {"id": "", "system_fingerprint": ""} for answer in answers]
        assert all(body == bodies[0] for body in bodies), "the engines can be told apart"
        for pin in ("vllm", "tgi"):
            answer = await front.post(CHAT, x_pointsman_engine=pin)
            assert answer.headers["x-pointsman-engine"] == pin
        for pin in ("openai", "nonsense", ""):
            answer = await front.post(CHAT, x_pointsman_engine=pin)
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == "x-pointsman-engine"


async def test_what_tgi_cannot_do_goes_to_vllm_and_pinned_it_is_refused_by_name() -> None:
    async with both(says(whole(ANSWER)), says(b"")) as (front, tgi):
        for field, value in (("presence_penalty", 1), ("logit_bias", {"5": 1}), ("min_p", 0.1)):
            for _ in range(5):
                answer = await front.post(CHAT | {field: value})
                assert answer.headers["x-pointsman-engine"] == "vllm"
            answer = await front.post(CHAT | {field: value}, x_pointsman_engine="tgi")
            assert answer.status_code == 400
            assert answer.json()["error"]["param"] == field
            assert "TGI" in answer.json()["error"]["message"]
        assert tgi.asked == []


async def test_models_are_listed_and_retrieved_with_slashes_and_context_length() -> None:
    async with over(says(b"")) as (front, _):
        listed = (await front.client.get("/v1/models")).json()
        (card,) = listed["data"]
        assert card == {
            "id": "tiny",
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "pointsman",
            "max_model_len": 1024,
        }
        assert (await front.client.get("/v1/models/tiny")).json() == card
        missing = await front.client.get("/v1/models/org%2Fother")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"
        assert "org/other" in missing.json()["error"]["message"]


@pytest.mark.parametrize("name", ["org/model", "/models/local/path", "a b", "ü"])
async def test_a_model_is_retrieved_whatever_its_name_raw_and_escaped(name: str) -> None:
    async with engine(says(b"")) as behind:
        models = config.from_urls({"vllm": [behind.url]}, name, {})
        async with gateway(checked(config.Config(models=models))) as front:
            escaped = quote(name, safe="")
            for path in {quote(name), escaped}:
                answer = await front.client.get(f"/v1/models/{path}")
                assert answer.status_code == 200, path
                assert answer.json()["id"] == name


async def test_tool_call_deltas_begin_with_name_and_empty_arguments_and_ids_of_ours() -> None:
    first = chunk(
        {"tool_calls": [{"index": 0, "id": "chatcmpl-tool-1", "type": "function", "function": {"name": "f"}}]}
    )
    second = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}, "tool_calls")
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with over(says(streamed(first, second, b"data: [DONE]\n\n"))) as (front, _):
        one, two, _done = events((await front.post(STREAMED | {"tools": tools})).content)
        call = one["choices"][0]["delta"]["tool_calls"][0]
        assert call["id"].startswith("call_")
        assert call["function"] == {"name": "f", "arguments": ""}
        assert two["choices"][0]["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": "{}"}}]
