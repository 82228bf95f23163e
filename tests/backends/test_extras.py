"""What an engine says beside what OpenAI defines: it passes, but for nulls and what names the engine."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from backends.extras import CHAT_CHUNK, WHOLE_CHAT, WHOLE_TEXT, ExtrasReader, is_set, merge_extra

CHUNK: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
CHAT: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
TEXT: dict[str, Any] = {"choices": [{"index": 0, "text": "a", "finish_reason": None}]}
CALL: dict[str, Any] = {"index": 0, "function": {"arguments": "{}"}}

# (reader, what is read, where in it a field is put)
LEVELS: list[tuple[ExtrasReader[Any], dict[str, Any], list[str | int]]] = [
    (WHOLE_CHAT, CHAT, []),
    (WHOLE_CHAT, CHAT, ["choices", 0]),
    (WHOLE_CHAT, CHAT, ["choices", 0, "message"]),
    (WHOLE_CHAT, CHAT, ["usage"]),
    (WHOLE_TEXT, TEXT, []),
    (WHOLE_TEXT, TEXT, ["choices", 0]),
    (CHAT_CHUNK, CHUNK, []),
    (CHAT_CHUNK, CHUNK, ["choices", 0]),
    (CHAT_CHUNK, CHUNK, ["choices", 0, "delta"]),
    (CHAT_CHUNK, {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]}, []),
    (
        CHAT_CHUNK,
        {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]},
        ["choices", 0, "delta", "tool_calls", 0],
    ),
    (
        CHAT_CHUNK,
        {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}, "finish_reason": None}]},
        ["choices", 0, "delta", "tool_calls", 0, "function"],
    ),
]
VALUES = [0, False, "", [], {}, "text", 1.5, [1, None], {"a": {"b": None}}]


@pytest.mark.parametrize(("reader", "body", "where"), LEVELS, ids=[str(level[2]) for level in LEVELS])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_unknown_field_comes_back_where_it_was(
    reader: ExtrasReader[Any], body: dict[str, Any], where: list[str | int], value: Any
) -> None:
    said = put(body, where, "new_field", value)
    assert passed(reader, said) == said


@pytest.mark.parametrize(("reader", "body", "where"), LEVELS, ids=[str(level[2]) for level in LEVELS])
@pytest.mark.parametrize("name", ["new_field", "stop_reason", "routed_experts", "system_fingerprint"])
def test_an_unknown_null_is_dropped(
    reader: ExtrasReader[Any], body: dict[str, Any], where: list[str | int], name: str
) -> None:
    assert passed(reader, put(body, where, name, None)) == body


NEVER = [
    (WHOLE_CHAT, CHAT, ["choices", 0, "message"], "stop_reason"),
    (WHOLE_CHAT, CHAT, ["choices", 0, "message"], "routed_experts"),
    (WHOLE_CHAT, CHAT, ["choices", 0], "system_fingerprint"),
    (WHOLE_CHAT, CHAT, ["usage"], "system_fingerprint"),
    (WHOLE_CHAT, CHAT, [], "stop_reason"),
    (WHOLE_CHAT, CHAT, [], "routed_experts"),
    (WHOLE_TEXT, TEXT, [], "stop_reason"),
    (CHAT_CHUNK, CHUNK, ["choices", 0], "routed_experts"),
    (CHAT_CHUNK, CHUNK, ["choices", 0, "delta"], "stop_reason"),
    (CHAT_CHUNK, CHUNK, [], "stop_reason"),
]


@pytest.mark.parametrize(("reader", "body", "where", "name"), NEVER)
def test_what_tells_one_engine_from_another_never_passes(
    reader: ExtrasReader[Any], body: dict[str, Any], where: list[str | int], name: str
) -> None:
    """Where a type names these, it is the dialect that takes them out (`test_openai`)."""
    assert passed(reader, put(body, where, name, "engine")) == body


def test_of_several_choices_each_keeps_its_own() -> None:
    choice = CHUNK["choices"][0]
    said = {"choices": [choice, choice | {"index": 1, "mine": 1}, choice | {"index": 2}]}
    assert passed(CHAT_CHUNK, said) == said


def test_what_holds_only_known_fields_takes_the_fast_road() -> None:
    view, extra = CHAT_CHUNK.read(json.dumps(CHUNK).encode())
    assert extra == {}
    assert msgspec.to_builtins(view) == CHUNK


def test_fields_of_every_level_pass_at_once() -> None:
    said = CHAT
    for reader, _, where in LEVELS:
        if reader is WHOLE_CHAT:
            said = put(said, where, "new_field", 1)
    assert passed(WHOLE_CHAT, said) == said


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"choices"',
        b"{",
        b"<html></html>",
        b'{"choices":{}}',
        b'{"choices":[1]}',
        b'{"choices":[{"index":0,"delta":{"content":7},"finish_reason":null}]}',
        b'{"choices":[{"index":0,"delta":{},"finish_reason":7,"new":1}]}',
    ],
)
def test_a_wrong_shape_raises(body: bytes) -> None:
    """A field that no type names is no excuse for one that is wrong."""
    for said in (body, body.replace(b'{"choices"', b'{"new":1,"choices"')):
        with pytest.raises(msgspec.DecodeError):
            CHAT_CHUNK.read(said)


def test_given() -> None:
    assert [is_set(value) for value in (None, msgspec.UNSET, 0, "", False)] == [False, False, True, True, True]


def put(body: dict[str, Any], where: list[str | int], name: str, value: Any) -> dict[str, Any]:
    """Return a copy of the body with a field more."""
    copy: dict[str, Any] = json.loads(json.dumps(body))
    here: Any = copy
    for step in where:
        here = here[step]
    here[name] = value
    return copy


def passed(reader: ExtrasReader[Any], said: dict[str, Any]) -> dict[str, Any]:
    """Return what a client would see of it."""
    view, extra = reader.read(json.dumps(said).encode())
    return merge_extra(view, extra)
