"""An engine is read as liberally as the SDKs read it: nobody is blamed for what is not just as OpenAI defines it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from backends import BACKENDS
from backends.base import BackendError, Call, Cause
from backends.openai import OpenAI
from backends.surrogates import find_lone, replaced
from backends.vllm import VLLM
from tests.support.deviations import (
    DONE,
    ENDS,
    EVENTS,
    FIELDS,
    HELLO,
    PLAIN,
    STOP,
    USAGE,
    WHOLE,
    as_texts,
    event,
    said,
)
from tests.support.deviations import whole as answer_of
from tests.support.dialects import FIRST, TOOL, Heard, chat, decoded, heard, plain, text

DIALECTS = [BACKENDS[name] for name in ("openai", "vllm")]


def spelt(got: Heard) -> tuple[str, list[str]]:
    """Return the text that a client puts together, and the finish reasons that it sees."""
    choices = [choice for one in got.events for choice in one["choices"]]
    texts = [choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices]
    return "".join(texts), [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def cuts(stream: bytes) -> list[list[bytes]]:
    """Return a stream whole, byte by byte, and in sevens."""
    return [[stream], *([stream[at : at + size] for at in range(0, len(stream), size)] for size in (1, 7))]


# --- streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS | EVENTS)
def test_a_stream_that_is_odd_is_read(name: str) -> None:
    """However it is cut. Chunks have an index, a role on the first delta, a finish reason or null; no oddity passes."""
    stream = (FIELDS | EVENTS)[name]
    for backend in DIALECTS:
        for pieces in cuts(stream):
            got = heard(backend, chat(stream=True), pieces)
            assert (got.finished, got.failure) == (True, None)
            assert spelt(got) == ("hello", ["stop"])
            deltas = [one["choices"][0]["delta"] for one in got.events]
            assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
            assert all(one["choices"][0]["index"] == 0 for one in got.events)
            assert not any(
                "tool_calls" in delta or "message" in one for delta, one in zip(deltas, got.events, strict=True)
            )


@pytest.mark.parametrize("name", EVENTS)
def test_a_completions_stream_of_odd_events_is_read(name: str) -> None:
    for backend in DIALECTS:
        for pieces in cuts(as_texts(EVENTS[name])):
            got = heard(backend, text(prompt="a", stream=True), pieces)
            assert (got.finished, got.failure) == (True, None)
            assert spelt(got) == ("hello", ["stop"])


TEXT_FIELDS: list[dict[str, Any]] = [
    {"index": None},
    {"text": None},
    {"finish_reason": ""},
    {"logprobs": 7},
    {"token_ids": {}},
]


@pytest.mark.parametrize("fields", TEXT_FIELDS, ids=repr)
def test_a_completions_stream_with_odd_fields_is_read(fields: dict[str, Any]) -> None:
    first = {"index": 0, "text": "", "finish_reason": None} | fields
    last = {"index": 0, "text": "hello", "finish_reason": "stop"}
    absent = {name: value for name, value in first.items() if name not in fields}
    for choice in (first, absent):
        stream = event({"choices": [choice]}) + event({"choices": [last]}) + DONE
        for backend in DIALECTS:
            got = heard(backend, text(prompt="a", stream=True), [stream])
            assert (spelt(got), got.finished, got.failure) == (("hello", ["stop"]), True, None)


@pytest.mark.parametrize("name", ENDS)
def test_a_half_of_a_character_is_joined_or_replaced(name: str) -> None:
    """Also where the halves are in two events: with the first one held, no event is read in the fast way."""
    stream, shown = ENDS[name]
    for backend in DIALECTS:
        for pieces in cuts(stream):
            got = heard(backend, chat(stream=True), pieces)
            assert (spelt(got), got.failure) == ((shown, ["stop"]), None)
        got = heard(backend, chat(stream=True, n=2, temperature=0), [stream])
        of_second = [one for one in got.events if one["choices"][0]["index"] == 1]
        assert spelt(got._replace(events=of_second)) == (shown, ["stop"])


def test_halves_of_two_choices_are_kept_apart() -> None:
    halves = [event(said(r"\ud83d", index=i)).replace(b"\\\\", b"\\") for i in range(2)]
    others = [event(said(other, index=i)).replace(b"\\\\", b"\\") for i, other in enumerate([r"\ude00", r"\ude01"])]
    ends = [event(said(None, "stop", index=i)) for i in range(2)]
    got = heard(OpenAI(), chat(stream=True, n=2), [b"".join(halves + others + ends) + DONE])
    for index, shown in enumerate(["\U0001f600", "\U0001f601"]):
        mine = [one for one in got.events if one["choices"][0]["index"] == index]
        assert spelt(got._replace(events=mine)) == (shown, ["stop"])


def test_the_usage_of_an_odd_stream_is_what_is_known_of_it() -> None:
    for figures, shown in [
        (USAGE, USAGE),
        (dict.fromkeys(USAGE, 4.0), dict.fromkeys(USAGE, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 2}, USAGE),
        ({"prompt_tokens": 5, "total_tokens": 7}, USAGE),
        ({"completion_tokens": 2, "total_tokens": 7}, USAGE),
        ({"completion_tokens": 2}, {"completion_tokens": 2}),
        (USAGE | {"total_tokens": "seven"}, USAGE),
        (USAGE | {"completion_tokens": None}, USAGE),
        ({}, None),
        (dict.fromkeys(USAGE), None),
        ([], None),
    ]:
        stream = HELLO + STOP + event({"usage": figures}) + DONE
        for backend in DIALECTS:
            assert plain(heard(backend, chat(stream=True), [stream]).usage) == shown
            assert decoded(backend, chat(), json.dumps(answer_of() | {"usage": figures}).encode()).get("usage") == shown


def test_a_stream_that_ends_before_its_finish_reason_was_cut() -> None:
    for stream in (b"", HELLO, HELLO[:-1], HELLO + STOP[:-9], event({}) + HELLO, HELLO + b": x\n\n"):
        for backend in DIALECTS:
            got = heard(backend, chat(stream=True), [stream])
            assert (got.finished, got.cause) == (False, Cause.FAILED)


def test_a_choice_that_never_came_was_cut_off() -> None:
    both = HELLO + STOP + event(said("b", "stop", index=1))
    for stream, finished in ((HELLO + STOP, False), (both, True)):
        assert heard(OpenAI(), chat(stream=True, n=2), [stream]).finished is finished
    asked = text(prompt=["a", "b"], stream=True)
    for stream, finished in ((HELLO + STOP, False), (both, True)):
        texts = as_texts(stream).replace(b'"delta": {"content": "b"}', b'"text": "b"')
        assert heard(OpenAI(), asked, [texts]).finished is finished


def test_what_cannot_be_read_is_shown_and_its_place_named() -> None:
    for stream, words in [
        (event(said(delta={"content": 7})), "choices[0].delta.content"),
        (event(said(delta=7)), "choices[0].delta"),
        (event({"choices": {}}), "at 'choices'"),
        (event(b'{"choices": [{"ind'), '{"choices": [{"ind'),
        (event(b"{nonsense}"), "{nonsense}"),
        (b"<html><body>Bad Gateway</body></html>", "<html><body>Bad Gateway</body></html>"),
        (event(b"out of memory"), "out of memory"),
        (b'{"choices": [{"index": 0, "finish_reason": "stop"}]}', "choices[0].message"),
    ]:
        got = heard(OpenAI(), chat(stream=True), [stream])
        assert isinstance(got.failure, BackendError)
        assert words in got.failure.message.replace("missing required field message at 'choices[0]'", words)
    for body, words in [
        (json.dumps(answer_of(message={"role": "assistant", "content": 7})).encode(), "choices[0].message.content"),
        (b'{"choices": []}', "there are no choices"),
        (b"<html>", "<html>"),
        (b"", "It sent nothing"),
    ]:
        with pytest.raises(BackendError, match=r"does not follow its protocol: ") as raised:
            decoded(OpenAI(), chat(), body)
        assert words in raised.value.message


# --- one form in the place of the other ------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_that_is_odd_is_read(name: str) -> None:
    """Its `logprobs` are null if the engine leaves them out: OpenAI's schema requires them, TGI's own client too."""
    for backend in DIALECTS:
        got = decoded(backend, chat(), WHOLE[name])
        (choice,) = got["choices"]
        assert choice["message"] == {"role": "assistant", "content": "hello", "refusal": None}
        assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
        assert (got["object"], got["created"]) == ("chat.completion", 1700000000)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_in_the_place_of_a_stream_is_one(name: str) -> None:
    for backend in DIALECTS:
        for pieces in cuts(WHOLE[name]):
            got = heard(backend, chat(stream=True), pieces)
            assert (spelt(got), got.finished, got.failure) == (("hello", ["stop"]), True, None)
    if b'"completion_tokens": 2' in WHOLE[name]:
        assert plain(got.usage) == USAGE


@pytest.mark.parametrize("name", FIELDS | EVENTS)
def test_a_stream_in_the_place_of_a_whole_answer_is_one(name: str) -> None:
    for backend in DIALECTS:
        got = decoded(backend, chat(), (FIELDS | EVENTS)[name])
        (choice,) = got["choices"]
        assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "hello")
        assert (choice["index"], choice["finish_reason"], got["object"]) == (0, "stop", "chat.completion")


def test_the_other_form_is_read_for_completions_and_copies_too() -> None:
    body = json.dumps({"choices": [{"index": 0, "text": "hello", "finish_reason": "stop"}], "usage": USAGE}).encode()
    for backend in DIALECTS:
        got = heard(backend, text(prompt="a", stream=True), [body])
        assert (spelt(got), plain(got.usage)) == (("hello", ["stop"]), USAGE)
        assert decoded(backend, text(prompt="a"), as_texts(PLAIN))["choices"][0]["text"] == "hello"
        got = heard(backend, chat(stream=True, n=2, temperature=0), [WHOLE["plain"]])
        assert spelt(got) == ("hello" * 2, ["stop"] * 2)
        copied = decoded(backend, chat(n=2, temperature=0), PLAIN)
        assert [choice["message"]["content"] for choice in copied["choices"]] == ["hello"] * 2


def test_a_whole_answer_without_a_message_is_none() -> None:
    """But with a null one it is the empty answer, and choices that have one number are told apart."""
    for choice in ({"index": 0, "finish_reason": "stop"}, {"text": "a"}):
        with pytest.raises(BackendError):
            decoded(OpenAI(), chat(), json.dumps({"choices": [choice]}).encode())
    body = json.dumps({"choices": [{"message": None}, {"message": None, "index": 0}]}).encode()
    choices = decoded(OpenAI(), chat(n=2), body)["choices"]
    assert [(one["index"], one["message"]["content"]) for one in choices] == [(0, None), (1, None)]


def test_a_stream_in_the_place_of_a_whole_answer_may_break() -> None:
    for stream in (HELLO, HELLO + event({"error": {"message": "no", "code": 500}}), event(b"no", "error")):
        with pytest.raises(BackendError) as raised:
            decoded(OpenAI(), chat(), stream)
        assert raised.value.cause is Cause.FAILED


# --- tool calls -------------------------------------------------------------------------------------------------

Pieces = list[list[dict[str, Any]] | None]


def piece(index: int | None = None, id: str | None = None, name: Any = ..., arguments: Any = ..., **more: Any) -> Any:
    """Return a piece of a tool call; what is not given is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not ...}
    one: dict[str, Any] = {"function": function} | more
    return one | ({} if index is None else {"index": index}) | ({} if id is None else {"id": id})


