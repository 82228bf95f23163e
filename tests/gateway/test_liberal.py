"""As liberal as the engine: what a vLLM or a TGI takes is taken, and each is sent what it takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.engine_answers import DONE, TGI_CHUNK
from tests.support.errors import is_error
from tests.support.harness import ANSWER, CHAT, MODEL, STREAM, TEXT, Asked, Script, over, says, streamed, whole
from tests.support.simulators import started

HI = CHAT["messages"]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
NAMED = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TEXT_ANSWER = {
    "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": "stop"}],
    "usage": ANSWER["usage"],
}
CALLED = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TGI_WHOLE = {
    "object": "chat.completion",
    "id": "",
    "created": 1,
    "model": "tgi",
    "system_fingerprint": "3.3.6-dev0-native",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "a"}, "logprobs": None, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13},
}


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"} | fields]}


def formatted(**schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


# (what the client sends, what of it vLLM is sent in other words; None: it is left out)
CHATS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"stop": list("abcdef")}, {}),
    ({"stop": []}, {}),
    ({"max_tokens": 512.0}, {"max_tokens": 512}),
    ({"max_tokens": "512"}, {"max_tokens": 512}),
    ({"max_completion_tokens": 512.0}, {"max_completion_tokens": 512}),
    ({"seed": 7.0, "temperature": "0.5"}, {"seed": 7, "temperature": 0.5}),
    ({"top_k": 5.0, "min_p": "0.1"}, {}),
    ({"n": 129, "temperature": 1}, {}),
    ({"logprobs": 1, "top_logprobs": 30, "temperature": 1}, {"logprobs": True}),
    ({"logprobs": True, "top_logprobs": -1}, {}),
    ({"top_logprobs": 0}, {}),
    ({"logit_bias": {}}, {}),
    ({"logit_bias": {"5": 1000}}, {}),
    ({"tool_choice": "none"}, {"tool_choice": None}),
    ({"tool_choice": "auto"}, {"tool_choice": None}),
    ({"tool_choice": "auto", "tools": None}, {"tool_choice": None, "tools": None}),
    ({"tool_choice": "none", "tools": []}, {"tool_choice": None, "tools": None}),
    ({"tools": []}, {"tools": None}),
    ({"tools": [], "parallel_tool_calls": False}, {"tools": None, "parallel_tool_calls": None}),
    ({"functions": []}, {"functions": None}),
    ({"function_call": "none"}, {"function_call": None}),
    ({"tools": [TOOL], "tool_choice": None}, {"tool_choice": None}),
    ({"tools": [TOOL], "tool_choice": "f"}, {"tool_choice": NAMED}),
    (formatted(schema=SCHEMA), formatted(name="schema", schema=SCHEMA)),
    (formatted(name=None, schema=SCHEMA), formatted(name="schema", schema=SCHEMA)),
    ({"response_format": None}, {"response_format": None}),
    ({"stream": "false"}, {"stream": False}),
    ({"stream_options": None}, {"stream_options": None}),
    ({"stream_options": {}}, {"stream_options": None}),
    ({"stream_options": {"include_usage": False}}, {"stream_options": None}),
    ({"user": None, "new": None}, {"user": None, "new": None}),
    (message(name=None, tool_calls=None), message()),
    (
        message(content=["a", {"type": "text", "text": "b"}]),
        message(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    ),
    (message(content=[{"type": "image_url", "image_url": "http://x/y.png"}]), {}),
    (
        message(content=[{"image_url": "http://x/y.png"}]),
        message(content=[{"image_url": "http://x/y.png", "type": "image_url"}]),
    ),
    (message(role="developer"), {}),
    (
        message(role="assistant", content=None, refusal=None, audio=None, annotations=[]),
        message(role="assistant", content=None, annotations=[]),
    ),
    (message(role="assistant", content=None, tool_calls=[CALLED]), {}),
    ({"use_beam_search": True, "n": 2}, {}),
]
TEXTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"stop": list("abcdef")}, {}),
    ({"max_tokens": 16.0}, {"max_tokens": 16}),
    ({"max_tokens": None}, {"max_tokens": None}),
    ({"logprobs": 20}, {}),
    ({"logprobs": True}, {"logprobs": 1}),
    (
        {"n": None, "best_of": None, "suffix": None, "echo": None},
        {"n": None, "best_of": None, "suffix": None, "echo": None},
    ),
    ({"prompt": [1.0, 2.0]}, {"prompt": [1, 2]}),
    ({"use_beam_search": True, "n": 2}, {}),
]


@pytest.mark.parametrize(
    ("path", "base", "answer", "rows"),
    [("/v1/chat/completions", CHAT, ANSWER, CHATS), ("/v1/completions", TEXT, TEXT_ANSWER, TEXTS)],
    ids=["chat", "completions"],
)
async def test_what_vllm_takes_is_taken_and_sent_as_vllm_takes_it(
    path: str, base: dict[str, Any], answer: Any, rows: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    async with over(says(whole(answer))) as (front, behind):
        for fields, other in rows:
            got = await front.post(base | fields, path)
            assert got.status_code == 200, (fields, got.text)
            wanted = base | fields | other
            assert behind.asked[-1].json == {
                name: value for name, value in wanted.items() if value is not None or name == "content"
            }, fields


async def test_what_vllm_refuses_it_refuses_itself_and_its_words_reach_the_client() -> None:
    """Its bounds are flags of its own: the gateway does not know them."""
    said = {"error": {"message": "at most 4 stop strings", "type": "BadRequestError", "param": "stop", "code": 400}}
    async with over(says(whole(said, "400 Bad Request"))) as (front, _):
        answer = await front.post(CHAT | {"stop": list("abcdef")})
        assert answer.status_code == 400
        assert "at most 4 stop strings" in is_error(answer.json())["message"]


async def tgi_script(asked: Asked, writer: Any) -> None:
    """Answer as a TGI does: streams where a stream is asked for."""
    body = asked.json
    if asked.path == "/generate_stream" or body.get("stream"):
        writer.write(streamed(TGI_CHUNK, *tgi_end(), DONE))
    else:
        writer.write(whole(TGI_WHOLE))
    await writer.drain()


def tgi_end() -> list[bytes]:
    usage = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}
    choice = {"index": 0, "delta": {"role": "assistant", "content": "b"}, "logprobs": None, "finish_reason": "stop"}
    return [
        b"data: " + json.dumps(one).encode() + b"\n\n"
        for one in ({"choices": [choice], "usage": None}, {"choices": [], "usage": usage})
    ]


# (what the client sends, some of the body that TGI is sent; None: it is not there)
ON_TGI: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"stop": list("vwxyz!")}, {"stop": list("vwxy")}),
    ({"stop": []}, {"stop": None}),
    ({"max_tokens": 512.0}, {"max_tokens": 512}),
    ({"max_tokens": "512"}, {"max_tokens": 512}),
    ({"tool_choice": "none"}, {"tool_choice": None, "tools": None}),
    ({"tool_choice": "auto"}, {"tool_choice": None, "tools": None}),
    ({"tools": []}, {"tools": None}),
    ({"functions": []}, {"tools": None}),
    ({"logit_bias": {}, "top_k": -1, "use_beam_search": False, "bad_words": []}, {"logit_bias": None, "top_k": None}),
    (
        formatted(schema=SCHEMA),
        {"response_format": {"type": "json_schema", "value": {"name": "schema", "schema": SCHEMA}}},
    ),
    ({"stream": "false"}, {"stream": None}),
    ({"stream_options": {}}, {"stream_options": None}),
    (message(name=None, tool_calls=None), {"messages": HI}),
    (message(content=["a", "b"]), {"messages": [{"role": "user", "content": "a\nb"}]}),
    (
        message(
            role="assistant", content=None, tool_calls=[CALLED | {"function": {"name": "f", "arguments": {"a": 1}}}]
        ),
        {
            "messages": [
                {"role": "assistant", "tool_calls": [CALLED | {"function": {"name": "f", "arguments": {"a": 1}}}]}
            ]
        },
    ),
    ({"prompt_logprobs": None, "return_token_ids": False}, {"return_token_ids": None}),
]


async def test_what_tgi_does_not_know_is_emulated_or_dropped_where_it_changes_no_answer() -> None:
    async with over(tgi_script, "tgi") as (front, behind):
        for fields, some in ON_TGI:
            answer = await front.post(CHAT | fields)
            assert answer.status_code == 200, (fields, answer.text)
            sent = behind.asked[-1].json
            assert {name: sent.get(name) for name in some} == some, fields


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"top_k": 5}, "top_k"), ({"use_beam_search": True}, "use_beam_search"), ({"logit_bias": {"5": 1}}, "logit_bias")],
)
async def test_what_would_change_the_answer_on_tgi_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    async with over(tgi_script, "tgi") as (front, behind):
        answer = await front.post(CHAT | fields)
        assert answer.status_code == 400
        assert is_error(answer.json())["param"] == name
        assert behind.asked == []


@pytest.mark.parametrize("stream", [False, True])
async def test_the_last_of_six_stop_strings_ends_tgis_answer(stream: bool) -> None:
    """TGI is told of four, and says "ab": the fifth begins at the "b"."""
    async with over(tgi_script, "tgi") as (front, _):
        answer = await front.post(CHAT | {"stop": ["v", "w", "x", "y", "b", "z"], "stream": stream})
        said = (
            [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")] if stream else [answer.text]
        )
        choices = [choice for one in said for choice in json.loads(one)["choices"]]
        texts = [choice["delta" if stream else "message"].get("content") or "" for choice in choices]
        assert "".join(texts) == "a"
        assert choices[-1]["finish_reason"] == "stop"


SCRIPTS: dict[str, Script] = {"vllm": says(whole(ANSWER)), "tgi": tgi_script}


@pytest.mark.parametrize("kind", SCRIPTS)
async def test_a_developer_is_a_system_to_tgi_which_is_said(kind: str) -> None:
    """vLLM does so itself where the template does not know the word."""
    async with over(SCRIPTS[kind], kind) as (front, behind):
        answer = await front.post(CHAT | {"messages": [{"role": "developer", "content": "Be brief."}]})
        assert answer.status_code == 200
        sent = behind.asked[-1].json["messages"][0]["role"]
        adapted = answer.headers.get("x-pointsman-adapted", "").replace(" ", "").split(",")
        assert (sent, "messages" in adapted) == (("developer", False) if kind == "vllm" else ("system", True))


@pytest.mark.parametrize("options", [None, {}, {"include_usage": True}, {"continuous_usage_stats": True}])
async def test_usage_on_every_chunk_needs_include_usage_too(options: dict[str, Any] | None) -> None:
    """As in vLLM, which is always asked for it: without, no chunk has usage."""
    async with over(says(streamed(*STREAM))) as (front, _):
        answer = await front.post(CHAT | {"stream": True, "stream_options": options})
        with_usage = [json.loads(line[6:]) for line in answer.text.splitlines() if '"usage"' in line]
        assert [event["choices"] for event in with_usage] == ([[]] if options == {"include_usage": True} else [])


NAMED_FIELDS = [
    {"prompt_logprobs": None},
    {"return_token_ids": None},
    {"return_token_ids": False},
    {"return_tokens_as_token_ids": None},
]


@pytest.mark.parametrize("fields", NAMED_FIELDS)
@pytest.mark.parametrize("kind", SCRIPTS)
async def test_a_field_named_null_comes_back_null(kind: str, fields: dict[str, Any]) -> None:
    """vLLM's own clients read `prompt_logprobs` and the ids without asking whether they are there."""
    async with over(SCRIPTS[kind], kind) as (front, _):
        answer = (await front.post(CHAT | fields)).json()
        assert (answer["prompt_logprobs"], answer["prompt_token_ids"]) == (None, None)
        assert [choice["token_ids"] for choice in answer["choices"]] == [None]
        assert not {"prompt_logprobs", "prompt_token_ids"} & (await front.post(CHAT)).json().keys()


