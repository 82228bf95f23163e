"""Tool calls and JSON by a schema, from real engines with random weights: junk in between, but never a broken call."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from tests.live.direct import JSON, Engine

pytestmark = [pytest.mark.live, pytest.mark.timeout(120, func_only=True)]

ROOMS = ["kitchen", "hall"]
SCHEMA: JSON = {  # only what ends by itself: a model of random weights would fill a string to the limit
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"type": "string", "enum": ROOMS}},
    "required": ["on", "room"],
    "additionalProperties": False,
}
TOOL: JSON = {
    "type": "function",
    "function": {"name": "set_light", "description": "Switch a light.", "strict": True, "parameters": SCHEMA},
}
NAMED: JSON = {"type": "function", "function": {"name": "set_light"}}
REQUEST: JSON = {"model": "live", "messages": [{"role": "user", "content": "Light in the hall, please."}]}
SEEDS = range(6)
USAGE: JSON = {"stream": True, "stream_options": {"include_usage": True}}
choices = pytest.mark.parametrize("choice", ["required", NAMED, "auto"], ids=["required", "named", "auto"])


@dataclass
class Said:
    """What an answer came to: its text, its calls as (id, name, arguments), and why it ended."""

    text: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    reason: str = ""

    def check(self, choice: str | JSON) -> None:
        """Every call is whole and ours, and the reason goes with it. Cut by the limit, there may be none."""
        for identity, name, arguments in self.calls:
            assert identity.startswith("call_")
            assert name == "set_light"
            if self.reason != "length":
                assert_by_schema(arguments)
        if self.calls and self.reason != "length":
            assert self.reason == ("stop" if choice == NAMED else "tool_calls")
        if choice != "auto":
            assert self.calls or self.reason == "length"
        assert len({identity for identity, _, _ in self.calls}) == len(self.calls)

    def comparable(self) -> tuple[str, list[tuple[str, Any]], str]:
        """All but the ids, which are new each time, and the blanks in arguments."""
        return self.text, [(name, json.loads(arguments)) for _, name, arguments in self.calls], self.reason


def assert_by_schema(text: str) -> None:
    """The text is JSON by SCHEMA."""
    value = json.loads(text)
    assert isinstance(value["on"], bool)
    assert value["room"] in ROOMS
    assert set(value) == {"on", "room"}


def whole(client: openai.OpenAI, **request: Any) -> Said:
    """Ask for a whole answer."""
    choice = client.chat.completions.create(**REQUEST, **request).choices[0]
    calls = [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    return Said(choice.message.content or "", calls, choice.finish_reason)


def streamed(client: openai.OpenAI, **request: Any) -> Said:
    """Ask for a stream and put it together, as clients do: the first delta of a call has its id and name."""
    said, arguments = Said(), defaultdict[int, str](str)
    heads: dict[int, tuple[str, str]] = {}
    for chunk in client.chat.completions.create(**REQUEST, **request, **USAGE):
        for choice in chunk.choices:
            said.text += choice.delta.content or ""
            said.reason = choice.finish_reason or said.reason
            for call in choice.delta.tool_calls or []:
                if call.index not in heads:
                    heads[call.index] = (call.id, call.function.name)
                    assert call.type == "function"
                else:
                    assert call.id is None
                    assert call.function.name is None
                arguments[call.index] += call.function.arguments or ""
    said.calls = [(*heads[index], arguments[index]) for index in sorted(heads)]
    return said


def answered(ask: Any, client: openai.OpenAI, engine: Engine, **request: Any) -> Said | None:
    """The answer; None where TGI's model wrote `{ }` again and again, which its grammar allows: the gateway's 502."""
    try:
        said: Said = ask(client, **request)
    except openai.InternalServerError as error:
        if (engine.name, error.status_code) != ("tgi", 502):
            raise
        return None
    return said


@choices
def test_tools(client: openai.OpenAI, engine: Engine, choice: str | JSON) -> None:
    """Sampled with several seeds, each call is well-formed, and at least one ends by itself; streams say the same."""
    complete = 0
    for seed in SEEDS:
        request: JSON = {"tools": [TOOL], "tool_choice": choice, "seed": seed, "temperature": 1, "max_tokens": 200}
        said = answered(whole, client, engine, **request)
        again = answered(streamed, client, engine, **request)
        for one in (said, again):
            if one is not None:
                one.check(choice)
        if said and again and "length" not in (said.reason, again.reason):
            assert said.comparable() == again.comparable()
            complete += bool(said.calls)
    assert complete or choice == "auto"


def test_tool_history(client: openai.OpenAI) -> None:
    """An answer of a tool is taken, with the call it belongs to, and the text that follows is an answer."""
    call = {"id": "call_1", "type": "function", "function": {"name": "set_light", "arguments": '{"on": true}'}}
    messages: list[Any] = [
        *REQUEST["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "done"},
    ]
    completion = client.chat.completions.create(model="live", messages=messages, temperature=0, max_tokens=10)
    assert completion.choices[0].message.content
    assert completion.choices[0].message.tool_calls is None


def test_json_schema(client: openai.OpenAI) -> None:
    """Text by a schema is JSON by that schema, and ends by itself; the stream is the same text."""
    form: JSON = {"type": "json_schema", "json_schema": {"name": "light", "strict": True, "schema": SCHEMA}}
    request: JSON = {"response_format": form, "temperature": 0, "max_tokens": 300}
    said = whole(client, **request)
    assert said.reason in {"stop", "length"}
    if said.reason == "stop":
        assert_by_schema(said.text)
    assert streamed(client, **request) == said


def test_json_object(client: openai.OpenAI) -> None:
    """Text that must be a JSON object is one, unless it was cut; TGI, which has no such form, is given a grammar."""
    said = whole(client, response_format={"type": "json_object"}, temperature=0, max_tokens=100)
    assert said.text.lstrip().startswith("{")
    assert said.reason == "length" or isinstance(json.loads(said.text), dict)


def test_plain_text(client: openai.OpenAI) -> None:
    """The format `text` is no format at all."""
    plain = whole(client, response_format={"type": "text"}, temperature=0, max_tokens=20)
    assert plain == whole(client, temperature=0, max_tokens=20)
