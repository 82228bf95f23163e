"""`functions` and `function_call`: tools on the way in, function calls on the way out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends import BACKENDS, functions
from backends.base import Call, Completion
from backends.convert import as_chunks
from backends.extras import merge_extra
from gateway.http.errors import InvalidRequest
from gateway.proxy import parse
from tests.support.dialects import HI, events, heard, plain, whole
from tests.support.recorded import load

FUNCTION = {"name": "get_w", "description": "d", "parameters": {"type": "object", "properties": {}}}
CALL = {"name": "get_w", "arguments": "{}"}
TOOL = {"type": "function", "function": FUNCTION}
NAMED = {"type": "function", "function": {"name": "get_w"}}
AS_TOOLS = {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}


def called(place: int) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": [tool(place)]}


def tool(place: int) -> dict[str, Any]:
    return {"id": f"call_{place}", "type": "function", "function": CALL}


def read(**fields: Any) -> Call:
    return parse.chat(json.dumps({"messages": HI, "max_tokens": 4} | fields).encode(), "r", 1)


def body(call: Call) -> dict[str, Any]:
    """What of the request is tools' business, as the dialects read it."""
    written = {name: json.loads(bytes(value)) for name, value in call.body.items()}
    return {name: value for name, value in written.items() if name not in ("messages", "max_tokens")}


REQUESTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"functions": [FUNCTION]}, AS_TOOLS),
    ({"functions": [FUNCTION], "function_call": "auto"}, AS_TOOLS),
    ({"functions": [FUNCTION], "function_call": None}, AS_TOOLS),
    ({"functions": [FUNCTION], "function_call": "none"}, AS_TOOLS | {"tool_choice": "none"}),
    ({"functions": [FUNCTION], "function_call": {"name": "get_w"}}, AS_TOOLS | {"tool_choice": NAMED}),
    ({"functions": [{"name": "f"}]}, AS_TOOLS | {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ({"functions": []}, {"tools": [], "parallel_tool_calls": False}),
    ({"functions": None}, {}),
    ({"functions": [FUNCTION], "seed": 5}, AS_TOOLS | {"seed": 5}),
]


@pytest.mark.parametrize(("fields", "said"), REQUESTS)
def test_functions_are_said_as_tools(fields: dict[str, Any], said: dict[str, Any]) -> None:
    """At most one is called, as it always was."""
    call = read(**fields)
    assert body(call) == said
    assert call.legacy_functions is (fields["functions"] is not None)
    for backend in BACKENDS.values():
        assert backend.unsupported(call) is None
        (request,) = backend.encode(call, "m")
        assert b"function_call" not in request.body
        assert b'"functions"' not in request.body


@pytest.mark.parametrize("choice", ["auto", "none", None])
def test_a_choice_among_no_functions_asks_for_nothing(choice: str | None) -> None:
    assert body(read(function_call=choice)) == {}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"functions": {}}, "functions"),
    ({"functions": "f"}, "functions"),
    ({"functions": [1]}, "functions"),
    ({"functions": [FUNCTION], "function_call": 1}, "functions"),
    ({"functions": [FUNCTION], "function_call": {"name": 1}}, "functions"),
    ({"functions": [FUNCTION], "messages": [1]}, "functions"),
    ({"functions": [FUNCTION], "function_call": {"name": "g"}}, "tool_choice"),
    ({"functions": [FUNCTION], "function_call": "always"}, "tool_choice"),
    ({"functions": [{}]}, "tools[0].function.name"),
    ({"function_call": {"name": "get_w"}}, "function_call"),
    ({"function_call": "get_w"}, "function_call"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_functions_of_another_form_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(**fields)
    assert refused.value.param == param


HISTORIES: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]] = [
    ([], []),
    (HI, HI),
    (
        [*HI, {"role": "assistant", "content": None, "function_call": CALL}],
        [*HI, called(1)],
    ),
    (
        [
            *HI,
            {"role": "assistant", "content": None, "function_call": CALL},
            {"role": "function", "name": "get_w", "content": "1"},
            *HI,
            {"role": "assistant", "content": "so:", "function_call": CALL},
            {"role": "function", "name": "get_w", "content": "2"},
        ],
        [
            *HI,
            called(1),
            {"role": "tool", "name": "get_w", "content": "1", "tool_call_id": "call_1"},
            *HI,
            called(4) | {"content": "so:"},
            {"role": "tool", "name": "get_w", "content": "2", "tool_call_id": "call_4"},
        ],
    ),
]


@pytest.mark.parametrize(("messages", "said"), HISTORIES)
def test_a_history_of_function_calls_is_one_of_tool_calls(
    messages: list[dict[str, Any]], said: list[dict[str, Any]]
) -> None:
    before = json.dumps(messages)
    assert functions.history(messages) == said
    assert json.dumps(messages) == before
    if messages:
        call = read(messages=messages, functions=[FUNCTION])
        assert json.loads(bytes(call.body["messages"])) == said
        for backend in BACKENDS.values():
            (request,) = backend.encode(call, "m")
            assert [one["role"] for one in json.loads(request.body)["messages"]] == [one["role"] for one in said]


