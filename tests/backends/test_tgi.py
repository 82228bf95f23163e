"""TGI's dialect: what it is sent, and what a client reads of what a real TGI 3.3.7 was recorded to answer."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from backends.base import BackendError, Call, Cause, Completion, FollowUp, UpstreamRequest
from backends.schema import ChatRequest
from backends.tgi import TGI
from tests.support.dialects import (
    GARBAGE,
    HI,
    TOOL,
    Heard,
    all_decoded,
    call_of,
    chat,
    decoded,
    end_of_answer,
    heard,
    plain,
    text,
)
from tests.support.recorded import Recorded, load, names

BACKEND = TGI()
CHAT, WHOLE, STREAM = "/v1/chat/completions", "/generate", "/generate_stream"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"type": "function", "function": {"name": "f"}}
ASKED = {"tools": [TOOL], "tool_choice": "auto"}
GREEDY = {"temperature": 0.0}


def tool(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | more}


USAGE = {"stream": True, "stream_options": {"include_usage": True}}

LIMIT = {"max_tokens": 4}  # without one, a chat is asked for as a stream: see STREAMED

# (what it is about, the client's fields beside a limit, TGI's beside model and messages, the parameters adapted)
CHATS: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ("nothing", {}, {}, ()),
    ("model", {"model": "theirs"}, {}, ()),
    ("nulls", {"stream": None, "stop": None, "top_p": None, "tools": None, "tool_choice": None, "new": None}, {}, ()),
    ("neutral fields", {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex"}, {}, ()),
    ("defaults", {"parallel_tool_calls": True, "presence_penalty": 0, "frequency_penalty": 0.0}, {}, ()),
    ("no bias", {"logit_bias": {}}, {}, ()),
    ("modalities", {"modalities": ["text"]}, {}, ()),
    ("max_tokens", {"max_tokens": 5}, {"max_tokens": 5}, ()),
    ("max_completion_tokens", {"max_completion_tokens": 5}, {"max_tokens": 5}, ()),
    ("both limits", {"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}, ()),
    ("both limits, a null", {"max_tokens": 5, "max_completion_tokens": None}, {"max_tokens": 5}, ()),
    ("the most tokens of a piece", {"max_tokens": 1024}, {"max_tokens": 1024}, ()),
    ("temperature", {"temperature": 2}, {"temperature": 2.0}, ()),
    ("a temperature as vLLM raises it", {"temperature": 0.001}, {"temperature": 0.01}, ()),
    ("greedy", {"temperature": 0}, GREEDY, ()),
    ("greedy, with what would undo it", {"temperature": 0, "top_p": 0.5, "seed": 3}, GREEDY, ()),
    ("top_p 0", {"top_p": 0, "temperature": 1.5}, GREEDY, ()),
    ("top_p 1", {"top_p": 1, "temperature": 0.5}, {"temperature": 0.5}, ()),
    ("top_p", {"top_p": 0.5}, {"top_p": 0.5}, ()),
    ("seed", {"seed": 7}, {"seed": 7}, ()),
    ("seed 0", {"seed": 0}, {"seed": 0}, ()),
    ("seed -5", {"seed": -5}, {"seed": 2**63 - 5}, ()),
    ("least seed", {"seed": -(2**63)}, {"seed": 0}, ()),
    ("greatest seed", {"seed": 2**63 - 1}, {"seed": 2**63 - 1}, ()),
    ("no stops", {"stop": []}, {}, ()),
    ("logprobs", {"logprobs": True}, {"logprobs": True, "top_logprobs": 0}, ("logprobs",)),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 5}, {"logprobs": True, "top_logprobs": 5}, ("logprobs",)),
    ("no logprobs", {"logprobs": False}, {}, ()),
    ("stream", {"stream": True}, USAGE, ()),
    ("no stream", {"stream": False}, {}, ()),
    ("no usage wanted", {"stream": True, "stream_options": {"include_usage": False}}, USAGE, ()),
    ("text", {"response_format": {"type": "text"}}, {}, ()),
    (
        "json_schema",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}},
        {"response_format": {"type": "json_schema", "value": {"name": "a", "schema": SCHEMA}}},
        ("response_format",),
    ),
    (
        "TGI's own format",
        {"response_format": {"type": "regex", "value": "[0-9]"}},
        {"response_format": {"type": "regex", "value": "[0-9]"}},
        ("response_format",),
    ),
    ("tools", {"tools": [TOOL]}, ASKED, ("tools",)),
    ("tools auto", {"tools": [TOOL], "tool_choice": "auto"}, ASKED, ("tools",)),
    ("tools null", {"tools": [TOOL], "tool_choice": None}, ASKED, ("tools",)),
    ("tools required", {"tools": [TOOL], "tool_choice": "required"}, ASKED | {"tool_choice": "required"}, ("tools",)),
    ("tools named", {"tools": [TOOL], "tool_choice": NAMED}, ASKED | {"tool_choice": NAMED}, ("tools",)),
    ("tools none", {"tools": [TOOL], "tool_choice": "none"}, {}, ()),
    ("no tools", {"tools": []}, {}, ()),
    ("tools are asked for whole", {"tools": [TOOL], "stream": True}, ASKED, ("tools",)),
    ("tools none stream", {"tools": [TOOL], "tool_choice": "none", "stream": True}, USAGE, ()),
    ("a tool without parameters", {"tools": [NAMED]}, ASKED, ("tools",)),
    (
        "a tool in full",
        {"tools": [tool(description="d", parameters=SCHEMA, strict=True)]},
        {"tools": [tool(description="d", parameters=SCHEMA)], "tool_choice": "auto"},
        ("tools",),
    ),
]


@pytest.mark.parametrize(("fields", "sent", "adapted"), [row[1:] for row in CHATS], ids=[row[0] for row in CHATS])
def test_a_chat(fields: dict[str, Any], sent: dict[str, Any], adapted: tuple[str, ...]) -> None:
    """Built from an allow-list: nothing null, nothing at its default, nothing that TGI rejects."""
    call = chat(**LIMIT | fields)
    (request,) = BACKEND.encode(call, "tgi")
    assert json.loads(request.body) == {"model": "tgi", "messages": HI} | LIMIT | sent
    assert (request.path, request.choices, request.prompt) == (CHAT, (0,), 0)
    assert request.stream is ("stream" in sent)
    assert request.adapted == adapted
    assert BACKEND.unsupported(call) is None


# What is asked for as a stream, wanted so by the client or not: (the client's fields, TGI's, the parameters adapted).
STREAMED: list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]] = [
    ("no limit", {}, {}, ()),
    ("a null", {"max_tokens": None}, {}, ()),
    ("text", {"response_format": {"type": "text"}}, {}, ()),
    ("more than a piece", {"max_tokens": 1025}, {"max_tokens": 1024}, ("max_tokens",)),
    ("far more", {"max_completion_tokens": 5000}, {"max_tokens": 1024}, ("max_tokens",)),
    ("stop, a text", {"stop": "a"} | LIMIT, {"stop": ["a"]} | LIMIT, ("stop",)),
    ("stop, a list", {"stop": ["a", "b"]} | LIMIT, {"stop": ["a", "b"]} | LIMIT, ("stop",)),
    ("stop and length", {"stop": "a", "max_tokens": 2000}, {"stop": ["a"], "max_tokens": 1024}, ("stop", "max_tokens")),
    ("tools, not to be called", {"tools": [TOOL], "tool_choice": "none"}, {}, ()),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "sent", "adapted"), [row[1:] for row in STREAMED], ids=[row[0] for row in STREAMED])
def test_a_chat_that_the_gateway_may_have_to_end_or_to_continue(
    fields: dict[str, Any], sent: dict[str, Any], adapted: tuple[str, ...], stream: bool
) -> None:
    """Goes upstream as a stream: TGI misses stops inside tokens, and goes wrong behind 1,024 of them."""
    (request,) = BACKEND.encode(chat(**fields, stream=stream), "tgi")
    assert json.loads(request.body) == {"model": "tgi", "messages": HI} | USAGE | sent
    assert (request.stream, request.adapted) == (True, adapted)


BOUND: list[dict[str, Any]] = [
    {"tools": [TOOL]},
    {"response_format": {"type": "json_object"}},
    {"structured_outputs": {"regex": "a"}},
]


@pytest.mark.parametrize("fields", BOUND)
@pytest.mark.parametrize("limit", [None, 4, 1024, 5000])
def test_what_a_grammar_binds_is_never_continued(fields: dict[str, Any], limit: int | None) -> None:
    (request,) = BACKEND.encode(chat(**fields, max_tokens=limit), "tgi")
    body = json.loads(request.body)
    assert not request.stream
    assert body.get("max_tokens") == (limit and min(limit, 1024))
    assert "max_tokens" not in request.adapted


def call_in_history(arguments: str) -> dict[str, Any]:
    return {"id": "x", "type": "function", "function": {"name": "f", "arguments": arguments}}


MESSAGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("text", {"role": "user", "content": "a"}, {"role": "user", "content": "a"}),
    ("any role", {"role": "wizard", "content": "a"}, {"role": "wizard", "content": "a"}),
    ("a name", {"role": "user", "content": "a", "name": "n"}, {"role": "user", "content": "a", "name": "n"}),
    ("nulls", {"role": "user", "content": "a", "name": None}, {"role": "user", "content": "a"}),
    (
        "parts are joined by a line feed",
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "a\nb"},
    ),
    ("no parts", {"role": "user", "content": []}, {"role": "user", "content": ""}),
    ("an assistant who said nothing", {"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
    ("no tool calls", {"role": "assistant", "content": "a", "tool_calls": []}, {"role": "assistant", "content": "a"}),
    (
        "a tool call: no content, arguments as an object",
        {"role": "assistant", "content": "", "tool_calls": [call_in_history('{"a": [1, null]}')]},
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "x", "type": "function", "function": {"name": "f", "arguments": {"a": [1, None]}}},
            ],
        },
    ),
    ("a tool's answer", {"role": "tool", "content": "1", "tool_call_id": "x"}, {"role": "tool", "content": "1"}),
]


@pytest.mark.parametrize(("said", "sent"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_a_message(said: dict[str, Any], sent: dict[str, Any]) -> None:
    call = chat(messages=[said])
    (request,) = BACKEND.encode(call, "tgi")
    assert json.loads(request.body)["messages"] == [sent]
    assert BACKEND.unsupported(call) is None


@pytest.mark.parametrize("arguments", ["null", "7", '"a"', "[1]", "{", "[" * 100_000, '{"a":' * 100_000, "1e999"])
def test_arguments_that_are_no_object_stay_a_text(arguments: str) -> None:
    """A model wrote them; TGI would write a text into JSON once more, and refuses a null."""
    message = {"role": "assistant", "tool_calls": [call_in_history(arguments)]}
    (request,) = BACKEND.encode(chat(messages=[message]), "tgi")
    (sent,) = json.loads(request.body)["messages"][0]["tool_calls"]
    assert sent["function"]["arguments"] == arguments


N_CHATS: list[tuple[dict[str, Any], list[tuple[dict[str, Any], tuple[int, ...]]]]] = [
    ({"n": 1}, [({}, (0,))]),
    ({"n": 2}, [({}, (0,)), ({}, (1,))]),
    ({"n": 3, "seed": 7}, [({"seed": 7}, (0,)), ({"seed": 8}, (1,)), ({"seed": 9}, (2,))]),
    ({"n": 2, "seed": -1}, [({"seed": 2**63 - 1}, (0,)), ({"seed": 0}, (1,))]),
    ({"n": 2, "seed": 2**63 - 1}, [({"seed": 2**63 - 1}, (0,)), ({"seed": 0}, (1,))]),
    ({"n": 3, "temperature": 0}, [(GREEDY, (0, 1, 2))]),
    ({"n": 2, "top_p": 0, "seed": 1}, [(GREEDY, (0, 1))]),
    ({"n": 2, "stream": True}, [(USAGE, (0,)), (USAGE, (1,))]),
]


@pytest.mark.parametrize(("fields", "requests"), N_CHATS)
def test_n(fields: dict[str, Any], requests: list[tuple[dict[str, Any], tuple[int, ...]]]) -> None:
    """One request for each choice, each with its own seed; greedy ones, which are all the same, once."""
    sent = BACKEND.encode(chat(**LIMIT | fields), "tgi")
    assert [(json.loads(one.body), one.choices) for one in sent] == [
        ({"model": "tgi", "messages": HI} | LIMIT | body, choices) for body, choices in requests
    ]
    assert all(one.adapted == (("n",) if fields["n"] > 1 else ()) for one in sent)
    assert all(one.prompt == 0 for one in sent)


SAMPLED = {"details": True, "max_new_tokens": 16, "do_sample": True}
PLAIN = {"details": True, "max_new_tokens": 16, "do_sample": False}

# (what it is about, the client's body, each request's prompt, parameters and choices, the parameters adapted)
TEXTS: list[tuple[str, dict[str, Any], list[tuple[str, dict[str, Any], tuple[int, ...]]], tuple[str, ...]]] = [
    ("nothing", {"prompt": "a"}, [("a", SAMPLED, (0,))], ()),
    ("max_tokens", {"prompt": "a", "max_tokens": 5}, [("a", SAMPLED | {"max_new_tokens": 5}, (0,))], ()),
    ("max_tokens null", {"prompt": "a", "max_tokens": None}, [("a", SAMPLED, (0,))], ()),
    ("greedy", {"prompt": "a", "temperature": 0, "seed": 1, "top_p": 0.5}, [("a", PLAIN, (0,))], ()),
    ("top_p 0", {"prompt": "a", "top_p": 0}, [("a", PLAIN, (0,))], ()),
    ("top_p 1", {"prompt": "a", "top_p": 1}, [("a", SAMPLED, (0,))], ()),
    ("top_p", {"prompt": "a", "top_p": 0.5}, [("a", SAMPLED | {"top_p": 0.5}, (0,))], ()),
    ("temperature", {"prompt": "a", "temperature": 0.001}, [("a", SAMPLED | {"temperature": 0.01}, (0,))], ()),
    ("stop", {"prompt": "a", "stop": "b"}, [("a", SAMPLED | {"stop": ["b"]}, (0,))], ("stop",)),
    ("logprobs", {"prompt": "a", "logprobs": 2}, [("a", SAMPLED | {"top_n_tokens": 2}, (0,))], ("logprobs",)),
    ("logprobs 0", {"prompt": "a", "logprobs": 0}, [("a", SAMPLED | {"top_n_tokens": 0}, (0,))], ("logprobs",)),
    ("echo", {"prompt": "a", "echo": True}, [("a", SAMPLED, (0,))], ("echo",)),
    ("one of a list", {"prompt": ["a"]}, [("a", SAMPLED, (0,))], ()),
    ("best_of", {"prompt": "a", "best_of": 1}, [("a", SAMPLED, (0,))], ()),
    (
        "more than a piece",
        {"prompt": "a", "max_tokens": 1025},
        [("a", SAMPLED | {"max_new_tokens": 1024}, (0,))],
        ("max_tokens",),
    ),
    (
        "only the echo: TGI writes one token at least",
        {"prompt": "a", "echo": True, "max_tokens": 0},
        [("a", SAMPLED | {"max_new_tokens": 1}, (0,))],
        ("echo",),
    ),
    (
        "structured outputs",
        {"prompt": "a", "structured_outputs": {"regex": "b"}, "max_tokens": 5000},
        [("a", SAMPLED | {"max_new_tokens": 1024, "grammar": {"type": "regex", "value": "b"}}, (0,))],
        ("structured_outputs",),
    ),
    ("neutral", {"prompt": "a", "user": "u", "suffix": None, "presence_penalty": 0}, [("a", SAMPLED, (0,))], ()),
    ("prompts", {"prompt": ["a", "b"]}, [("a", SAMPLED, (0,)), ("b", SAMPLED, (1,))], ("prompt",)),
    (
        "prompts and n",
        {"prompt": ["a", "b"], "n": 2, "seed": 7},
        [
            ("a", SAMPLED | {"seed": 7}, (0,)),
            ("a", SAMPLED | {"seed": 8}, (1,)),
            ("b", SAMPLED | {"seed": 7}, (2,)),
            ("b", SAMPLED | {"seed": 8}, (3,)),
        ],
        ("prompt", "n"),
    ),
    (
        "prompts and n greedy",
        {"prompt": ["a", "b"], "n": 2, "temperature": 0},
        [("a", PLAIN, (0, 1)), ("b", PLAIN, (2, 3))],
        ("prompt", "n"),
    ),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fields", "sent", "adapted"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_a_completion(
    fields: dict[str, Any],
    sent: list[tuple[str, dict[str, Any], tuple[int, ...]]],
    adapted: tuple[str, ...],
    stream: bool,
) -> None:
    """To TGI's own `/generate`, with details, one request for each prompt and choice."""
    call = text(**fields, stream=stream)
    stream = stream or bool({"stop", "max_tokens"} & set(adapted))
    requests = BACKEND.encode(call, "tgi")
    assert [(json.loads(one.body), one.choices) for one in requests] == [
        ({"inputs": prompt, "parameters": settings}, choices) for prompt, settings, choices in sent
    ]
    assert {one.path for one in requests} == {STREAM if stream else WHOLE}
    assert {one.stream for one in requests} == {stream}
    assert {one.adapted for one in requests} == {adapted}
    prompts = fields["prompt"] if isinstance(fields["prompt"], list) else [fields["prompt"]]
    assert [prompts[one.prompt] for one in requests] == [row[0] for row in sent]
    assert BACKEND.unsupported(call) is None


IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
ARRAY = {"type": "array", "items": {"type": "integer"}}
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"top_k": 5}, "top_k"),
    ({"new": False}, "new"),
    ({"limit": 3}, "limit"),
    ({"structured_outputs": {"grammar": "root ::= a"}}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a"}, "tools": [TOOL]}, "structured_outputs"),
    ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}}, "structured_outputs"),
    ({"tools": [tool(parameters={"$ref": "#/$defs/a"})]}, "tools[0].function.parameters"),
    ({"frequency_penalty": 0.1}, "frequency_penalty"),
    ({"presence_penalty": -0.1}, "presence_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"n": 17}, "n"),
    ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "response_format"),
    ({"response_format": {"type": "structural_tag"}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}, "response_format"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": ARRAY}}}, "response_format"),
    ({"response_format": {"type": "json", "value": SCHEMA}, "tools": [TOOL]}, "response_format"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content"),
    ({"messages": [*HI, {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}]}, "messages[1].content"),
    ({"prompt": "a", "top_k": 5}, "top_k"),
    ({"prompt": "a", "max_completion_tokens": 5}, "max_completion_tokens"),
    ({"prompt": "a", "tools": []}, "tools"),
    ({"prompt": [1, 2]}, "prompt"),
    ({"prompt": [[1], [2]]}, "prompt"),
    ({"prompt": "a", "echo": True, "logprobs": 0}, "echo"),
    ({"prompt": "a", "structured_outputs": {"grammar": "root ::= a"}}, "structured_outputs"),
    ({"prompt": "a", "presence_penalty": 1}, "presence_penalty"),
    ({"prompt": "a", "n": 17}, "n"),
]


@pytest.mark.parametrize(
    ("fields", "name"), UNSUPPORTED, ids=[f"{name} {i}" for i, (_, name) in enumerate(UNSUPPORTED)]
)
def test_what_tgi_would_drop_or_refuse_is_named(fields: dict[str, Any], name: str) -> None:
    call = call_of(fields if "prompt" in fields else {"messages": HI} | fields)
    assert BACKEND.unsupported(call) == name


def test_as_many_choices_as_are_allowed_are_supported() -> None:
    call = chat(n=16)
    assert BACKEND.unsupported(call) is None
    assert len(BACKEND.encode(call, "m")) == 16


# --- whole answers --------------------------------------------------------------------------------------------


def of(name: str, **more: Any) -> tuple[Call, Recorded]:
    """A recorded chat, as a client of the gateway's would have asked for it."""
    recorded = load(f"tgi/{name}")
    return call_of(json.loads(recorded.body) | {"model": "ours"} | more), recorded


def answered(name: str, **more: Any) -> dict[str, Any]:
    call, recorded = of(name, **more)
    return decoded(BACKEND, call, recorded.response_body, recorded.response_headers)


def said(content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "refusal": None} | more


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def tool_call(name: str, arguments: str) -> list[dict[str, Any]]:
    return [{"id": "call_", "type": "function", "function": {"name": name, "arguments": arguments}}]


def masked(value: Any) -> Any:
    return json.loads(re.sub(r'"call_[0-9a-f]{24}"', '"call_"', json.dumps(value)))


CALLED = said(None, tool_calls=tool_call("get_w", '{"loc":"NY"}'))
PARIS = said(None, tool_calls=tool_call("pick", '{"city":"Paris"}'))
ROME = said(None, tool_calls=tool_call("pick", '{"city":"Rome"}'))

# recording, message, finish reason, usage
WHOLE_CHATS: list[tuple[str, dict[str, Any], str, dict[str, int]]] = [
    ("01_chat_plain", said("session" * 8), "length", usage(12, 8)),
    ("04_chat_n2", said("macooleansonPIf"), "length", usage(12, 4)),
    ("07b_chat_stop_list", said("se"), "stop", usage(12, 1)),
    ("08_chat_max_tokens_1", said("session"), "length", usage(12, 1)),
    ("12c_tools_required", CALLED, "tool_calls", usage(188, 34)),
    ("12d_tools_named", CALLED, "stop", usage(188, 34)),
    ("12e_tools_none", said("session" * 2), "length", usage(12, 2)),
    ("N80_chat_rf_regex", said("331"), "stop", usage(12, 3)),
    ("N103_tools_enum_required", ROME, "tool_calls", usage(177, 36)),
    ("N105_tools_enum_named", ROME, "stop", usage(177, 36)),
    ("N107_tools_enum_auto_seed02", PARIS, "tool_calls", usage(229, 32)),
    ("N107_tools_enum_auto_seed09", ROME, "tool_calls", usage(229, 36)),
    ("N97_stop_in_token", said("s"), "stop", usage(12, 6)),
]


@pytest.mark.parametrize(("name", "message", "finish", "tokens"), WHOLE_CHATS, ids=[row[0] for row in WHOLE_CHATS])
def test_a_recorded_chat_is_openais(name: str, message: dict[str, Any], finish: str, tokens: dict[str, int]) -> None:
    """The gateway's own head, the client's name for the model; nothing of TGI's is left."""
    more = {"n": None} if name.startswith("04") else {}
    assert masked(answered(name, **more)) == {
        "id": "chatcmpl-r",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "ours",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": tokens,
    }


@pytest.mark.parametrize(
    ("name", "written", "finish"),
    [("N107_tools_enum_auto_seed06", 200, "length"), ("N130_tools_auto_no_tool", 40, "length")],
)
def test_a_tool_not_called_is_counted_by_the_header(name: str, written: int, finish: str) -> None:
    """The body's count and finish reason are those of the hidden generation that chose `no_tool`."""
    call, recorded = of(name)
    answer = answered(name)
    inside = json.loads(recorded.response_body)
    assert inside["usage"]["completion_tokens"] == 26
    assert answer["usage"] == usage(12, written)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == finish
    assert choice["message"] == said(inside["choices"][0]["message"]["content"])
    more = of(name, max_tokens=written + 1)[0]
    longer = decoded(BACKEND, more, recorded.response_body, recorded.response_headers)
    assert longer["choices"][0]["finish_reason"] == "stop"
    without = decoded(BACKEND, call, recorded.response_body)
    assert without["usage"] == usage(12, 26)


def test_logprobs_of_a_hidden_generation_are_left_out() -> None:
    body = json.loads(load("tgi/05_chat_logprobs").response_body)
    call = chat(logprobs=True, tools=[TOOL])
    answer = decoded(BACKEND, call, json.dumps(body).encode(), {"x-generated-tokens": "3"})
    assert answer["choices"][0]["logprobs"] is None


def with_bytes(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [token | {"bytes": list(token["token"].encode())} for token in tokens]


@pytest.mark.parametrize(
    "name", ["05_chat_logprobs", "06_chat_top_logprobs", "N109_logprobs_sampled", "L06_top_logprobs_20"]
)
def test_recorded_logprobs_get_their_bytes(name: str) -> None:
    call, recorded = of(name)
    content = json.loads(recorded.response_body)["choices"][0]["logprobs"]["content"]
    assert isinstance(call.view, ChatRequest)
    most = call.view.top_logprobs or 0
    wanted = [one | {"top_logprobs": with_bytes(one["top_logprobs"])} for one in with_bytes(content)]
    assert answered(name)["choices"][0]["logprobs"] == {"content": wanted, "refusal": None}
    assert all(len(one["top_logprobs"]) == most for one in wanted)


def test_more_likely_tokens_than_were_asked_for_are_cut() -> None:
    """On ties TGI sends more."""
    content = answered("06_chat_top_logprobs", top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in content] == [2, 2]


def test_n_greedy_chats_are_one_answer_repeated() -> None:
    """The very request that vLLM refuses (recorded: 04c)."""
    answer = answered("04c_chat_n2_greedy_rejected")
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["message"] for choice in answer["choices"]] == [said("session" * 4)] * 2
    assert answer["usage"] == usage(12, 8)


def test_tool_calls_of_greedy_choices_have_ids_of_their_own() -> None:
    choices = answered("12c_tools_required", n=2)["choices"]
    ids = [choice["message"]["tool_calls"][0]["id"] for choice in choices]
    assert len(set(ids)) == 2
    assert all(re.fullmatch("call_[0-9a-f]{24}", one) for one in ids)


def test_n_sampled_chats_are_merged_in_order() -> None:
    """The prompt counted once, what was written for each; the recordings are seeds 7 and 8."""
    call, first = of("25_n1_seed7", n=2)
    second = load("tgi/25b_n1_seed8")
    answer = all_decoded(BACKEND, call, [(one.response_body, one.response_headers) for one in (first, second)])
    assert [(one["index"], one["message"]["content"]) for one in answer["choices"]] == [
        (0, "macooleansonPIf"),
        (1, "ueultiDictinceicro"),
    ]
    assert answer["usage"] == usage(12, 8)
    seeds = [json.loads(one.body)["seed"] for one in BACKEND.encode(call, "m")]
    assert seeds == [json.loads(one.body)["seed"] for one in (first, second)]


def test_arguments_of_an_older_tgi_are_written_as_a_text() -> None:
    """Before 3.2 they were an object."""
    body = json.loads(load("tgi/12c_tools_required").response_body)
    function = body["choices"][0]["message"]["tool_calls"][0]["function"]
    for arguments, shown in [({"loc": "NY"}, '{"loc":"NY"}'), ({}, "{}"), (None, "{}")]:
        function["arguments"] = arguments
        answer = decoded(BACKEND, of("12c_tools_required")[0], json.dumps(body).encode())
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == shown


def test_a_whole_chat_that_tgi_has_lost_is_asked_for_as_a_stream() -> None:
    """Its last token ends inside a character (CONTRACT.md 3.2)."""
    call = chat(max_tokens=5)
    (request,) = TGI().encode(call, "tgi")
    lost = {
        "choices": [{"index": 0, "message": said(""), "finish_reason": "length"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5},
    }
    again = TGI().decode(call, request, {}, json.dumps(lost).encode())
    assert isinstance(again, FollowUp)
    assert again.request.stream
    assert json.loads(again.request.body) == json.loads(request.body) | {
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    answer = TGI().decode(call, again.request, {}, json.dumps(lost).encode())
    assert isinstance(answer, Completion), "which happens once"


def test_a_whole_text_that_tgi_has_lost_is_that_of_its_tokens() -> None:
    call = text(prompt="x", max_tokens=3)
    (request,) = TGI().encode(call, "tgi")
    tokens = [{"id": 1, "text": "a"}, {"id": 2, "text": "<s>", "special": True}, {"id": 3, "text": ""}]
    details = {"finish_reason": "length", "generated_tokens": 3, "tokens": tokens}
    answer = TGI().decode(call, request, {}, json.dumps({"generated_text": "", "details": details}).encode())
    assert isinstance(answer, Completion)
    assert answer.answer.choices[0].text == "a"


# recording of `/generate`, the client's fields, text, finish reason, usage
WHOLE_TEXTS: list[tuple[str, dict[str, Any], str, str, dict[str, int]]] = [
    ("N02_generate_details", {}, " main" * 4, "length", usage(2, 4)),
    ("N02_generate_details", {"echo": True}, "def main" + " main" * 4, "length", usage(2, 4)),
    ("N08_generate_stop", {"stop": "in"}, " ma", "stop", usage(2, 1)),
    ("N08c_generate_stop_two_tokens", {"stop": ["main main"]}, " ", "stop", usage(2, 2)),
    ("N09_generate_stop_inside_token", {"stop": ["ai"], "echo": True}, "def main m", "stop", usage(2, 8)),
    ("N119_generate_eos", {}, " length Path ip\ufffdmax dataround instead", "stop", usage(2, 9)),
]


@pytest.mark.parametrize(("name", "fields", "shown", "finish", "tokens"), WHOLE_TEXTS)
def test_a_recorded_generation_is_a_completion(
    name: str, fields: dict[str, Any], shown: str, finish: str, tokens: dict[str, int]
) -> None:
    recorded = load(f"tgi/{name}")
    call = text(prompt="def main", model="ours", **fields)
    assert decoded(BACKEND, call, recorded.response_body, recorded.response_headers) == {
        "id": "cmpl-r",
        "object": "text_completion",
        "created": 1700000000,
        "model": "ours",
        "choices": [{"index": 0, "text": shown, "logprobs": None, "finish_reason": finish}],
        "usage": tokens,
    }


LEGACY = {
    "text_offset": [0, 5, 10],
    "token_logprobs": [-7.2175517, -7.190316, -7.2315445],
    "tokens": [" main"] * 3,
    "top_logprobs": [
        {" main": -7.2175517, ' """': -7.5219116, " ext": -7.5574894},
        {" main": -7.190316, " ext": -7.511971, "PATH": -7.523313},
        {" main": -7.2315445, "PATH": -7.5360126, " ext": -7.5432444},
    ],
}


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_recorded_tokens_become_the_legacy_logprobs(most: int) -> None:
    """As many of the likeliest as were asked for, and always the token itself."""
    recorded = load("tgi/N03_generate_details_top_n")
    answer = decoded(BACKEND, text(prompt="def main", logprobs=most), recorded.response_body)
    tops = [dict(list(top.items())[: max(most, 1)]) for top in LEGACY["top_logprobs"]]  # type: ignore[attr-defined]
    assert answer["choices"][0]["logprobs"] == LEGACY | {"top_logprobs": tops}


def test_a_token_that_is_not_among_the_likeliest_is_added() -> None:
    body = json.loads(load("tgi/N03_generate_details_top_n").response_body)
    body["details"]["tokens"][0] |= {"text": " def", "logprob": -9.5}
    answer = decoded(BACKEND, text(prompt="a", logprobs=1), json.dumps(body).encode())
    assert answer["choices"][0]["logprobs"]["top_logprobs"][0] == {" main": -7.2175517, " def": -9.5}
    assert answer["choices"][0]["logprobs"]["text_offset"] == [0, 4, 9]


def test_several_prompts_are_merged_in_order() -> None:
    call = text(prompt=["def main", "b"], n=2, temperature=0, echo=True)
    first, second = load("tgi/N02_generate_details"), load("tgi/N119_generate_eos")
    answer = all_decoded(BACKEND, call, [(one.response_body, one.response_headers) for one in (first, second)])
    assert [(one["index"], one["text"][:9]) for one in answer["choices"]] == [
        (0, "def main "),
        (1, "def main "),
        (2, "b length "),
        (3, "b length "),
    ]
    assert answer["usage"] == usage(4, 26)


def test_a_usage_with_fields_that_nobody_knows_is_a_usage() -> None:
    """Whole and streamed; nothing of them passes, as TGI has no details to tell."""
    new = b'"usage":{"new":{"a":1},"prompt_tokens_details":null,"prompt_tokens"'
    for name in ("01_chat_plain", "03_chat_stream_include_usage"):
        call, recorded = of(name)
        body = recorded.response_body.replace(b'"usage":{"prompt_tokens"', new)
        assert new in body
        if call.stream:
            assert plain(heard(BACKEND, call, [body]).usage) == usage(12, 4)
        else:
            assert decoded(BACKEND, call, body, recorded.response_headers)["usage"] == usage(12, 8)


OTHERS = [
    "vllm/16_completion_plain",
    "vllm/22_responses",
    "vllm/17_models",
    "tgi/N60_info",
]


@pytest.mark.parametrize(
    "body", [*GARBAGE, *(load(name).response_body for name in OTHERS)], ids=lambda body: repr(body[:40])
)
def test_garbage_is_no_answer(body: bytes) -> None:
    """Never an exception but BackendError, whatever a server sends with status 200."""
    for call in (chat(), text(prompt="a"), chat(tools=[TOOL]), text(prompt="a", logprobs=1)):
        with pytest.raises(BackendError) as raised:
            decoded(BACKEND, call, body)
        assert raised.value.cause is Cause.PROTOCOL_ERROR
    if b"max_total_tokens" not in body:
        with pytest.raises(BackendError) as raised:
            BACKEND.served(body)
        assert raised.value.cause is Cause.PROTOCOL_ERROR


@pytest.mark.parametrize("count", ["many", "1.5", "1" * 5000])
def test_a_count_that_is_none_is_nonsense(count: str) -> None:
    for call, name, header in [
        (of("N130_tools_auto_no_tool")[0], "tgi/N130_tools_auto_no_tool", "x-generated-tokens"),
        (text(prompt="a"), "tgi/N02_generate_details", "x-prompt-tokens"),
    ]:
        with pytest.raises(BackendError) as raised:
            decoded(BACKEND, call, load(name).response_body, {header: count})
        assert raised.value.cause is Cause.PROTOCOL_ERROR


def test_the_end_of_a_body_changes_nothing_that_is_settled() -> None:
    for name, settled in (("02_chat_stream", None), ("L11_overload_chat_stream", Cause.OVERLOADED)):
        call, recorded = of(name)
        decoder = BACKEND.decoder(call, BACKEND.encode(call, "m")[0])
        decoder.feed(recorded.response_body)
        decoder.end()
        assert decoder.finished is (settled is None)
        assert getattr(decoder.failure, "cause", None) is settled


def test_info_is_read() -> None:
    """A request calls the model `tgi`: any other name would ask for an adapter."""
    (served,) = BACKEND.served(load("tgi/N60_info").response_body)
    assert (served.name, served.model, served.max_model_len) == ("tiny", "tgi", 1024)


# --- streams --------------------------------------------------------------------------------------------------

ROLE = ({"role": "assistant", "content": ""}, None)


def pieces(*texts: str, finish: str = "length") -> list[tuple[dict[str, Any], str | None]]:
    """A role, the texts, and the finish reason beside the last."""
    return [ROLE, *(({"content": one}, None) for one in texts[:-1]), ({"content": texts[-1]}, finish)]


SESSIONS = pieces(*["session"] * 4)

# recording, deltas and finish reasons, usage
CHAT_STREAMS: list[tuple[str, list[tuple[dict[str, Any], str | None]], dict[str, int] | None]] = [
    ("02_chat_stream", SESSIONS, None),
    ("03_chat_stream_include_usage", SESSIONS, usage(12, 4)),
    ("24c_continuous_usage", pieces("session", "session"), usage(12, 2)),
    ("13d_unknown_model_stream", SESSIONS, None),
    ("N102_stop_stream", pieces("sessi", finish="stop"), usage(12, 1)),
]
N131 = "N131_tools_auto_no_tool_stream"
CUTTABLE = [
    *(row[0] for row in CHAT_STREAMS),
    "07d_chat_stop_stream",
    "02b_chat_stream_raw_wire_chunked",
    "06e_chat_stream_logprobs",
]


@pytest.mark.parametrize(("name", "shown", "tokens"), CHAT_STREAMS, ids=[row[0] for row in CHAT_STREAMS])
def test_a_recorded_chat_stream_is_openais(
    name: str, shown: list[tuple[dict[str, Any], str | None]], tokens: dict[str, int] | None
) -> None:
    """A role first and once, the texts, a finish reason; the usage apart."""
    call, recorded = of(name)
    got = heard(BACKEND, call, [recorded.response_body])
    assert got.events == [
        {
            "id": "chatcmpl-r",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "ours",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        for delta, finish in shown
    ]
    assert (plain(got.usage), got.finished, got.failure) == (tokens, True, None)


def test_a_recorded_stream_of_a_tool_not_called_is_its_text() -> None:
    """Streamed, the counts are right (its whole twin is N130)."""
    call, recorded = of(N131)
    got = heard(BACKEND, call, [recorded.response_body])
    spelt = "".join(event["choices"][0]["delta"]["content"] for event in got.events)
    assert spelt == answered("N130_tools_auto_no_tool")["choices"][0]["message"]["content"]
    assert got.events[-1]["choices"][0]["finish_reason"] == "length"
    assert (plain(got.usage), got.finished) == (usage(12, 40), True)


def test_an_end_of_sequence_ends_a_stream_without_text_of_its_own() -> None:
    call, recorded = of("N101_rf_regex_eos_stream")
    got = heard(BACKEND, call, [recorded.response_body])
    last = got.events[-1]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({"content": ""}, "stop")
    assert all(event["choices"][0]["delta"]["content"] for event in got.events[1:-1])


def test_recorded_logprobs_of_a_stream_get_their_bytes() -> None:
    call, recorded = of("06e_chat_stream_logprobs")
    got = heard(BACKEND, call, [recorded.response_body])
    shown = [event["choices"][0]["logprobs"] for event in got.events]
    assert shown[0] is None
    for logprobs, value in zip(shown[1:], [-7.5226398, -6.760217], strict=True):
        (session,) = with_bytes([{"token": "session", "logprob": value}])
        assert logprobs == {"content": [session | {"top_logprobs": [session]}], "refusal": None}


def test_a_silence_with_comments_hurts_nothing() -> None:
    """Recorded (F02): the engine stood still for 35 s."""
    call, recorded = of("F02_stream_stalled_35s_keepalive")
    assert b"\n:\n" in recorded.response_body
    got = heard(BACKEND, call, [recorded.response_body])
    assert got.finished
    assert got.events[-1]["choices"][0]["finish_reason"] == "length"


def test_n_greedy_chats_stream_side_by_side() -> None:
    call, recorded = of("03_chat_stream_include_usage", n=2)
    got = heard(BACKEND, call, [recorded.response_body])
    assert [event["choices"][0]["index"] for event in got.events] == [0, 1] * 5
    assert [event["choices"][0]["delta"] for event in got.events[::2]] == [delta for delta, _ in SESSIONS]
    assert [event["choices"][0]["delta"] for event in got.events[1::2]] == [delta for delta, _ in SESSIONS]
    assert plain(got.usage) == usage(12, 8)


@pytest.mark.parametrize(
    ("stop", "spelt", "finish", "written"),
    [
        (["sion", "session"], "", "stop", 1),
        (["nses"], "sessio", "stop", 2),
        (["nsessions"], "sessio", "stop", 3),
        (["ions", "nse"], "sess", "stop", 2),
        (["sessions", "ession"], "", "stop", 2),
        (["sessionx", "ns"], "sessio", "stop", 2),
        (["x"], "session" * 4, "length", 4),
        (["onx"], "session" * 4, "length", 4),
    ],
)
def test_a_stop_that_tgi_let_pass_is_cut_out(stop: list[str], spelt: str, finish: str, written: int) -> None:
    """Anywhere, also amid tokens; nothing follows it, and what TGI wrote beyond it is not counted."""
    call, recorded = of("03_chat_stream_include_usage", stop=stop)
    body = recorded.response_body
    for cut in ([body], [body[at : at + 1] for at in range(len(body))]):
        got = heard(BACKEND, call, cut)
        choices = [event["choices"][0] for event in got.events]
        assert "".join(choice["delta"]["content"] for choice in choices) == spelt
        assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + [finish]
        if finish == "length":
            assert (got.failure, plain(got.usage)) == (None, usage(12, written))
        else:  # the engine is still at work: its work is ended, and the prompt's tokens are still to be counted
            assert isinstance(got.failure, FollowUp)
            assert (got.failure.request.continuation.tokens, got.failure.request.continuation.ended) == (written, True)
    answer = decoded(BACKEND, chat(stop=stop), whole_twin())
    assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == (spelt, finish)


def whole_twin() -> bytes:
    """The whole answer of the streams' request (recorded: 04c)."""
    return load("tgi/04c_chat_n2_greedy_rejected").response_body


def test_a_stop_found_only_at_the_end_is_a_stop() -> None:
    """A longer one that might have begun before it never became whole."""
    call, recorded = of("N102_stop_stream", stop=["ionx", "on"])
    body = recorded.response_body.replace(b"stop_sequence", b"length")
    got = heard(BACKEND, call, [body])
    last = got.events[-1]["choices"][0]
    assert (last["delta"], last["finish_reason"]) == ({"content": "sessi"}, "stop")


# recording of `/generate_stream`, the client's fields, texts, finish reason, usage
TEXT_STREAMS: list[tuple[str, dict[str, Any], list[str], str, dict[str, int]]] = [
    ("N51_stream_details_top_n", {}, [" main"] * 3, "length", usage(2, 3)),
    ("N51_stream_details_top_n", {"echo": True}, ["def main main", " main", " main"], "length", usage(2, 3)),
    ("N51_stream_details_top_n", {"n": 2, "temperature": 0}, [" main"] * 3, "length", usage(2, 6)),
    ("N51_stream_details_top_n", {"stop": ["x", "mainx"]}, [" ", "main ", "main main"], "length", usage(2, 3)),
]


@pytest.mark.parametrize(("name", "fields", "texts", "finish", "tokens"), TEXT_STREAMS)
def test_a_recorded_generation_streams_as_a_completion(
    name: str, fields: dict[str, Any], texts: list[str], finish: str, tokens: dict[str, int]
) -> None:
    call = text(prompt="def main", stream=True, model="ours", **fields)
    got = heard(BACKEND, call, [load(f"tgi/{name}").response_body])
    reasons = [None] * (len(texts) - 1) + [finish]
    assert got.events == [
        {
            "id": "cmpl-r",
            "object": "text_completion",
            "created": 1700000000,
            "model": "ours",
            "choices": [{"index": index, "text": one, "logprobs": None, "finish_reason": reason}],
        }
        for one, reason in zip(texts, reasons, strict=True)
        for index in range(fields.get("n", 1))
    ]
    assert (plain(got.usage), got.finished, got.failure) == (tokens, True, None)


def test_the_legacy_logprobs_of_a_stream() -> None:
    """The offsets go on from chunk to chunk."""
    call = text(prompt="def main", stream=True, logprobs=2)
    got = heard(BACKEND, call, [load("tgi/N51_stream_details_top_n").response_body])
    assert [event["choices"][0]["logprobs"] for event in got.events] == [
        {"text_offset": [offset], "token_logprobs": [value], "tokens": [" main"], "top_logprobs": [tops]}
        for offset, value, tops in [
            (0, -7.2175517, {" main": -7.2175517, ' """': -7.5219116}),
            (5, -7.190316, {" main": -7.190316, " ext": -7.511971}),
            (10, -7.2315445, {" main": -7.2315445, "PATH": -7.5360126}),
        ]
    ]


def test_a_special_token_is_no_text() -> None:
    """Recorded (N58), with the details that the gateway always asks for."""
    body = load("tgi/N58_stream_grammar_regex").response_body
    details = b'"details":{"finish_reason":"eos_token","generated_tokens":6,"seed":null,"input_length":2}}'
    end = body.rindex(b'"details":null}')
    body = body[:end] + details + body[end + len(b'"details":null}') :]
    got = heard(BACKEND, text(prompt="a", stream=True), [body])
    choices = [event["choices"][0] for event in got.events]
    assert [choice["text"] for choice in choices] == ["9", "9", "9", "-", "33", ""]
    assert choices[-1]["finish_reason"] == "stop"
    assert (plain(got.usage), got.finished) == (usage(2, 6), True)


@pytest.mark.parametrize("name", ["N50_stream", "N52_stream_stop", "N57_stream_return_full_text", "N119b_stream_eos"])
def test_a_stream_without_details_was_cut(name: str) -> None:
    """They are always asked for, and are all that says why and when it ended."""
    got = heard(BACKEND, text(prompt="def main", stream=True), [load(f"tgi/{name}").response_body])
    assert (got.finished, got.cause) == (False, Cause.FAILED)


def cuttable(name: str) -> tuple[Call, bytes]:
    if name.startswith("N51"):
        return text(prompt="def main", stream=True, logprobs=2), load(f"tgi/{name}").response_body
    call, recorded = of(name)
    return call, recorded.response_body


@pytest.mark.parametrize("name", [*CUTTABLE, "N51_stream_details_top_n", N131, "F03_engine_killed_stream"])
def test_a_stream_is_the_same_however_it_is_cut(name: str) -> None:
    """In two pieces cut at every byte (of the first and the last 1,500), and byte by byte."""
    call, body = cuttable(name)
    wanted = seen(heard(BACKEND, call, [body]))
    assert seen(heard(BACKEND, call, [body[at : at + 1] for at in range(len(body))])) == wanted
    for cut in range(len(body)) if len(body) < 3000 else [*range(1500), *range(len(body) - 1500, len(body))]:
        assert seen(heard(BACKEND, call, [body[:cut], body[cut:]])) == wanted, cut


@pytest.mark.parametrize("name", [*CUTTABLE, "N51_stream_details_top_n", N131])
def test_a_stream_cut_before_its_end_never_counts_as_finished(name: str) -> None:
    """However much came: what is cut anywhere before the last finish reason has failed, and what came of it came."""
    call, body = cuttable(name)
    whole = heard(BACKEND, call, [body])
    end = end_of_answer(body) if whole.finished else body.index(b"\n\n", body.index(b"\n\n") + 2)  # at 2nd token
    for cut in range(end) if end < 3000 else [*range(0, end - 1500, 97), *range(end - 1500, end)]:
        got = heard(BACKEND, call, [body[:cut]])
        assert (got.finished, got.cause) == (False, Cause.FAILED), cut
        assert got.events == whole.events[: len(got.events)], cut


@pytest.mark.parametrize(
    "name", ["12i_tools_named_stream", "N91_tools_required_cut_stream", "N88_tools_auto_stream_seed1"]
)
def test_a_stream_of_tools_never_counts_as_an_answer(name: str) -> None:
    """TGI streams tool calls broken, which is why they are asked for whole; one that came would be no answer."""
    call, recorded = of(name)
    got = heard(BACKEND, call, [recorded.response_body])
    assert not got.finished
    assert got.cause in (Cause.FAILED, Cause.PROTOCOL_ERROR)


# --- errors in streams ----------------------------------------------------------------------------------------

# recording, cause, the field at fault; all but F03 and F05 before the first token
ERRORS: list[tuple[str, Cause, str | None]] = [
    ("14b_prompt_too_long_stream", Cause.CONTEXT, "messages"),
    ("L11_overload_chat_stream", Cause.OVERLOADED, None),
    ("L13_overload_generate_stream", Cause.OVERLOADED, None),
    ("L15_overload_completion_stream", Cause.OVERLOADED, None),
    ("F03_engine_killed_stream", Cause.FAILED, None),
    ("F05_engine_killed_generate_stream", Cause.FAILED, None),
    ("F08_chat_stream_after", Cause.FAILED, None),
    ("N53_stream_validation_error", Cause.INVALID, "temperature"),
    ("N54_stream_too_long", Cause.CONTEXT, "prompt"),
    ("N55_stream_best_of_rejected", Cause.INVALID, "best_of"),
    ("N56_stream_decoder_input_details_rejected", Cause.INVALID, "decoder_input_details"),
]


@pytest.mark.parametrize(("name", "cause", "param"), ERRORS, ids=[row[0] for row in ERRORS])
def test_a_recorded_error_in_a_stream_has_its_cause(name: str, cause: Cause, param: str | None) -> None:
    """With status 200, and 422 beside it whatever it is; what came before it came, and [DONE] after it is void."""
    recorded = load(f"tgi/{name}")
    call = chat(stream=True) if "chat" in recorded.path else text(prompt="a", stream=True)
    for cut in (
        [recorded.response_body],
        [recorded.response_body[i : i + 7] for i in range(0, len(recorded.response_body), 7)],
    ):
        got = heard(BACKEND, call, cut)
        assert (got.cause, got.param, got.finished) == (cause, param, False)
        tokens = recorded.response_body.count(b'"delta"') + recorded.response_body.count(b'"token"')
        if name.startswith("F03"):
            assert len(got.events) == tokens + 1 > 2
        elif name.startswith("F05"):
            assert tokens > 2
            shown = "".join(event["choices"][0]["text"] for event in got.events)
            assert shown == "".join(
                json.loads(f'"{one}"') for one in re.findall(r'"text":"(.*?)",', recorded.response_body.decode())
            )
        else:
            assert got.events == []


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ('{"error":{"message":"Tool error: nope","http_status_code":422}}', Cause.INVALID),
        ('{"error":{"message":"Template error: x","http_status_code":422}}', Cause.INVALID),
        ('{"error":{"message":"Incomplete generation stream","http_status_code":422}}', Cause.FAILED),
        ('{"error":"Incomplete generation","error_type":"incomplete_generation"}', Cause.FAILED),
        ('{"error":{"message":"something new","http_status_code":422}}', Cause.FAILED),
        ('{"error":"something new","error_type":"new"}', Cause.FAILED),
        ('{"message":"something new"}', Cause.FAILED),
        ('{"error":7}', Cause.FAILED),
        ('{"error":"\\ud800"}', Cause.FAILED),
    ],
)
def test_other_errors_in_a_stream_are_not_the_clients(event: str, cause: Cause) -> None:
    """Only what TGI says of the request itself is: an unknown error is a failure."""
    for call in (chat(stream=True), text(prompt="a", stream=True)):
        assert heard(BACKEND, call, [b"data: " + event.encode() + b"\n\n"]).cause is cause


def test_an_error_of_tools_in_a_stream_names_them() -> None:
    event = b'data: {"error":{"message":"Tool error: nope","http_status_code":422}}\n\n'
    failure = heard(BACKEND, chat(stream=True), [event]).failure
    assert isinstance(failure, BackendError)
    assert (failure.cause, failure.param, failure.message) == (Cause.INVALID, "tools", "nope")


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:40]))
@pytest.mark.parametrize("frame", ["an event", "a bare body"])
def test_garbage_is_no_stream(body: bytes, frame: str) -> None:
    data = b"data: " + body + b"\n\n" if frame == "an event" else body
    for call in (chat(stream=True), text(prompt="a", stream=True)):
        got = heard(BACKEND, call, [data, data])
        assert not got.finished
        assert got.events == []
        assert got.cause in (Cause.PROTOCOL_ERROR, Cause.FAILED, Cause.INVALID)
        if got.cause is Cause.INVALID:
            assert b"validation" in body


