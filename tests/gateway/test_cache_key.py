"""The cache's key: two bodies that could differ in meaning never share one, and one body always has the same."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Call
from gateway.cache.control import CacheControl, words
from gateway.cache.key import LEFT_OUT, NUMBERS, cacheable, digest
from gateway.proxy import parse
from tests.support.harness import CHAT, TEXT

WHOSE: dict[str, Any] = {"tenant": "t", "model": "m", "served": ("a/b",), "engine": "", "arm": ""}


def chat(body: Any) -> Call:
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse.chat(written, "0" * 32, 1_700_000_000)


def text(body: Any) -> Call:
    return parse.completion(json.dumps(body).encode(), "0" * 32, 1_700_000_000)


def key(body: Any, **whose: Any) -> bytes:
    return digest(chat(body), **WHOSE | whose)


# --- what differs ------------------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}, "b": {}}}},
}
TURNED = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}},
}
SAID = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}]}
SAID_CLOSER = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"a":1}'}}]}
USER = {"role": "user", "content": "hi"}

PAIRS: dict[str, tuple[Any, Any]] = {
    "a temperature": ({"temperature": 0}, {"temperature": 0.1}),
    "an absent temperature": ({"temperature": 0}, {"temperature": None}),
    "n": ({"n": 1}, {"n": 2}),
    "a seed": ({"seed": 1}, {"seed": 2}),
    "the limit's name": ({"max_tokens": 5}, {"max_completion_tokens": 5}),
    "logprobs": ({"logprobs": True}, {"logprobs": False}),
    "one stop or the same in a list": ({"stop": "a"}, {"stop": ["a"]}),
    "the order of stops": ({"stop": ["a", "b"]}, {"stop": ["b", "a"]}),
    "where a stop ends": ({"stop": ["a", "b"]}, {"stop": ["ab"]}),
    "tools": ({"tools": [TOOL]}, {}),
    "the order inside a tool's schema": ({"tools": [TOOL]}, {"tools": [TURNED]}),
    "the order inside a response format": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 1, "b": 2}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"b": 2, "a": 1}}}},
    ),
    "tool choice": ({"tools": [TOOL], "tool_choice": "auto"}, {"tools": [TOOL], "tool_choice": "required"}),
    "an unknown field": ({"guided_thing": "a"}, {"guided_thing": "b"}),
    "an unknown field's type": ({"x": 1}, {"x": "1"}),
    "an integer and a float in template arguments": (
        {"chat_template_kwargs": {"x": 1}},
        {"chat_template_kwargs": {"x": 1.0}},
    ),
    "the order of template arguments": (
        {"chat_template_kwargs": {"a": 1, "b": 2}},
        {"chat_template_kwargs": {"b": 2, "a": 1}},
    ),
    "true and 1": ({"x": True}, {"x": 1}),
    "zero and its negative": ({"x": 0.0}, {"x": -0.0}),
    "nothing and emptiness": ({"x": []}, {"x": {}}),
    "null inside and absent": ({"x": {"a": None}}, {"x": {}}),
    "a null that is answered": ({"prompt_logprobs": None}, {}),
    "numbers beyond a double": ({"x": 2**70}, {"x": 2**70 + 1}),
    "a salt": ({"cache_salt": "a"}, {"cache_salt": "b"}),
    "a verbosity": ({"verbosity": "low"}, {"verbosity": "high"}),
    "what is said": ({"messages": [USER]}, {"messages": [{"role": "user", "content": "hi "}]}),
    "who says it": ({"messages": [USER]}, {"messages": [{"role": "system", "content": "hi"}]}),
    "a name": ({"messages": [USER]}, {"messages": [USER | {"name": "x"}]}),
    "where a message ends": (
        {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
        {"messages": [{"role": "user", "content": "ab"}]},
    ),
    "a text and its parts": (
        {"messages": [USER]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    ),
    "the spelling of a call's arguments": ({"messages": [USER, SAID]}, {"messages": [USER, SAID_CLOSER]}),
    "composed and decomposed letters": ({"user_": "\u00e9"}, {"user_": "e\u0301"}),
    "a field called as another's value": ({"a": "b"}, {"b": "a"}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_bodies_differ_in_their_key_by(name: str) -> None:
    one, other = PAIRS[name]
    assert key(CHAT | one) != key(CHAT | other)


def test_pairs_differ_at_all() -> None:
    assert all(json.dumps(CHAT | one) != json.dumps(CHAT | other) for one, other in PAIRS.values())


@pytest.mark.parametrize("changed", [
    {"tenant": "u"}, {"model": "n"}, {"served": ("a/c",)}, {"served": ("a", "b")}, {"served": ()},
    {"engine": "vllm"}, {"arm": "vllm"}, {"tenant": "tm", "model": ""}, {"tenant": "", "model": "tm"},
])  # fmt: skip
def test_a_key_is_one_tenants_models_engines_and_arms_own(changed: dict[str, Any]) -> None:
    assert key(CHAT, **changed) != key(CHAT)


def test_a_text_and_a_chat_never_share_a_key() -> None:
    fields = {"messages": CHAT["messages"], "prompt": "hi", "model": "m"}
    assert digest(chat(fields), **WHOSE) != digest(text(fields), **WHOSE)


def test_functions_and_the_tools_they_become_are_answered_in_other_words_and_have_other_keys() -> None:
    newer = {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False}
    assert key(CHAT | {"functions": [TOOL["function"]]}) != key(CHAT | newer)


def test_prompts_of_tokens_and_of_text_have_other_keys() -> None:
    prompts: list[Any] = ["1", [1], [[1]], ["1", "1"], ["11"], [1, 1], [11]]
    assert len({digest(text(TEXT | {"prompt": prompt}), **WHOSE) for prompt in prompts}) == len(prompts)


# --- what is the same --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LEFT_OUT - {"stream_options"}))
def test_what_changes_no_answer_is_left_out(name: str) -> None:
    value: Any = name != "model" if name == "stream" else "x"
    assert key(CHAT | {name: value}) == key(CHAT)


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_number_at_the_top_is_the_same_with_and_without_a_point(name: str) -> None:
    spellings = (b"0", b"0.0", b"0.00", b"0e0", b"-0.0", b"0E+5")
    head = json.dumps({"messages": CHAT["messages"]}).encode()[:-1]
    assert len({key(head + b',"' + name.encode() + b'": ' + one + b"}") for one in spellings}) == 1


def test_only_numbers_at_the_top_are_folded() -> None:
    assert {"temperature", "top_p", "frequency_penalty", "presence_penalty"} == NUMBERS


def test_a_number_that_no_float_holds_has_a_key() -> None:
    head = json.dumps(CHAT).encode()[:-1]
    assert key(head + b',"x": 1e400}') == key(head + b',"x":1e400 }') != key(head + b',"x": 1e401}')


# --- as properties -----------------------------------------------------------------------------------------

few = st.sampled_from(["a", "b", "é", '"', "\\", "\n", "ab", ""])
scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, -0.0, 0.5, 1e22]) | few
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(few, inner, max_size=2), max_leaves=4
)
parts = st.builds(
    lambda said, more: {"type": "text", "text": said} | more, few, st.dictionaries(few, values, max_size=1)
)
messages = st.builds(
    lambda role, content, more: {"role": role, "content": content} | more,
    st.sampled_from(["user", "system"]),
    few | st.lists(parts, max_size=2),
    st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2),
)
bodies = st.builds(
    lambda said, known, more: {"messages": said} | known | more,
    st.lists(messages, min_size=1, max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.sampled_from([None, 0, 0.0, 1, 1.0, 0.5]),
            "seed": st.sampled_from([None, 0, 1]),
            "n": st.sampled_from([None, 1, 2]),
            "user": few,
            "stream": st.booleans(),
        },
    ),
    st.dictionaries(st.sampled_from(["x", "y", "tools_", "chat_template_kwargs"]), values, max_size=2),
)


def meaning(body: dict[str, Any]) -> str:
    """Say what a body means, in the plainest way: its fields one a line, and their order kept where it may matter."""
    kept = {name: value for name, value in body.items() if name not in LEFT_OUT and value is not None}
    kept["messages"] = [_folded(message) for message in body["messages"]]
    if "temperature" in kept:
        kept["temperature"] = float(kept["temperature"])
    return "\n".join(sorted(f"{name!r}: {value!r}" for name, value in kept.items()))


def _folded(message: dict[str, Any]) -> Any:
    fields = dict(message)
    if isinstance(fields["content"], list):
        fields["content"] = [_given(part) for part in fields["content"]]
    return _given(fields)


def _given(fields: dict[str, Any]) -> Any:
    """Return what is given: a null field of a message or a part is an absent one."""
    return sorted(((name, value) for name, value in fields.items() if value is not None), key=lambda item: item[0])


@given(bodies, bodies)
def test_two_bodies_share_a_key_if_and_only_if_they_mean_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (key(one) == key(other)) is (meaning(one) == meaning(other))


@given(bodies, st.integers(0, 2**32), st.data())
def test_a_body_changed_in_one_place_has_another_key(body: dict[str, Any], seed: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["x", "chat_template_kwargs", "tools_"]))
    before, after = data.draw(st.tuples(values, values).filter(lambda pair: repr(pair[0]) != repr(pair[1])))
    deep = Random(seed).randrange(3)
    for _ in range(deep):
        before, after = [before], [after]
    assert key(body | {name: before}) != key(body | {name: after})


@given(bodies, st.integers(0, 2**32))
def test_one_body_has_one_key_however_it_is_spelt(body: dict[str, Any], seed: int) -> None:
    assert key(respelt(body, Random(seed))) == key(body)


def respelt(body: dict[str, Any], random: Random) -> bytes:
    """Write a body in another of its spellings: spaces, escapes, numbers, nulls, and the order that does not matter."""
    fields = dict(body) | {random.choice(["user", "metadata", "top_k"]): None}
    fields["messages"] = [_shuffled(message, random) for message in body["messages"]]
    for message in fields["messages"]:
        if isinstance(message["content"], list):
            message["content"] = [_shuffled(part, random) for part in message["content"]]
    return _spell(_shuffled(fields, random), random).encode()


def _shuffled(value: dict[str, Any], random: Random) -> dict[str, Any]:
    return dict(random.sample(list(value.items()), len(value)))


def _spell(value: Any, random: Random) -> str:
    space = random.choice(["", " ", "\n", "\t ", "\r\n"])
    if isinstance(value, dict):
        inner = ",".join(f"{_spell(name, random)}:{_spell(one, random)}" for name, one in value.items())
        return f"{space}{{{inner}{space}}}{space}"
    if isinstance(value, list):
        return f"{space}[{','.join(_spell(one, random) for one in value)}]{space}"
    if isinstance(value, str):
        return f'"{"".join(_letter(letter, random) for letter in value)}"{space}'
    if isinstance(value, float):
        return random.choice([repr(value), f"{value:.20e}", repr(value).upper()]) + space
    return json.dumps(value) + space


def _letter(letter: str, random: Random) -> str:
    escaped = json.dumps(letter, ensure_ascii=True)[1:-1]
    plain = letter if letter not in '"\\\n' else escaped
    return random.choice([plain, f"\\u{ord(letter):04x}", f"\\u{ord(letter):04X}"])


# --- what may be cached ------------------------------------------------------------------------------------


EVERY_CHUNK = {"include_usage": True, "continuous_usage_stats": True}


@pytest.mark.parametrize(("body", "asked", "may"), [
    ({"temperature": 0}, False, True),
    ({"temperature": 0.0}, False, True),
    ({"top_p": 0}, False, True),
    ({"seed": 0}, False, True),
    ({"seed": 0, "n": 3}, False, True),
    ({"temperature": 0, "tools": [TOOL]}, False, True),
    ({"temperature": 1}, False, False),
    ({}, False, False),
    ({"temperature": None}, False, False),
    ({}, True, True),
    ({"temperature": 0, "stream": True, "stream_options": {"include_usage": True}}, False, True),
    ({"temperature": 0, "stream": True, "stream_options": EVERY_CHUNK}, False, False),
    ({"temperature": 0, "kv_transfer_params": {"do_remote_decode": True}}, True, False),
    ({"temperature": 0, "kv_transfer_params": None}, False, True),
])  # fmt: skip
def test_what_comes_again_may_be_cached_and_what_does_not_only_if_asked(
    body: dict[str, Any], asked: bool, may: bool
) -> None:
    assert cacheable(chat({"messages": CHAT["messages"]} | body), asked) is may


@pytest.mark.parametrize(("headers", "said"), [
    ({}, CacheControl()),
    ({b"cache-control": b"max-age=0"}, CacheControl()),
    ({b"cache-control": b"no-cache"}, CacheControl(lookup=False)),
    ({b"cache-control": b"No-Cache , max-age=0"}, CacheControl(lookup=False)),
    ({b"cache-control": b"no-store"}, CacheControl(lookup=False, store=False)),
    ({b"x-pointsman-cache": b"no-cache"}, CacheControl(lookup=False)),
    ({b"x-pointsman-cache": b"no-store"}, CacheControl(lookup=False, store=False)),
    ({b"x-pointsman-cache": b"cache"}, CacheControl(forced=True)),
    ({b"x-pointsman-cache": b"cache", b"cache-control": b"no-cache"}, CacheControl(lookup=False, forced=True)),
    ({b"cache-control": b"cache"}, CacheControl()),
])  # fmt: skip
def test_the_words_of_a_client_are_obeyed(headers: dict[bytes, bytes], said: CacheControl) -> None:
    assert words(headers) == said
    assert words(headers).coalesce is (said.lookup and said.store)
