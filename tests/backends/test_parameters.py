"""The table of parameters: it knows every field, and each row's way is what the dialects do."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from backends.base import Call, UpstreamRequest
from backends.parameters import CHAT, TEXT, Parameter, Support
from backends.schema import ChatRequest, CompletionRequest
from backends.tgi import TGI
from backends.vllm import VLLM
from gateway.http.errors import InvalidRequest
from gateway.proxy import parse
from tests.support.dialects import HI, TOOL

TABLES: dict[str, tuple[dict[str, Parameter], type[msgspec.Struct], dict[str, Any]]] = {
    "chat": (CHAT, ChatRequest, {"messages": HI, "max_tokens": 4}),
    "text": (TEXT, CompletionRequest, {"prompt": "a"}),
}
OLDER = {"functions", "function_call"}  # which `backends.functions` says as tools
ROWS = [(surface, row) for surface, (table, _, _) in TABLES.items() for row in table.values()]
IDS = [f"{surface} {row.name}" for surface, row in ROWS]


@pytest.mark.parametrize("surface", TABLES)
def test_every_field_of_the_view_is_a_row(surface: str) -> None:
    table, view, _ = TABLES[surface]
    assert {field.name for field in msgspec.structs.fields(view)} <= set(table)


@pytest.mark.parametrize("surface", TABLES)
def test_every_row_that_is_to_be_acted_on_is_a_field_of_the_view(surface: str) -> None:
    """All but vLLM's own, the neutral and the refused: else nobody checks it, and nobody maps it."""
    table, view, _ = TABLES[surface]
    acted = {row.name for row in table.values() if row.tgi not in (Support.NONE, Support.NEUTRAL, Support.REFUSED)}
    assert acted - OLDER <= {field.name for field in msgspec.structs.fields(view)}
    assert all(name == row.name for name, row in table.items())


@pytest.mark.parametrize(("surface", "row"), ROWS, ids=IDS)
def test_what_is_refused_or_neutral_is_so_on_all_engines(surface: str, row: Parameter) -> None:
    assert (row.vllm is Support.REFUSED) == (row.tgi is Support.REFUSED)
    assert (row.vllm is Support.NEUTRAL) == (row.tgi is Support.NEUTRAL)
    assert Support.NONE not in (row.vllm, row.tgi) or row.vllm is not row.tgi


# A value of each field that asks for something, and for those that go partly one that has no way.
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"type": "function", "function": {"name": "f"}}
SAMPLES: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "b"}]}],
    "prompt": ["a", "b"],
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "top_p": 0.5,
    "n": 2,
    "stop": "a",
    "seed": 5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "logit_bias": {"1": 5},
    "max_tokens": 1500,
    "max_completion_tokens": 1500,
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    "structured_outputs": {"regex": "a"},
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "functions": [TOOL["function"]],
    "function_call": {"name": "f"},
    "modalities": ["text"],
    "echo": True,
    "best_of": 1,
    "tool_prompt": "Choose:",
    "guideline": "Be kind.",
    "repetition_penalty": 1.5,
    "length_penalty": 1.5,
    "logprob_token_ids": [5],
    "use_beam_search": True,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "include_reasoning": False,
}
NO_WAY: dict[str, Any] = {
    "messages": IMAGE,
    "prompt": [1, 2],
    "response_format": {"type": "structural_tag"},
    "structured_outputs": {"grammar": "a"},
    "modalities": ["text", "audio"],
    "best_of": 2,
    "echo": True,
}
BESIDE: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "top_logprobs": {"logprobs": True},
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
    "tool_prompt": {"tools": [TOOL]},
    "function_call": {"functions": [TOOL["function"]]},
}
# What changes nothing in what TGI is sent: it always tells the usage, and never makes more than one call.
SILENT = {"model", "stream_options", "parallel_tool_calls", "modalities", "best_of"}


def read(surface: str, fields: dict[str, Any]) -> Call:
    parsed = parse.chat if surface == "chat" else parse.completion
    return parsed(json.dumps(TABLES[surface][2] | fields).encode(), "r", 1)


def with_sample(surface: str, name: str, value: Any = None) -> dict[str, Any]:
    sample = SAMPLES.get(name, 1) if value is None else value
    if surface == "text" and name == "logprobs":
        sample = 2
    return BESIDE.get(name, {}) | {name: sample}


def sent(backend: TGI | VLLM, call: Call) -> list[UpstreamRequest]:
    return backend.encode(call, "theirs")


@pytest.mark.parametrize(("surface", "row"), ROWS, ids=IDS)
def test_each_row_says_what_becomes_of_a_parameter_on_tgi(surface: str, row: Parameter) -> None:
    if row.tgi is Support.REFUSED:
        with pytest.raises(InvalidRequest) as refused:
            read(surface, with_sample(surface, row.name, {}))
        assert refused.value.param == row.name
        return
    call = read(surface, with_sample(surface, row.name))
    if row.tgi is Support.NONE:
        assert TGI().unsupported(call) == row.name
        return
    assert TGI().unsupported(call) is None
    plain = sent(TGI(), read(surface, BESIDE.get(row.name, {})))
    if row.tgi is Support.NEUTRAL or row.name in SILENT:
        assert sent(TGI(), call) == plain
    else:
        assert sent(TGI(), call) != plain
    if row.tgi is Support.SAME and surface == "chat":
        assert json.loads(sent(TGI(), call)[0].body)[row.name] == SAMPLES[row.name]


