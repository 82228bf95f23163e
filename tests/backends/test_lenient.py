"""Other spellings of the same request: nulls, and values that vLLM converts to the types that it wants."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from backends.lenient import coerced, without_nulls
from backends.schema import ChatRequest, CompletionRequest

NULL_DATA = {"type": "object", "properties": {"a": {"enum": ["x", None], "default": None}}}


def raw(fields: dict[str, Any]) -> dict[str, Raw]:
    return {name: Raw(json.dumps(value).encode()) for name, value in fields.items()}


def plain(body: dict[str, Raw]) -> dict[str, Any]:
    return {name: json.loads(bytes(value)) for name, value in body.items()}


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi"} | fields]}


def tools(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"} | function}]}


NULLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"user": None, "seed": None, "new": None}, {}),
    (message(name=None, tool_calls=None, new=None), message()),
    (
        message(content=[{"type": "text", "text": "a", "cache_control": None}]),
        message(content=[{"type": "text", "text": "a"}]),
    ),
    (
        message(content=[{"type": "image_url", "image_url": {"url": "u", "detail": None}}]),
        message(content=[{"type": "image_url", "image_url": {"url": "u"}}]),
    ),
    (
        message(
            tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "null", "x": None}}]
        ),
        message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "null"}}]),
    ),
    (tools(description=None, parameters=None, strict=None), tools()),
    ({"tools": [{"type": None, "function": {"name": "f"}}]}, {"tools": [{"function": {"name": "f"}}]}),
    ({"functions": [{"name": "f", "description": None}]}, {"functions": [{"name": "f"}]}),
    ({"stream_options": {"include_usage": None}}, {"stream_options": {}}),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}, "new": None}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": None, "schema": {}, "strict": None}}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
    ),
    ({"response_format": {"type": "text", "json_schema": None}}, {"response_format": {"type": "text"}}),
]
KEPT: list[dict[str, Any]] = [
    message(),
    message(content='{"a": null}', note=": null"),
    message(role="assistant", content=None),
    message(content=[None]),
    tools(parameters=NULL_DATA),
    {"functions": [{"name": "f", "parameters": NULL_DATA}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": NULL_DATA}}},
    {"response_format": {"type": "json", "value": {"properties": {"a": {"const": None}}}}},
    message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": None}}}]),
    {"structured_outputs": {"json": {"enum": [None]}, "regex": None}},
    {"chat_template_kwargs": {"thinking": None}, "metadata": {"a": None}, "new": {"a": None}},
    {"prompt_logprobs": None, "return_token_ids": None, "return_tokens_as_token_ids": None},
]


@pytest.mark.parametrize(("fields", "left"), NULLS)
def test_a_null_field_of_a_request_a_message_a_part_or_a_tool_is_absent(
    fields: dict[str, Any], left: dict[str, Any]
) -> None:
    assert plain(without_nulls(raw(fields))) == left


@pytest.mark.parametrize("fields", KEPT)
def test_a_null_that_is_data_stays(fields: dict[str, Any]) -> None:
    """In schemas, arguments and what is vLLM's own; so does a null content, and a field that is answered."""
    body = raw(fields)
    assert without_nulls(body) is body


@pytest.mark.parametrize("written", [b"[" * 100_000 + b": null", b'[{"a": null, "b": "\\ud800"}]', b'{"a": null'])
def test_what_cannot_be_read_is_left_to_the_schema(written: bytes) -> None:
    body = {"messages": Raw(written)}
    assert without_nulls(body) is body
    assert coerced(body, ChatRequest) is body


# By vLLM 0.32 itself: its `ChatCompletionRequest` and `CompletionRequest`, asked for each.
INTEGERS = [
    (512.0, 512),
    (1e3, 1000),
    ("512", 512),
    ("512.0", 512),
    (" 512 ", 512),
    ("1_000", 1000),
    ("-7", -7),
    (True, 1),
]
NO_INTEGERS = [512.5, 1e300, "x", "1e3", "512.5", "", "__1", [1], {}]
NUMBERS = [("0.5", 0.5), (" 1 ", 1.0), ("1e-1", 0.1), (True, 1.0), (False, 0.0)]
NO_NUMBERS = ["hot", "nan", "inf", "", [1], {}]
TRUTHS: list[tuple[Any, bool]] = [(1, True), (0, False), (1.0, True), (0.0, False)]
TRUTHS += [(word, True) for word in ("true", "TRUE", "yes", "on", "1", "t", "y")]
TRUTHS += [(word, False) for word in ("false", "False", "no", "off", "0", "f", "n")]
NO_TRUTHS = [2, -1, 0.5, "maybe", " true", "", [], {}]

CONVERTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *(
        ({name: given}, {name: read})
        for name in ("max_tokens", "n", "seed", "top_logprobs")
        for given, read in INTEGERS
    ),
    *(({name: given}, {name: read}) for name in ("temperature", "presence_penalty") for given, read in NUMBERS),
    *(
        ({name: given}, {name: read})
        for name in ("stream", "logprobs", "parallel_tool_calls")
        for given, read in TRUTHS
    ),
    ({"stream_options": {"include_usage": "true"}}, {"stream_options": {"include_usage": True}}),
    ({"logit_bias": {"5": "1", "6": True}}, {"logit_bias": {"5": 1.0, "6": 1.0}}),
    ({"logprob_token_ids": ["5", 6.0, 7]}, {"logprob_token_ids": [5, 6, 7]}),
    (tools(strict="true"), tools(strict=True)),
    (
        message(content=["a", {"type": "text", "text": "b"}]),
        message(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
    ),
    (message(content=[{"image_url": "u"}]), message(content=[{"image_url": "u", "type": "image_url"}])),
    (
        message(content=[{"image_url": {"url": "u"}}]),
        message(content=[{"image_url": {"url": "u"}, "type": "image_url"}]),
    ),
    (message(content=[{"video_url": "u"}]), message(content=[{"video_url": "u", "type": "video_url"}])),
    (
        message(tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}]),
        message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
    ),
    (
        message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": None}}}]),
        message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a":null}'}}]),
    ),
    (
        message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}]),
        message(tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "schema", "schema": {}}}},
    ),
]
TEXTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": [1.0, 2]}, {"prompt": [1, 2]}),
    ({"prompt": [True]}, {"prompt": [1]}),
    ({"prompt": [[1.0], [2]]}, {"prompt": [[1], [2]]}),
    ({"logprobs": True}, {"logprobs": 1}),
    ({"logprobs": False}, {"logprobs": 0}),
    ({"logprobs": 2.0}, {"logprobs": 2}),
    ({"echo": 1}, {"echo": True}),
]
UNCHANGED: list[dict[str, Any]] = [
    *({name: value} for name in ("max_tokens", "n") for value in NO_INTEGERS),
    *({"temperature": value} for value in NO_NUMBERS),
    *({"stream": value} for value in NO_TRUTHS),
    {"max_tokens": 512, "temperature": 1, "stream": True, "stop": "1", "model": "1"},
    {"stop": ["1", "2"]},
    {"stop": 1, "model": 5, "tools": {}, "logit_bias": [], "stream_options": []},
    {"top_k": 5.0, "min_p": "0.1", "metadata": {"n": 1.0}},
    message(content="1"),
    message(content=[{"type": "text", "text": "a"}, {"text": "b"}, 5]),
    message(content=[{"type": "input_image", "image_url": "u"}]),
    {"messages": "hi"},
    {"messages": ["hi"]},
    {"response_format": {"type": "json_schema"}},
]


@pytest.mark.parametrize(("fields", "read"), CONVERTED)
def test_a_value_has_the_type_that_vllm_would_make_of_it(fields: dict[str, Any], read: dict[str, Any]) -> None:
    """So what no engine but vLLM takes is taken everywhere."""
    assert same(plain(coerced(raw(fields), ChatRequest)), read)


@pytest.mark.parametrize(("fields", "read"), TEXTS)
def test_so_has_a_completions(fields: dict[str, Any], read: dict[str, Any]) -> None:
    assert same(plain(coerced(raw(fields), CompletionRequest)), read)


def same(one: Any, other: Any) -> bool:
    """Whether both are equal and of one type: 1, 1.0 and true are not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("fields", UNCHANGED)
def test_what_is_right_or_has_no_meaning_stays_as_it_is(fields: dict[str, Any]) -> None:
    body = raw(fields)
    assert coerced(body, ChatRequest) is body