F, G = ("f", '{"a":1}'), ("g", "{}")
CALLS: dict[str, tuple[Pieces, list[tuple[str, str]]]] = {
    "as OpenAI has it": (
        [[piece(0, "x", "f", "", type="function")], [piece(0, arguments='{"a"')], [piece(0, arguments=":1}")]],
        [F],
    ),
    "empty ids": ([[piece(0, "x", "f", "")], [piece(0, "", None, '{"a"')], [piece(0, "", arguments=":1}")]], [F]),
    "null ids": (
        [[piece(0, "x", "f", "")], [piece(0, arguments='{"a":1}', id=None) | {"id": None, "type": None}]],
        [F],
    ),
    "no id at all": ([[piece(0, None, "f", '{"a"')], [piece(0, arguments=":1}")]], [F]),
    "no index": ([[piece(None, "x", "f", '{"a"')], [piece(arguments=":1}")]], [F]),
    "neither": ([[piece(None, None, "f", '{"a"')], [piece(arguments=":1}")]], [F]),
    "an id anew on each piece": (
        [[piece(0, "x", "f", "")], [piece(0, "y", arguments='{"a"')], [piece(0, "z", arguments=":1}")]],
        [F],
    ),
    "the name on each piece": (
        [[piece(0, "x", "f", '{"a"')], [piece(0, "x", "f", ":1}")], [piece(0, "x", "f", "")]],
        [F],
    ),
    "the name on each piece, no id": (
        [[piece(0, None, "f", "")], [piece(0, None, "f", '{"a"')], [piece(0, None, "f", ":1}")]],
        [F],
    ),
    "the name on each piece, no id, and one more": (
        [[piece(0, None, "f", '{"a":1}')], [piece(0, None, "f", "")], [piece(1, None, "g", "{}")]],
        [F, G],
    ),
    "the name repeated, no id, and then another": (
        [[piece(0, None, "f", '{"a":1}')], [piece(0, None, "f", "")], [piece(0, None, "g", "{}")]],
        [F, G],
    ),
    "two at index 0 without ids, the second in pieces": (
        [[piece(0, None, "f", '{"a":1}')], [piece(0, None, "f", "")], [piece(0, arguments='{"a":1}')]],
        [F, F],
    ),
    "an empty name": ([[piece(0, "x", "f", "")], [piece(0, None, "", '{"a":1}')]], [F]),
    "the name after the id": ([[piece(0, "x")], [piece(0, None, "f", '{"a":1}')]], [F]),
    "arguments before the name": ([[piece(0, "x", None, '{"a"')], [piece(0, None, "f", ":1}")]], [F]),
    "arguments null": ([[piece(0, "x", "f", None)], [piece(0, arguments='{"a":1}')]], [F]),
    "arguments an object": ([[piece(0, "x", "f", {"a": 1})]], [F]),
    "no function": ([[{"index": 0, "id": "x", "function": None}], [piece(0, None, "f", '{"a":1}')]], [F]),
    "an empty list between": ([[piece(0, "x", "f", "")], [], None, [piece(0, arguments='{"a":1}')], []], [F]),
    "two calls": ([[piece(0, "x", "f", '{"a":1}')], [piece(1, "y", "g", "{}")]], [F, G]),
    "two in one event": ([[piece(0, "x", "f", '{"a":1}'), piece(1, "y", "g", "{}")]], [F, G]),
    "two at once": (
        [[piece(0, "x", "f", ""), piece(1, "y", "g", "")], [piece(1, arguments="{}"), piece(0, arguments='{"a":1}')]],
        [F, G],
    ),
    "two of one id": ([[piece(0, "x", "f", '{"a":1}')], [piece(1, "x", "g", "{}")]], [F, G]),
    "two of one id and name": ([[piece(0, "x", "f", '{"a":1}')], [piece(1, "x", "f", '{"a":1}')]], [F, F]),
    "two without ids": ([[piece(0, None, "f", '{"a":1}')], [piece(1, None, "g", "{}")]], [F, G]),
    "two of empty ids": ([[piece(0, "", "f", '{"a":1}')], [piece(1, "", "g", "{}")]], [F, G]),
    "two at index 0": (
        [
            [piece(0, "x", "f", '{"a"')],
            [piece(0, arguments=":1}")],
            [piece(0, "y", "g", "")],
            [piece(0, arguments="{}")],
        ],
        [F, G],
    ),
    "two at index 0 of one name": (
        [[piece(0, "x", "f", '{"a":1}')], [piece(0, "y", "f", "")], [piece(0, arguments='{"a":1}')]],
        [F, F],
    ),
    "two at index 0 of one id": ([[piece(0, "x", "f", '{"a":1}')], [piece(0, "x", "f", '{"a":1}')]], [F, F]),
    "two at index 0 without ids": (
        [[piece(0, None, "f", '{"a":1}')], [piece(0, None, "f", '{"a"')], [piece(0, arguments=":1}")]],
        [F, F],
    ),
    "two at index 0 in one event": ([[piece(0, "x", "f", '{"a":1}'), piece(0, "y", "g", "{}")]], [F, G]),
    "two without index": (
        [[piece(None, "x", "f", '{"a"')], [piece(arguments=":1}")], [piece(None, "y", "g", "{}")]],
        [F, G],
    ),
    "two without index, by id": (
        [
            [piece(None, "x", "f", ""), piece(None, "y", "g", "")],
            [piece(None, "x", arguments='{"a":1}')],
            [piece(None, "y", arguments="{}")],
        ],
        [F, G],
    ),
    "two without anything": ([[piece(None, None, "f", '{"a":1}')], [piece(None, None, "g", "{}")]], [F, G]),
    "index 1 alone": ([[piece(1, "x", "f", '{"a"')], [piece(1, arguments=":1}")]], [F]),
    "an index that grows with each piece": ([[piece(0, "x", "f", '{"a"')], [piece(1, arguments=":1}")]], [F]),
    "an index of floats": ([[piece(0.0, "x", "f", '{"a"')], [piece(0.0, arguments=":1}")]], [F]),  # type: ignore[arg-type]
    "ids that are numbers": ([[piece(0, None, "f", '{"a"') | {"id": 7}], [piece(0, arguments=":1}") | {"id": 7}]], [F]),
}