def answer(engine: str, call: Call, data: bytes, headers: dict[str, str] | None = None) -> Completion:
    backend = BACKENDS[engine]
    completion = backend.decode(call, backend.encode(call, "m")[0], headers or {}, data)
    assert isinstance(completion, Completion)
    return completion


def shown(completion: Completion) -> dict[str, Any]:
    functions.answer(completion.answer)
    value: dict[str, Any] = plain(merge_extra(completion.answer, completion.extra))
    return value


ANSWERS: list[tuple[str | None, list[dict[str, Any]] | None, str, dict[str, Any], str]] = [
    (None, [tool(0)], "tool_calls", {"content": None, "function_call": CALL}, "function_call"),
    (None, [tool(0)], "stop", {"content": None, "function_call": CALL}, "function_call"),
    (None, [tool(0), tool(1)], "tool_calls", {"content": None, "function_call": CALL}, "function_call"),
    ("a", None, "stop", {"content": "a"}, "stop"),
    ("a", None, "length", {"content": "a"}, "length"),
]


@pytest.mark.parametrize(("content", "tools", "finish", "message", "reason"), ANSWERS)
@pytest.mark.parametrize("own", [{}, {"new": 1}])
def test_a_whole_answer_says_the_call(
    content: str | None,
    tools: list[dict[str, Any]] | None,
    finish: str,
    message: dict[str, Any],
    reason: str,
    own: dict[str, Any],
) -> None:
    said = {"content": content} | ({"tool_calls": tools} if tools else {})
    (choice,) = shown(answer("vllm", read(functions=[FUNCTION]), whole(said, finish_reason=finish, **own)))["choices"]
    assert (
        choice
        == {
            "index": 0,
            "message": {"role": "assistant", "refusal": None} | message,
            "logprobs": None,
            "finish_reason": reason,
        }
        | own
    )


def test_each_choice_says_its_call() -> None:
    call = read(functions=[FUNCTION], n=2, temperature=0)
    for choice in shown(answer("vllm", call, whole({"tool_calls": [tool(0)]}, finish_reason="tool_calls")))["choices"]:
        assert choice["message"]["function_call"] == CALL
        assert "tool_calls" not in choice["message"]
        assert choice["finish_reason"] == "function_call"


@pytest.mark.parametrize(
    ("name", "choice", "reason"),
    [("12c_tools_required", "auto", "function_call"), ("12d_tools_named", {"name": "get_w"}, "stop")],
)
def test_a_recorded_call_of_tgis_is_a_function_call(name: str, choice: Any, reason: str) -> None:
    recorded = load(f"tgi/{name}")
    call = read(functions=[FUNCTION], function_call=choice)
    for stream in (False, True):
        completion = answer("tgi", call, recorded.response_body, recorded.response_headers)
        wanted = {"name": "get_w", "arguments": '{"loc":"NY"}'}
        if not stream:
            (one,) = shown(completion)["choices"]
            assert (one["message"]["function_call"], one["finish_reason"]) == (wanted, reason)
            continue
        deltas = [plain(chunk)["choices"][0] for chunk in functions.events(as_chunks(completion))]
        assert [one["delta"].get("function_call") for one in deltas] == [None, wanted, None]
        assert [one["finish_reason"] for one in deltas] == [None, None, reason]


def test_chunks_say_the_call_piece_by_piece() -> None:
    """The first has the name, the others arguments; no ids, no indexes."""
    pieces = [
        {"index": 0, "id": "x", "type": "function", "function": {"name": "get_w"}},
        {"index": 0, "function": {"arguments": "{"}},
        {"index": 0, "function": {"arguments": "}"}},
    ]
    stream = events(
        {"delta": {"role": "assistant", "content": ""}},
        *({"delta": {"tool_calls": [piece]}} for piece in pieces),
        {"delta": {}, "finish_reason": "tool_calls"},
    )
    backend = BACKENDS["vllm"]
    call = read(functions=[FUNCTION], stream=True)
    decoder = backend.decoder(call, backend.encode(call, "m")[0])
    choices = [plain(one)["choices"][0] for one in functions.events(decoder.feed(stream + b"data: [DONE]\n\n"))]
    assert [one["delta"] for one in choices] == [
        {"role": "assistant", "content": ""},
        {"function_call": {"name": "get_w", "arguments": ""}},
        {"function_call": {"arguments": "{"}},
        {"function_call": {"arguments": "}"}},
        {},
    ]
    assert [one["finish_reason"] for one in choices] == [None] * 4 + ["function_call"]
    assert heard(backend, call, [stream + b"data: [DONE]\n\n"]).finished


def test_chunks_with_unknown_fields_stay_as_they_are() -> None:
    chunk = {"choices": [{"delta": {"content": "a"}}], "new": 1}
    assert functions.events([chunk]) == [{"choices": [{"delta": {"content": "a"}}], "new": 1}]