@pytest.mark.parametrize(
    "name", ["16g_completion_stream_usage", "22b_responses_stream", "02_chat_stream", "B43_engine_death_midstream"]
)
def test_vllms_stream_is_not_taken_for_a_generation(name: str) -> None:
    got = heard(BACKEND, text(prompt="a", stream=True), [load(f"vllm/{name}").response_body])
    assert (got.finished, got.events) == (False, [])
    assert got.cause in (Cause.PROTOCOL_ERROR, Cause.FAILED)


def test_an_event_without_end_is_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.sse.LIMIT", 1000)
    assert heard(BACKEND, chat(stream=True), [b"x" * 600] * 3).cause is Cause.PROTOCOL_ERROR


# --- asking again ---------------------------------------------------------------------------------------------


def judged(name: str, **more: Any) -> tuple[Call, UpstreamRequest, BackendError | FollowUp | Completion]:
    """What becomes of a recorded answer whose status is not 200."""
    recorded = load(f"tgi/{name}")
    call = call_of(json.loads(recorded.body) | {"model": "ours"} | more)
    request = BACKEND.encode(call, "m")[0]
    return (
        call,
        request,
        BACKEND.failure(call, request, recorded.status, recorded.response_headers, recorded.response_body),
    )


@pytest.mark.parametrize(
    ("name", "room"),
    [("14c_prompt_plus_max_tokens_too_long", 513), ("25c_completion_prompt_plus_max_tokens_too_long", 523)],
)
def test_what_does_not_fit_is_asked_for_again_clamped(name: str, room: int) -> None:
    """Of 1,024 tokens the prompt has 511: as vLLM does by itself, the rest may be written. Nothing else changes."""
    _, request, failure = judged(name)
    assert isinstance(failure, FollowUp)
    before, after = json.loads(request.body), json.loads(failure.request.body)
    if "parameters" in before:
        before["parameters"]["max_new_tokens"] = room
    else:
        before["max_tokens"] = room
    assert after == before
    assert_same_but_body(failure.request, request)