def calls_of(got: Heard) -> list[tuple[str, str]]:
    """Put tool calls together as SDKs do: by index; an id, a type and a name are on the first piece alone."""
    calls: dict[int, list[str]] = {}
    for one in got.events:
        for given in one["choices"][0]["delta"].get("tool_calls", ()):
            if given["index"] not in calls:
                assert given["index"] == len(calls)
                assert given["id"].startswith("call_")
                assert given["type"] == "function"
                calls[given["index"]] = [given["function"]["name"], given["function"]["arguments"]]
            else:
                assert set(given) == {"index", "function"}
                assert set(given["function"]) == {"arguments"}
                calls[given["index"]][1] += given["function"]["arguments"]
    return [(name, arguments) for name, arguments in calls.values()]


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_leave_as_openai_has_them(name: str, reason: str) -> None:
    """An id, a type and a name on the first piece alone, an index of each call's own, and a reason that agrees."""
    pieces, wanted = CALLS[name]
    stream = b"".join(event(said(delta={"tool_calls": tools})) for tools in pieces) + event(said(None, reason)) + DONE
    for backend in DIALECTS:
        got = heard(backend, chat(stream=True, tools=[TOOL]), [stream])
        assert got.failure is None
        assert calls_of(got) == wanted
        ids = [
            tool["id"]
            for one in got.events
            for tool in one["choices"][0]["delta"].get("tool_calls", ())
            if "id" in tool
        ]
        assert len(set(ids)) == len(wanted)
        assert not any(one["choices"][0]["delta"].get("tool_calls", ...) == [] for one in got.events)
        assert got.events[-1]["choices"][0]["finish_reason"] == "tool_calls"
        whole = decoded(backend, chat(tools=[TOOL]), stream)["choices"][0]
        assert [
            (one["function"]["name"], one["function"]["arguments"]) for one in whole["message"]["tool_calls"]
        ] == wanted


