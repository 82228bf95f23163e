"""Tools in the prompt of a vLLM whose chat template knows none: said as TGI says them, and read as TGI's (CONTRACT.md
2.1, 3.1, 3.5).
"""

from typing import Any

import msgspec
import pytest

from backends.base import BackendError, Call, Cause, Completion, FollowUp
from backends.vllm import VLLM
from gateway.proxy import parse

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather, "now" é',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
NAMED = {"type": "function", "function": {"name": "get_time"}}
HISTORY = [
    {"role": "user", "content": "hi"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": {"name": "get_time", "arguments": '{"z":1}'}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "noon"},
]
AS_TEXT = '[{"id":"a","type":"function","function":{"description":null,"name":"get_time","arguments":"{\\"z\\":1}"}}]'

# What a TGI of version 3.3.7 answers to `/chat_tokenize` for a template that knows no tools, behind the text "hi".
SAID = (
    '\n---\n[{"type":"function","function":{"description":"Weather, \\"now\\" é","name":"get_weather","arguments":'
    '"{\\"type\\":\\"object\\",\\"properties\\":{\\"city\\":{\\"type\\":\\"string\\"}},\\"required\\":[\\"city\\"]}"}}'
    ',{"type":"function","function":{"description":null,"name":"get_time","arguments":'
    '"{\\"type\\":\\"object\\",\\"properties\\":{}}"}}'
    ',{"type":"function","function":{"description":"Open ended response with no specific tool selected",'
    '"name":"no_tool","arguments":"{\\"type\\":\\"object\\"}"}}]\n'
    "\nGiven the functions available, please respond with a JSON for a function call with its proper arguments that "
    "best answers the given prompt. Respond in the format {name: function name, parameters: dictionary of argument "
    "name and its value}.Do not use variables.\n"
)


def called(**fields: Any) -> Call:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [WEATHER, CLOCK]} | fields
    call = parse.chat(msgspec.json.encode(body), "0" * 32, 1)
    return msgspec.structs.replace(call, tools_in_prompt=True)


def sent(call: Call) -> list[dict[str, Any]]:
    return [msgspec.json.decode(request.body) for request in VLLM().encode(call, "m")]


def answered(call: Call, content: str | None, finish: str = "stop") -> Completion | FollowUp:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    body = msgspec.json.encode({"choices": [choice], "usage": usage})
    return VLLM().decode(call, VLLM().encode(call, "m")[0], {}, body)


def test_the_prompt_is_tgis() -> None:
    (body,) = sent(called(stream=True, parallel_tool_calls=False, stop=["x"], logprobs=True))
    assert body["messages"] == [{"role": "user", "content": "hi" + SAID}]
    left = {"tools", "tool_choice", "parallel_tool_calls", "stream", "stream_options", "stop", "logprobs"}
    assert not body.keys() & left


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["get_weather", "get_time", "no_tool"]),
        ("auto", ["get_weather", "get_time", "no_tool"]),
        ("required", ["get_weather", "get_time"]),
        (NAMED, ["get_time"]),
    ],
)
def test_the_grammar_has_the_functions_that_may_be_called(choice: Any, names: list[str]) -> None:
    (body,) = sent(called(tool_choice=choice))
    functions = body["structured_outputs"]["json"]["properties"]["function"]["anyOf"]
    assert [function["properties"]["_name"]["const"] for function in functions] == names
    assert all(name in body["messages"][0]["content"] for name in names)


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "none"},
        {"tools": None},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
    ],
)
def test_nothing_is_said_where_no_tool_may_be_called_or_another_grammar_is_wanted(fields: dict[str, Any]) -> None:
    (body,) = sent(called(**fields))
    assert body["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("tools", [{}, {"tools": None}])
def test_earlier_calls_are_the_text_of_their_message(tools: dict[str, Any]) -> None:
    (body,) = sent(called(messages=HISTORY, **tools))
    assert body["messages"][1] == {"role": "assistant", "content": AS_TEXT}
    assert body["messages"][2]["content"].startswith("noon")


def test_tools_follow_the_text_of_parts() -> None:
    (body,) = sent(called(messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}]))
    assert body["messages"][0]["content"] == [{"type": "text", "text": "hi"}, {"type": "text", "text": SAID}]


@pytest.mark.parametrize(
    ("fields", "finish"),
    [({}, "tool_calls"), ({"tool_choice": "required"}, "tool_calls"), ({"tool_choice": NAMED}, "stop")],
)
def test_the_answer_is_the_call(fields: dict[str, Any], finish: str) -> None:
    completion = answered(called(**fields), '{ "function" : {"_name": "get_time", "b": 1, "a": "é"} }')
    assert isinstance(completion, Completion)
    (choice,) = completion.answer.choices
    (tool,) = choice.message.tool_calls
    assert (tool.function.name, tool.function.arguments) == ("get_time", '{"b":1,"a":"é"}')
    assert (choice.message.content, choice.finish_reason, tool.type) == (None, finish, "function")
    assert tool.id.startswith("call_")


def test_a_model_that_picks_no_tool_is_asked_for_text() -> None:
    call = called(stream=True, seed=3, n=2, temperature=1, stop=["x"])
    again = answered(call, '{"function":{"_name":"no_tool"}}')
    assert isinstance(again, FollowUp)
    body = msgspec.json.decode(again.request.body)
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "seed": 3, "temperature": 1, "stop": ["x"]}
    assert body == asked
    said = {"index": 0, "message": {"role": "assistant", "content": "{}"}, "finish_reason": "stop"}
    text = VLLM().decode(call, again.request, {}, msgspec.json.encode({"choices": [said]}))
    assert isinstance(text, Completion)
    assert text.answer.choices[0].message.content == "{}"


def test_a_call_that_was_cut_is_not_shown() -> None:
    completion = answered(called(), '{"function": {"_na', "length")
    assert isinstance(completion, Completion)
    (choice,) = completion.answer.choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (None, None, "length")


@pytest.mark.parametrize("content", ["{}", "[]", "Oslo", None, '{"function":{"city":"Oslo"}}', '{"function":'])
def test_what_is_no_call_is_the_models_fault(content: str | None) -> None:
    with pytest.raises(BackendError) as caught:
        answered(called(tool_choice="required"), content)
    assert caught.value.cause is Cause.MODEL_OUTPUT_INVALID


def test_each_choice_may_call_another_tool_and_has_a_seed_of_its_own() -> None:
    call = called(n=2, temperature=1, seed=3)
    requests = VLLM().encode(call, "m")
    assert [request.choices for request in requests] == [(0,), (1,)]
    assert [msgspec.json.decode(request.body)["seed"] for request in requests] == [3, 4]
    assert {request.adapted for request in requests} == {("tools", "n")}


def test_greedy_choices_share_a_request_and_each_has_ids_of_its_own() -> None:
    completion = answered(called(n=2, temperature=0), '{"function":{"_name":"get_time"}}')
    assert isinstance(completion, Completion)
    ids = {choice.message.tool_calls[0].id for choice in completion.answer.choices}
    assert (len(ids), completion.answer.usage and completion.answer.usage.completion_tokens) == (2, 10)


def test_a_schema_that_refers_to_nothing_is_named() -> None:
    broken = {"type": "function", "function": {"name": "f", "parameters": {"$ref": "#/$defs/none"}}}
    with pytest.raises(BackendError) as caught:
        sent(called(tools=[WEATHER, broken]))
    assert (caught.value.cause, caught.value.param) == (Cause.INVALID, "tools[1].function.parameters")