def test_without_max_tokens_too() -> None:
    body = load("tgi/14c_prompt_plus_max_tokens_too_long").response_body
    call = chat()
    failure = BACKEND.failure(call, BACKEND.encode(call, "m")[0], 422, {}, body)
    assert isinstance(failure, FollowUp)
    assert json.loads(failure.request.body)["max_tokens"] == 513


def test_in_a_stream_too() -> None:
    said_so = json.loads(load("tgi/14c_prompt_plus_max_tokens_too_long").response_body)["error"]
    event = b"data: " + json.dumps({"error": {"message": said_so, "http_status_code": 422}}).encode() + b"\n\n"
    got = heard(BACKEND, chat(stream=True, max_tokens=1000), [event])
    assert isinstance(got.failure, FollowUp)
    assert json.loads(got.failure.request.body)["max_tokens"] == 513
    native = b"data: " + json.dumps({"error": said_so, "error_type": "validation"}).encode() + b"\n\n"
    got = heard(BACKEND, text(prompt="a", stream=True, max_tokens=1000), [native])
    assert isinstance(got.failure, FollowUp)
    assert json.loads(got.failure.request.body)["parameters"]["max_new_tokens"] == 513
    assert got.failure.request.path == STREAM


@pytest.mark.parametrize("name", ["08d_chat_max_tokens_too_large", "25d_completion_max_tokens_too_large"])
def test_max_tokens_above_the_context_is_the_clients_fault(name: str) -> None:
    """By the number that the client sent, which TGI clips before it complains."""
    *_, failure = judged(name)
    assert isinstance(failure, BackendError)
    assert (failure.cause, failure.param) == (Cause.INVALID, "max_tokens")
    assert failure.message == "max_tokens must be at most 1024, the model's context length, not 5000."