WHOLE_CALLS: list[tuple[str, list[dict[str, Any]] | None, list[tuple[str, str]]]] = [
    ("no id", [piece(None, None, "f", '{"a":1}')], [F]),
    ("empty ids", [piece(None, "", "f", '{"a":1}'), piece(None, "", "g", "{}")], [F, G]),
    ("one id for two", [piece(0, "x", "f", '{"a":1}'), piece(0, "x", "g", "{}")], [F, G]),
    ("arguments an object", [piece(None, "x", "f", {"a": 1})], [F]),
    ("arguments null", [piece(None, "x", "g", None)], [G]),
    ("arguments absent", [piece(None, "x", "g")], [G]),
    ("type null", [piece(None, "x", "g", "{}", type=None)], [G]),
    ("a call of nothing", [{"id": "x", "function": None}, piece(None, "x", "g", "{}")], [G]),
    ("an empty list", [], []),
    ("null", None, []),
]


@pytest.mark.parametrize(("tools", "wanted"), [row[1:] for row in WHOLE_CALLS], ids=[row[0] for row in WHOLE_CALLS])
def test_whole_tool_calls_leave_as_openai_has_them(tools: Any, wanted: list[tuple[str, str]]) -> None:
    for reason in ("tool_calls", "stop", None):
        body = json.dumps(answer_of(message={"content": None, "tool_calls": tools}, finish_reason=reason)).encode()
        for backend in DIALECTS:
            (choice,) = decoded(backend, chat(tools=[TOOL]), body)["choices"]
            calls = choice["message"].get("tool_calls", [])
            assert [(one["function"]["name"], one["function"]["arguments"]) for one in calls] == wanted
            assert all(set(one) == {"id", "type", "function"} and one["type"] == "function" for one in calls)
            assert len({one["id"] for one in calls}) == len(calls)
            assert ("tool_calls" in choice["message"]) is bool(wanted)
            assert choice["finish_reason"] == ("tool_calls" if wanted else reason and "stop")
            got = heard(backend, chat(stream=True, tools=[TOOL]), [body])
            assert calls_of(got) == wanted


