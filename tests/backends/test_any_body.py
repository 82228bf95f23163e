"""What the gateway lets through, the dialects can say: any body whatever, not only those that one thinks of."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Call
from backends.openai import OpenAI
from backends.schema import ChatRequest
from backends.tgi import TGI
from backends.vllm import VLLM
from gateway import parse
from gateway.errors import InvalidRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-3, 3) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
WORDS = st.text(max_size=6)
NAMES = st.text(min_size=1, max_size=4)
SCHEMAS = st.sampled_from(
    [{}, {"type": "object"}, {"type": "object", "properties": {"a": {"type": "string"}}, "required": []}]
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
CHOICE = st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}])
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
    "stop": NAMES | st.lists(NAMES, max_size=4),
    "seed": st.integers(-(2**63), 2**63 - 1),
    "frequency_penalty": st.sampled_from([0, 0.0, 1]),
    "presence_penalty": st.sampled_from([0, 0.0, -1]),
    "logit_bias": st.dictionaries(st.sampled_from(["1", "x"]), st.floats(-100, 100), max_size=1),
}
RARE = {"user": WORDS, "metadata": JSON, "top_k": st.integers(-1, 5), "limit": JSON, "greedy": JSON, "stops": JSON}
CHATS = st.builds(
    lambda messages, body, rare: {"messages": messages} | body | rare,
    st.lists(MESSAGE, min_size=1, max_size=3),
    optional(
        **ANY,
        max_tokens=st.integers(1, 9),
        max_completion_tokens=st.integers(1, 9),
        logprobs=st.booleans(),
        top_logprobs=st.integers(0, 20),
        response_format=FORMAT,
        tools=st.lists(TOOL, max_size=2),
        tool_choice=CHOICE,
        parallel_tool_calls=st.booleans(),
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
        max_tokens=st.integers(0, 9),
        logprobs=st.integers(0, 5),
        echo=st.booleans(),
        best_of=st.integers(0, 2),
        suffix=st.none(),
    ),
    st.just({}) | optional(**RARE),
)


def accepted(body: dict[str, Any]) -> Call | None:
    """The body as the gateway reads it, or None where it refuses it."""
    for name in ("tool_choice", "stream_options", "top_logprobs"):  # mostly refused: try once without
        for tried in (body, {key: value for key, value in body.items() if key != name}):
            try:
                parsed = parse.chat if "messages" in body else parse.completion
                return parsed(json.dumps(tried).encode(), "r", 1)
            except InvalidRequest:
                continue
    return None


@settings(max_examples=400, deadline=None)
@given(CHATS | COMPLETIONS)
def test_any_body_can_be_said_to_vllm(body: dict[str, Any]) -> None:
    """As the client said it: every field that is not null, and no null; its greedy choices asked for once."""
    call = accepted(body)
    if call is None:
        return
    for backend in (VLLM(), OpenAI()):
        (request,) = backend.encode(call, "theirs")
        sent = json.loads(request.body)
        assert None not in sent.values()
        assert sent["model"] == "theirs"
        assert sent.get("stream_options", {}).get("include_usage", True) is True
        assert ("stream_options" in sent) is call.stream is request.stream
        assert not (call.view.greedy and sent.get("n", 1) > 1)
        said = {name for name, value in call.body.items() if bytes(value) != b"null"}
        assert said - {"n", "top_p", "tools", "tool_choice", "response_format"} <= set(sent)
    assert VLLM().unsupported(call) is None


@settings(max_examples=400, deadline=None)
@given(CHATS | COMPLETIONS)
def test_any_body_can_be_said_to_tgi_or_it_is_named_what_cannot(body: dict[str, Any]) -> None:
    call = accepted(body)
    if call is None:
        return
    name = TGI().unsupported(call)
    if name is not None:
        assert name.split("[")[0] in body
        return
    requests = TGI().encode(call, "tgi")
    assert sorted(index for one in requests for index in one.choices) == list(range(choices(call)))
    for request in requests:
        sent = json.loads(request.body)
        said = sent.get("parameters", sent)
        assert_tgi_takes(said)
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
