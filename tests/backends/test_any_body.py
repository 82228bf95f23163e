"""What the gateway lets through, the dialects can say: any body whatever, not only those that one thinks of."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Call, UpstreamRequest
from backends.openai import OpenAI
from backends.schema import ChatRequest
from backends.sim import tgi_check, tgi_serde
from backends.tgi import TGI
from backends.vllm import VLLM
from gateway.http.errors import InvalidRequest
from gateway.proxy import parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
WORDS = st.text(max_size=6)
NAMES = st.text(min_size=1, max_size=4)
SCHEMAS = st.sampled_from(
    [
        {},
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": []},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/b"}}}, "b": {"type": "null"}}},
        {"properties": {"a": {"$ref": "#"}}},
        {"properties": {"a": {"$ref": "#/$defs/missing"}}},
    ]
) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, each with its value or with null."""
    return st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in fields.items()})


PART = st.builds(lambda text: {"type": "text", "text": text}, WORDS) | st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "file"])}, optional={"text": st.none() | WORDS, "image_url": JSON}
)
HISTORY = st.fixed_dictionaries(
    {
        "id": WORDS,
        "function": st.fixed_dictionaries(
            {"name": WORDS, "arguments": WORDS | JSON.map(json.dumps) | st.sampled_from(["[" * 5000, '{"a":' * 5000])}
        ),
    },
    optional={"type": st.just("function")},
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "wizard"])},
    optional={
        "content": st.none() | WORDS | st.lists(PART, max_size=3),
        "name": st.none() | WORDS,
        "tool_calls": st.none() | st.lists(HISTORY, max_size=2),
        "tool_call_id": WORDS,
        "new": JSON,
    },
)
TOOL = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["f", "g"])},
            optional={"description": st.none() | WORDS, "parameters": st.none() | SCHEMAS, "strict": st.booleans()},
        )
    },
    optional={"type": st.just("function")},
)
NAMED = {"type": "function", "function": {"name": "f"}}
ALLOWED = st.builds(
    lambda mode: {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [NAMED]}},
    st.sampled_from(["auto", "required"]),
)
CHOICE = st.sampled_from(["auto", "none", "required", NAMED]) | ALLOWED
FUNCTION = st.fixed_dictionaries({"name": st.sampled_from(["f", "g"])}, optional={"parameters": st.none() | SCHEMAS})
FORMAT = st.one_of(
    st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "structural_tag", "structures": []}]),
    st.builds(lambda schema: {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}, SCHEMAS),
    st.builds(lambda kind, value: {"type": kind, "value": value}, st.sampled_from(parse.TGI_FORMATS), JSON),
)
ANY = {
    "model": WORDS,
    "stream": st.booleans(),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "continuous_usage_stats"]), st.booleans()),
    "temperature": st.sampled_from([0, 0.0, -0.0, 1e-9, 1]) | st.floats(0, 2),
    "top_p": st.sampled_from([0, 1, 1.0]) | st.floats(0, 1),
    "n": st.integers(1, 20),
    "stop": NAMES | st.lists(NAMES, max_size=9),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "frequency_penalty": st.sampled_from([0, 0.0, 1]),
    "presence_penalty": st.sampled_from([0, 0.0, -1]),
    "logit_bias": st.dictionaries(st.sampled_from(["1", "x"]), st.floats(-100, 100), max_size=1),
}
OUTPUTS = st.one_of(
    st.builds(lambda value: {"regex": value}, NAMES),
    st.builds(lambda value: {"choice": value}, st.lists(WORDS, max_size=2)),
    st.builds(lambda value: {"json": value}, SCHEMAS | SCHEMAS.map(json.dumps) | WORDS),
    st.sampled_from([{}, {"grammar": "a"}, {"json_object": True}, {"regex": "a", "json": None}]),
    st.dictionaries(st.sampled_from(["regex", "choice", "json", "whitespace_pattern"]), JSON, max_size=2),
)
RARE = {"user": WORDS, "metadata": JSON, "top_k": st.integers(-1, 5), "limit": JSON, "greedy": JSON, "stops": JSON}
CHATS = st.builds(
    lambda messages, body, rare: {"messages": messages} | body | rare,
    st.lists(MESSAGE, min_size=1, max_size=3),
    optional(
        **ANY,
        max_tokens=st.integers(1, 9) | st.integers(1020, 5000),
        max_completion_tokens=st.integers(1, 9) | st.integers(1020, 5000),
        logprobs=st.booleans(),
        top_logprobs=st.integers(0, 20),
        response_format=FORMAT,
        tools=st.lists(TOOL, max_size=2),
        tool_choice=CHOICE,
        parallel_tool_calls=st.booleans(),
        modalities=st.just(["text"]),
        structured_outputs=OUTPUTS,
        functions=st.lists(FUNCTION, max_size=2),
        function_call=st.sampled_from(["auto", "none", {"name": "f"}]),
    ),
    st.just({}) | optional(**RARE),
)
PROMPTS = (
    NAMES
    | st.lists(NAMES, min_size=1, max_size=3)
    | st.lists(st.integers(0, 9), min_size=1, max_size=3)
    | st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=2), min_size=1, max_size=2)
)
COMPLETIONS = st.builds(
    lambda prompt, body, rare: {"prompt": prompt} | body | rare,
    PROMPTS,
    optional(
        **ANY,
        max_tokens=st.integers(0, 9) | st.integers(1020, 5000),
        structured_outputs=OUTPUTS,
        logprobs=st.integers(0, 5),
        echo=st.booleans(),
        best_of=st.integers(0, 2),
        suffix=st.none(),
    ),
    st.just({}) | optional(**RARE),
)


OLDER = {"tools": "functions", "tool_choice": "function_call"}
PLAINEST: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "prompt": "a"}