def test_a_named_tool_ends_in_stop_whatever_the_engine_says() -> None:
    named = chat(stream=True, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})
    stream = event(said(delta={"tool_calls": [piece(0, "x", "f", "{}")]})) + event(said(None, "tool_calls")) + DONE
    assert heard(OpenAI(), named, [stream]).events[-1]["choices"][0]["finish_reason"] == "stop"
    cut = stream.replace(b'"tool_calls"}', b'"length"}')
    assert heard(OpenAI(), named, [cut]).events[-1]["choices"][0]["finish_reason"] == "length"


def test_fields_beside_a_call_that_is_not_shown_are_not_shown() -> None:
    stream = event(said(delta={"tool_calls": [piece(0, "x") | {"new": 1}]})) + event(said(None, "stop")) + DONE
    got = heard(OpenAI(), chat(stream=True, tools=[TOOL]), [stream])
    assert got.events[0]["choices"][0]["delta"] == FIRST


# --- reasoning --------------------------------------------------------------------------------------------------


def reasoning_in(field: str, stream: bool) -> Call:
    """Return the call of a model whose clients look in this field for what was thought."""
    return msgspec.structs.replace(chat(stream=stream), reasoning_field=field)


SHOWN = {
    "both": {"reasoning", "reasoning_content"},
    "reasoning": {"reasoning"},
    "reasoning_content": {"reasoning_content"},
}