def test_max_tokens_of_the_context_itself_is_clamped() -> None:
    *_, failure = judged("08d_chat_max_tokens_too_large", max_tokens=1024)
    assert isinstance(failure, FollowUp)
    assert json.loads(failure.request.body)["max_tokens"] == 1012


@pytest.mark.parametrize("prompt", [1024, 1025])
def test_a_prompt_that_leaves_no_room_is_too_long(prompt: int) -> None:
    room = "`inputs` tokens + `max_new_tokens` must be <= 1024."
    for said_so in (
        f"Input validation error: {room} Given: {prompt} `inputs` tokens and 4 `max_new_tokens`",
        f"Input validation error: `inputs` must have less than 1024 tokens. Given: {prompt}",
    ):
        body = json.dumps({"error": said_so, "error_type": "validation"}).encode()
        for call, param in ((chat(max_tokens=5000), "messages"), (text(prompt="a"), "prompt")):
            failure = BACKEND.failure(call, BACKEND.encode(call, "m")[0], 422, {}, body)
            assert isinstance(failure, BackendError)
            assert (failure.cause, failure.param) == (Cause.CONTEXT, param)


@pytest.mark.parametrize(
    "name",
    [
        "12_tools_auto_no_parser",
        "B12l_tools_required_length_cut",
        "N85_tools_required_complete",
        "N89_tools_named",
        "N90_tools_required_cut",
    ],
)
@pytest.mark.parametrize("n", [1, 2])
def test_a_tool_call_cut_by_max_tokens_is_an_answer_without_content(name: str, n: int) -> None:
    call, request, failure = judged(name, n=n, temperature=0)
    assert isinstance(failure, FollowUp), "its tokens are still to be counted"
    again = failure.request
    assert json.loads(again.body) == {"model": "m", "messages": json.loads(request.body)["messages"]} | GREEDY | {
        "max_tokens": 1
    }
    assert (again.path, again.stream, again.choices, again.continuation.cut) == (CHAT, False, tuple(range(n)), True)
    counted = load("tgi/08_chat_max_tokens_1")
    completion = BACKEND.decode(call, again, counted.response_headers, counted.response_body)
    assert isinstance(completion, Completion)
    answer = plain(completion.answer)
    assert answer == {
        "id": "chatcmpl-r",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "ours",
        "choices": [
            {"index": index, "message": said(None), "logprobs": None, "finish_reason": "length"} for index in range(n)
        ],
        "usage": usage(12, n * json.loads(request.body)["max_tokens"]),
    }