def accepted(body: dict[str, Any]) -> Call:
    """The body as the gateway reads it, less what it refuses by name."""
    while True:
        try:
            parsed = parse.chat if "messages" in body else parse.completion
            return parsed(json.dumps(body).encode(), "r", 1)
        except InvalidRequest as refused:
            leave_out(body, refused.param)


def leave_out(body: dict[str, Any], param: str | None) -> None:
    """Leave out the field at fault, which is always one of the body's, or put the plainest in its place."""
    assert param is not None
    name = re.split(r"[.\[]", param)[0]
    name = name if body.get(name) is not None else OLDER[name]
    assert body.pop(name) not in (None, PLAINEST.get(name))
    body.update({name: PLAINEST[name]} if name in PLAINEST else {})


@settings(max_examples=400, deadline=None)
@given(CHATS | COMPLETIONS)
def test_any_body_can_be_said_to_vllm(body: dict[str, Any]) -> None:
    """As the client said it: every field that is not null, and no null; its greedy choices asked for once."""
    call = accepted(dict(body))
    for backend in (VLLM(), OpenAI()):
        (request,) = backend.encode(call, "theirs")
        sent = json.loads(request.body)
        assert None not in sent.values()
        assert sent["model"] == "theirs"
        assert sent.get("stream_options", {}).get("include_usage", True) is True
        assert ("stream_options" in sent) is call.stream is request.stream
        assert not (call.view.greedy and sent.get("n", 1) > 1)
        said = {name for name, value in call.body.items() if bytes(value) != b"null"}
        left = {"n", "top_p", "best_of", "stream_options"}
        left |= {"response_format"} if "structured_outputs" in sent else set()
        if not (isinstance(call.view, ChatRequest) and call.view.offers_tools):
            left |= {"tools", "tool_choice", "parallel_tool_calls"}
        assert said - left <= set(sent)
        assert set(sent) - said <= {"model", "stream_options", "temperature", "structured_outputs"}
    assert VLLM().unsupported(call) is None


@settings(max_examples=400, deadline=None)
@given(CHATS | COMPLETIONS)
def test_any_body_can_be_said_to_tgi_or_it_is_named_what_cannot(body: dict[str, Any]) -> None:
    left = dict(body)
    while name := TGI().unsupported(call := accepted(left)):
        leave_out(left, name)
    requests = TGI().encode(call, "tgi")
    assert sorted(index for one in requests for index in one.choices) == list(range(choices(call)))
    for request in requests:
        sent = json.loads(request.body)
        said = sent.get("parameters", sent)
        assert_tgi_takes(said)
        assert_tgi_reads(call, request)
        if "parameters" in sent:
            assert set(sent) == {"inputs", "parameters"}
            assert isinstance(sent["inputs"], str)
            assert said["details"] is True
            assert said["max_new_tokens"] >= 1
        else:
            assert sent["model"] == "tgi"
            assert request.stream is sent.get("stream", False)
            for message in sent["messages"]:
                assert None not in message.values()
                assert ("content" in message) is not ("tool_calls" in message)
                assert isinstance(message.get("content", ""), str)


def assert_tgi_reads(call: Call, request: UpstreamRequest) -> None:
    """By the simulator's tables of TGI's structs and ranges, whose refusals are those that were recorded."""
    if isinstance(call.view, ChatRequest):
        body = tgi_serde.parse(request.body, tgi_serde.CHAT, "messages", "ChatRequest")
        asked, grammar = tgi_check.native(body), body.get("response_format")
    else:
        body = asked = tgi_serde.parse(request.body, tgi_serde.GENERATE, "inputs", "GenerateRequest")["parameters"]
        grammar = asked.get("grammar")
    tgi_check.check_ranges(asked, max_top_n=20, max_stops=4)
    assert (asked.get("max_new_tokens") or 1) <= 1024
    assert "stop" not in body or request.stream or "tools" in body, "a stop that TGI misses has to be seen in time"
    if grammar is None or (isinstance(call.view, ChatRequest) and own_form(call.view)):
        return
    if grammar["type"] == "regex":
        assert isinstance(grammar["value"], str)
    else:
        schema = grammar["value"]["schema"] if grammar["type"] == "json_schema" else grammar["value"]
        assert isinstance(schema["properties"], dict)
        assert '"$ref": "' not in json.dumps(schema)


def own_form(view: ChatRequest) -> bool:
    """Whether the client speaks TGI's words, which go on as they came."""
    return view.response_format is not None and view.response_format.value is not None


def choices(call: Call) -> int:
    prompts = 1 if isinstance(call.view, ChatRequest) else len(call.view.prompts)
    return prompts * (call.view.n or 1)


def assert_tgi_takes(said: dict[str, Any]) -> None:
    """What TGI rejects, by the recordings: nulls, a `top_p` of 0 or 1, a stop that is no list, and more."""
    refused = {"presence_penalty", "frequency_penalty", "logit_bias", "max_completion_tokens", "n", "echo", "prompt"}
    assert not refused & set(said)
    assert None not in said.values()
    assert 0 < said.get("top_p", 0.5) < 1
    assert isinstance(said.get("stop", []), list)
    assert said.get("stop") != []
    assert said.get("tools") != []
    assert 0 <= said.get("seed", 0) < 2**63
    assert said.get("temperature", 1) == 0 or said.get("temperature", 1) >= 0.01
    assert said.get("stream_options", {"include_usage": True}) == {"include_usage": True}
    assert not ("tools" in said and ("response_format" in said or "stream" in said))
    assert not (said.get("temperature") == 0 and ("top_p" in said or "seed" in said))
    assert all("parameters" in tool["function"] for tool in said.get("tools", []))
    assert "response_format" not in said or said["response_format"].get("value") is not None