@pytest.mark.parametrize("field", SHOWN)
@pytest.mark.parametrize("theirs", [("reasoning",), ("reasoning_content",), ("reasoning", "reasoning_content")])
def test_reasoning_has_one_form(theirs: tuple[str, ...], field: str) -> None:
    """Whichever the engine has; whole, streamed, and one in the place of the other."""
    thought = dict.fromkeys(theirs, "hm")
    stream = event(said(delta=thought)) + PLAIN
    body = json.dumps(answer_of(message={"role": "assistant", "content": "hello"} | thought)).encode()
    for backend in DIALECTS:
        for data in (stream, body):
            deltas = [one["choices"][0]["delta"] for one in heard(backend, reasoning_in(field, True), [data]).events]
            said_so = [delta for delta in deltas if any(name.startswith("reasoning") for name in delta)]
            assert [{name: delta.get(name) for name in delta if name.startswith("reasoning")} for delta in said_so] == [
                dict.fromkeys(SHOWN[field], "hm")
            ]
            message = decoded(backend, reasoning_in(field, False), data)["choices"][0]["message"]
            assert {name: message[name] for name in message if name.startswith("reasoning")} == dict.fromkeys(
                SHOWN[field], "hm"
            )


def test_no_reasoning_stays_none() -> None:
    for nothing in ({"reasoning": None}, {"reasoning_content": None}, {"reasoning": None, "reasoning_content": None}):
        got = heard(OpenAI(), chat(stream=True), [event(said(delta={"content": "hello"} | nothing)) + STOP + DONE])
        assert got.events[0]["choices"][0]["delta"] == FIRST | {"content": "hello"}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"reasoning": "hm"}, {"reasoning": "hm", "reasoning_content": "hm"}),
        ({"reasoning_content": "hm"}, {"reasoning": "hm", "reasoning_content": "hm"}),
        ({"reasoning": None, "reasoning_content": "hm"}, {"reasoning": "hm", "reasoning_content": "hm"}),
        ({"reasoning": "a", "reasoning_content": "b"}, {"reasoning": "a", "reasoning_content": "b"}),
    ],
)
def test_a_history_of_reasoning_is_said_so_that_any_vllm_understands(given: Any, sent: Any) -> None:
    history = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "a"} | given,
        {"role": "user", "content": "b"},
    ]
    (request,) = VLLM().encode(chat(messages=history), "m")
    messages = json.loads(request.body)["messages"]
    assert messages == [history[0], {"role": "assistant", "content": "a"} | sent, history[2]]
    assert ("messages" in request.adapted) is (given != sent)
    (request,) = OpenAI().encode(chat(messages=history), "m")
    said = [{name: value for name, value in message.items() if value is not None} for message in history]
    assert json.loads(request.body)["messages"] == said, "what another engine understands is not known"