@pytest.mark.parametrize("fields", NAMED_FIELDS)
async def test_so_does_a_completions(fields: dict[str, Any]) -> None:
    async with over(says(whole(TEXT_ANSWER))) as (front, _):
        (choice,) = (await front.post(TEXT | fields, "/v1/completions")).json()["choices"]
        assert {name: choice[name] for name in ("token_ids", "prompt_token_ids", "prompt_logprobs")} == dict.fromkeys(
            ("token_ids", "prompt_token_ids", "prompt_logprobs")
        )


async def test_in_a_stream_the_first_chunk_has_the_prompts_and_the_others_their_own() -> None:
    async with over(says(streamed(*STREAM))) as (front, _):
        answer = await front.post(CHAT | {"stream": True, "return_token_ids": None})
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert ["prompt_token_ids" in chunk for chunk in chunks] == [True, False, False]
        assert ["token_ids" in chunk["choices"][0] for chunk in chunks] == [False, True, True]
        plain = await front.post(CHAT | {"stream": True})
        assert "token_ids" not in plain.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_every_answer_and_every_chunk_has_the_gateways_own_fingerprint(kind: str, path: str) -> None:
    """TGI's own client needs the field; the engine's own would name the engine."""
    async with started(kind) as front:
        (candidate,) = front.services.catalog.routes[MODEL].candidates
        body = (CHAT if "chat" in path else TEXT) | {"max_tokens": 3}
        whole_answer = await front.post(body, path)
        assert whole_answer.json()["system_fingerprint"] == candidate.system_fingerprint
        stream = await front.post(body | {"stream": True, "stream_options": {"include_usage": True}}, path)
        chunks = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
        assert {chunk["system_fingerprint"] for chunk in chunks} == {candidate.system_fingerprint}
        assert chunks[-1]["usage"]