NO_CALL = [name for name in names("tgi") if name.startswith(("N107", "N87")) and load(f"tgi/{name}").status == 422]


@pytest.mark.parametrize("name", NO_CALL)
def test_an_empty_call_is_asked_for_again_without_tools(name: str) -> None:
    """`{ }` is what the model writes when it chooses to call none."""
    _, request, failure = judged(name)
    assert isinstance(failure, FollowUp)
    before = json.loads(request.body)
    assert before.pop("tool_choice") == "auto"
    assert before.pop("tools")
    assert json.loads(failure.request.body) == before
    assert_same_but_body(failure.request, request)
    assert len(NO_CALL) == 8


def test_an_empty_call_that_was_required_is_asked_for_again_with_another_seed() -> None:
    """One that no other choice of the same request has."""
    _, request, failure = judged("N106_tools_enum_two_tools")
    assert isinstance(failure, FollowUp)
    before, after = json.loads(request.body), json.loads(failure.request.body)
    seed = before.pop("seed")
    assert after.pop("seed") not in range(seed, seed + 16)
    assert after == before
    _, request, failure = judged("N106_tools_enum_two_tools", seed=None)
    assert isinstance(failure, FollowUp)
    assert json.loads(failure.request.body) == json.loads(request.body), "a drawn seed is another one anyway"