# --- TGI --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FIELDS | EVENTS if name != "content in parts"])
def test_a_tgis_stream_that_is_odd_is_read(name: str) -> None:
    for pieces in cuts((FIELDS | EVENTS)[name]):
        got = heard(BACKENDS["tgi"], chat(stream=True), pieces)
        assert (spelt(got), got.finished, got.failure) == (("hello", ["stop"]), True, None)


@pytest.mark.parametrize("name", WHOLE)
def test_a_tgis_whole_answer_that_is_odd_is_read(name: str) -> None:
    tgi = BACKENDS["tgi"]
    got = decoded(tgi, chat(), WHOLE[name])["choices"][0]
    assert (got["message"]["content"], got["finish_reason"]) == ("hello", "stop")
    assert spelt(heard(tgi, chat(stream=True), [WHOLE[name]])) == ("hello", ["stop"])


@pytest.mark.parametrize("name", ENDS)
def test_a_tgis_half_of_a_character_is_joined_or_replaced(name: str) -> None:
    stream, shown = ENDS[name]
    assert spelt(heard(BACKENDS["tgi"], chat(stream=True), [stream])) == (shown, ["stop"])


TOKEN = {"index": 1, "token": {"id": 1, "text": "hello", "logprob": -1.0, "special": False}, "generated_text": None}
LAST = {"token": {"id": 2, "text": "", "logprob": None, "special": True}, "generated_text": "hello"}
DETAILS = {"finish_reason": "eos_token", "generated_tokens": 2, "input_length": 5}
GENERATED: dict[str, bytes] = {
    "plain": event(TOKEN) + event(LAST | {"details": DETAILS}),
    "heartbeats": event({})
    + event(b"", "ping")
    + event(TOKEN)
    + event({"type": "ping"})
    + event(LAST | {"details": DETAILS}),
    "no token at the end": event(TOKEN) + event({"details": DETAILS}),
    "a null token": event(TOKEN) + event({"token": None, "details": DETAILS}),
    "few details": event(TOKEN) + event(LAST | {"details": {"generated_tokens": 2.0, "input_length": 5}}),
    "no logprob": event(TOKEN | {"token": {"text": "hello"}}) + event(LAST | {"details": DETAILS}),
    "odd top tokens": event(TOKEN | {"top_tokens": 7}) + event(LAST | {"details": DETAILS}),
    "a byte order mark": b"\xef\xbb\xbf" + event(TOKEN) + event(LAST | {"details": DETAILS}),
    "no blank line": event(TOKEN) + event(LAST | {"details": DETAILS}).rstrip(),
    "whole": json.dumps({"generated_text": "hello", "details": DETAILS}).encode(),
}