PARTLY = [(surface, row) for surface, row in ROWS if row.tgi is Support.PARTLY]


@pytest.mark.parametrize(("surface", "row"), PARTLY, ids=[f"{surface} {row.name}" for surface, row in PARTLY])
def test_what_goes_partly_has_values_that_are_named(surface: str, row: Parameter) -> None:
    fields = {row.name: NO_WAY[row.name]} | ({"logprobs": 1} if row.name == "echo" else {})
    try:
        name = TGI().unsupported(read(surface, fields))
    except InvalidRequest as refused:
        name = refused.param
    assert name is not None
    assert name.split("[")[0] == row.name


@pytest.mark.parametrize(("surface", "row"), ROWS, ids=IDS)
def test_each_row_says_what_becomes_of_a_parameter_on_vllm(surface: str, row: Parameter) -> None:
    if row.vllm is Support.REFUSED:
        return
    call = read(surface, with_sample(surface, row.name))
    assert VLLM().unsupported(call) == (row.name if row.vllm is Support.NONE else None)
    (request,) = sent(VLLM(), call)
    body = json.loads(request.body)
    if row.vllm in (Support.SAME, Support.NEUTRAL):
        assert body[row.name] == with_sample(surface, row.name)[row.name]
        assert request.adapted == ()


@pytest.mark.parametrize(("surface", "row"), ROWS, ids=IDS)
def test_a_null_asks_for_nothing(surface: str, row: Parameter) -> None:
    if row.name in TABLES[surface][2]:
        return
    call = read(surface, {row.name: None})
    assert TGI().unsupported(call) is None
    for backend in (TGI(), VLLM()):
        assert sent(backend, call) == sent(backend, read(surface, {}))


NOTHING: list[tuple[str, bytes]] = [
    *(("frequency_penalty", value) for value in (b"0", b"0.0", b"-0", b"-0.0", b"0e5", b"null")),
    *(("presence_penalty", value) for value in (b"0", b"0.0", b"-0.0", b"null")),
    *(("logit_bias", value) for value in (b"{}", b"{ }", b"{\n}", b"{ \t\r\n }", b"null")),
]


@pytest.mark.parametrize(("name", "value"), NOTHING)
def test_a_zero_penalty_and_an_empty_bias_ask_for_nothing(name: str, value: bytes) -> None:
    """However they are written."""
    call = parse.chat(b'{"messages": [{"role": "user", "content": "hi"}], "%s": %s}' % (name.encode(), value), "r", 1)
    assert TGI().unsupported(call) is None
    assert name.encode() not in TGI().encode(call, "m")[0].body


IDLE = [(surface, row.name, value) for surface, row in ROWS for value in row.idle]


@pytest.mark.parametrize(("surface", "name", "value"), IDLE)
def test_a_parameter_at_its_default_is_dropped_for_tgi(surface: str, name: str, value: Any) -> None:
    """It changes no answer. vLLM gets it as it came."""
    call = read(surface, {name: value})
    assert TGI().unsupported(call) is None
    assert sent(TGI(), call) == sent(TGI(), read(surface, {}))
    assert json.loads(sent(VLLM(), call)[0].body)[name] == value


@pytest.mark.parametrize(
    ("surface", "name"), [("chat", "top_logprobs"), ("text", "logprobs")], ids=["top_logprobs", "logprobs"]
)
def test_vllms_word_for_the_whole_vocabulary_is_unknown_to_tgi(surface: str, name: str) -> None:
    call = read(surface, BESIDE.get(name, {}) | {name: -1})
    assert TGI().unsupported(call) == name
    assert json.loads(sent(VLLM(), call)[0].body)[name] == -1


@pytest.mark.parametrize("names", [("audio", "prediction"), ("prediction", "audio"), ("guided_regex", "guided_json")])
def test_of_several_refused_fields_the_first_is_named(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read("chat", {name: {} for name in names})
    assert refused.value.param == names[0]


@pytest.mark.parametrize("surface", TABLES)
@pytest.mark.parametrize("name", ["new", "Temperature", "max_new_tokens", "limit", "greedy", "stops", ""])
@pytest.mark.parametrize("value", [False, 0, "", [], {}])
def test_a_field_that_the_table_does_not_know_is_unsupported_and_passes_to_vllm(
    surface: str, name: str, value: Any
) -> None:
    call = read(surface, {name: value})
    assert TGI().unsupported(call) == name
    assert json.loads(sent(VLLM(), call)[0].body)[name] == value


def test_the_fields_of_the_other_surface_are_not_known() -> None:
    assert TGI().unsupported(read("text", {"tools": []})) == "tools"
    assert TGI().unsupported(read("text", {"max_completion_tokens": 5})) == "max_completion_tokens"
    assert TGI().unsupported(read("chat", {"echo": True})) == "echo"


@pytest.mark.parametrize("name", [name for name in CHAT if name.startswith("guided_")])
def test_vllms_older_words_are_refused_by_a_hint(name: str) -> None:
    """It ignores them in silence."""
    for surface in TABLES:
        with pytest.raises(InvalidRequest, match="structured_outputs") as refused:
            read(surface, {name: {}})
        assert refused.value.param == name