def test_an_empty_call_that_was_required_of_a_greedy_model_has_failed() -> None:
    """The same again would come to the same."""
    *_, failure = judged("N106_tools_enum_two_tools", temperature=0)
    assert isinstance(failure, BackendError)
    assert failure.cause is Cause.MODEL_OUTPUT_INVALID


@pytest.mark.parametrize("call", [chat(), text(prompt="a")])
def test_an_error_of_tools_without_tools_is_no_exception(call: Call) -> None:
    body = load("tgi/N106_tools_enum_two_tools").response_body
    failure = BACKEND.failure(call, BACKEND.encode(call, "m")[0], 422, {}, body)
    assert isinstance(failure, FollowUp | BackendError)


def test_a_clamped_answer_is_read_like_any_other() -> None:
    call, _, failure = judged("14c_prompt_plus_max_tokens_too_long")
    assert isinstance(failure, FollowUp)
    recorded = load("tgi/01_chat_plain")
    completion = BACKEND.decode(call, failure.request, recorded.response_headers, recorded.response_body)
    assert isinstance(completion, Completion)
    assert completion.answer.choices[0].message.content == "session" * 8


def assert_same_but_body(again: UpstreamRequest, first: UpstreamRequest) -> None:
    for name in ("path", "stream", "choices", "prompt", "adapted"):
        assert getattr(again, name) == getattr(first, name)


def seen(got: Heard) -> tuple[Any, ...]:
    """A stream's outcome in a form that can be compared."""
    return got.events, plain(got.usage), got.finished, got.cause, str(got.failure)