@pytest.mark.parametrize("name", GENERATED)
def test_a_tgis_generation_that_is_odd_is_read(name: str) -> None:
    tgi = BACKENDS["tgi"]
    for pieces in cuts(GENERATED[name]):
        got = heard(tgi, text(prompt="a", stream=True), pieces)
        assert (spelt(got), got.finished, got.failure) == (("hello", ["stop"]), True, None)
        assert plain(got.usage) == USAGE
    answer = decoded(tgi, text(prompt="a"), GENERATED[name], {"x-prompt-tokens": "5"})
    assert (answer["choices"][0]["text"], answer["usage"]) == ("hello", USAGE)


# --- surrogates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (rb'{"a": "\ud83d\ude00"}', None),
        (rb'{"a": "\uD83D\uDE00 \u00e9"}', None),
        (rb'{"a": "\\ud83d"}', None),
        (rb'{"a": "\\\ud83d"}', (r"\ud83d", "a")),
        (rb'{"messages": [{"content": "a"}, {"content": "a\ud83d"}]}', (r"\ud83d", "messages[1].content")),
        (rb'{"a": "\ude00\ud83d"}', (r"\ude00", "a")),
        (rb'{"a": "\ud83d\ud83d\ude00"}', (r"\ud83d", "a")),
        (rb'{"a": [["\uDBFFx"]]}', (r"\uDBFF", "a[0][0]")),
        (rb'{"\ud83d": 1}', (r"\ud83d", "")),
        (rb'{"a": "\ud83d', (r"\ud83d", "")),
        (b'{"a": "plain"}', None),
    ],
)
def test_a_lone_half_is_found_where_it_is(body: bytes, found: tuple[str, str] | None) -> None:
    assert find_lone(body) == found


def test_lone_halves_are_replaced_at_every_depth() -> None:
    assert replaced({"a\ud83d": ["\ud83d\ude00", {"b": "x\ude00y\ud83d"}, 1, None]}) == {
        "a\ufffd": ["\U0001f600", {"b": "x\ufffdy\ufffd"}, 1, None]
    }
