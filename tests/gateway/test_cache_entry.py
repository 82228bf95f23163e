"""An answer as it is kept: served as it came, and in the other form where nothing is lost; and as bytes for Redis."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Call, Event
from backends.extras import ExtrasReader
from backends.schema import Answer, ChatAnswer, ChatChunk, TextAnswer, Usage
from backends.tool_calls import tool_id
from gateway.cache import entry, packed
from gateway.cache.entry import CachedAnswer, Label
from gateway.cache.packed import UnreadableEntry
from gateway.proxy import parse
from tests.support.harness import CHAT, TEXT, events

DIGEST = bytes(range(32))
LABEL = Label(DIGEST, "m", 1000.0, 60.0)
USAGE = Usage(prompt_tokens=12, completion_tokens=3, total_tokens=15)
HEAD = {"id": "first", "created": 1, "model": "m"}

_chunk, _chat, _text = ExtrasReader(ChatChunk), ExtrasReader(ChatAnswer), ExtrasReader(TextAnswer)


def call(body: dict[str, Any] = CHAT, **more: Any) -> Call:
    read = parse.completion if "prompt" in body else parse.chat
    return read(json.dumps(body | more).encode(), "1" * 32, 1_700_000_000)


OWN_IDS = [tool_id(call(), 0, place) for place in (0, 1)]  # those that its tool calls have


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> Event:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish} | more
    value = HEAD | {"object": "chat.completion.chunk", "choices": [choice]}
    try:
        return _chunk.decode(msgspec.json.encode(value))
    except msgspec.ValidationError:
        return value


def answer(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> Answer[Any]:
    said = {"role": "assistant", "refusal": None} | message
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish} | more
    return _chat.decode(msgspec.json.encode(HEAD | {"object": "chat.completion", "choices": [choice]}))


def piece(text: str, finish: str | None = None, index: int = 0, **more: Any) -> Answer[Any]:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish} | more
    return _text.decode(msgspec.json.encode(HEAD | {"object": "text_completion", "choices": [choice]}))


def tool(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments} | more.pop("function", {})} | more]}


def logged(*tokens: str) -> dict[str, Any]:
    return {"content": [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []} for token in tokens]}


ROLE = chunk({"role": "assistant", "content": ""})
BEGUN = {"id": OWN_IDS[0], "type": "function", "function": {"name": "f"}}
STREAMS: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "text": (
        [ROLE, chunk({"content": "Grü"}), chunk({"content": "ße\n\n{"}), chunk({}, "stop")],
        {"message": {"role": "assistant", "content": "Grüße\n\n{", "refusal": None}, "finish_reason": "stop"},
    ),
    "the end with the last text": (
        [ROLE, chunk({"content": "a"}, "length")],
        {"message": {"role": "assistant", "content": "a", "refusal": None}, "finish_reason": "length"},
    ),
    "nothing": (
        [ROLE, chunk({}, "stop")],
        {"message": {"role": "assistant", "content": "", "refusal": None}, "finish_reason": "stop"},
    ),
    "logprobs and token ids": (
        [
            ROLE,
            chunk({"content": "a"}, logprobs=logged("a"), token_ids=[1]),
            chunk({"content": "b"}, "stop", logprobs=logged("b"), token_ids=[2, 3]),
        ],
        {
            "message": {"role": "assistant", "content": "ab", "refusal": None},
            "logprobs": logged("a", "b"),
            "finish_reason": "stop",
            "token_ids": [1, 2, 3],
        },
    ),
    "thought": (
        [ROLE, chunk({"reasoning": "hm"}), chunk({"reasoning": "m"}), chunk({"content": "a"}), chunk({}, "stop")],
        {
            "message": {"role": "assistant", "content": "a", "refusal": None, "reasoning": "hmm"},
            "finish_reason": "stop",
        },
    ),
    "two calls in pieces": (
        [
            ROLE,
            chunk(tool(0, "", **BEGUN)),
            chunk(tool(0, '{"a"')),
            chunk(tool(0, ":1}")),
            chunk(tool(1, "{}", id=OWN_IDS[1], type="function", function={"name": "g"})),
            chunk({}, "tool_calls"),
        ],
        {
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": OWN_IDS[0], "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                    {"id": OWN_IDS[1], "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            "finish_reason": "tool_calls",
        },
    ),
}


def kept(chunks: list[Event], body: dict[str, Any] = CHAT, usage: Usage | None = USAGE, **more: Any) -> CachedAnswer:
    made = entry.of_stream(call(body, **more), chunks, usage, LABEL)
    assert made is not None
    return made


def kept_whole(one: Event, body: dict[str, Any] = CHAT, usage: Usage | None = USAGE) -> CachedAnswer:
    made = entry.of_whole(call(body), one, usage, LABEL)
    assert made is not None
    return made


def plain(chunks: list[Event]) -> list[Any]:
    return [json.loads(msgspec.json.encode(one)) for one in chunks]


@pytest.mark.parametrize("name", STREAMS)
def test_a_replayed_stream_has_the_same_events_under_the_new_head(name: str) -> None:
    chunks, _ = STREAMS[name]
    wanted = call(stream=True, stream_options={"include_usage": True})
    replayed = entry.stream(kept(chunks), wanted)
    assert replayed is not None
    *told, last, done = events(replayed)
    head = {"id": wanted.id, "created": wanted.created, "model": "tiny"}
    assert told == [one | head for one in plain(chunks)]
    assert [list(one) for one in told] == [list(one) for one in plain(chunks)]
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 12}
    assert done == "data: [DONE]"


def test_the_usage_ends_a_replayed_stream_only_if_it_was_asked_for() -> None:
    replayed = entry.stream(kept(STREAMS["text"][0]), call(stream=True))
    assert replayed is not None
    assert b"usage" not in replayed


@pytest.mark.parametrize("name", STREAMS)
def test_a_stored_stream_is_served_whole(name: str) -> None:
    chunks, wanted = STREAMS[name]
    body = entry.whole(kept(chunks), call())
    assert body is not None
    told = json.loads(body)
    assert told["choices"] == [{"index": 0, "logprobs": None} | wanted]
    assert told["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 3,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 12},
    }
    assert (told["id"], told["object"], told["created"], told["model"]) == (
        call().id,
        "chat.completion",
        1_700_000_000,
        "tiny",
    )


@pytest.mark.parametrize("name", STREAMS)
def test_a_whole_answer_served_as_a_stream_says_the_same(name: str) -> None:
    made = kept(STREAMS[name][0])
    turned = CachedAnswer(made.label, made.whole, b"", made.usage)
    back = entry.as_events(turned, call(stream=True))
    assert back is not None
    again = kept(back)
    assert json.loads(again.whole) == json.loads(made.whole)


def other_call(number: int, **more: Any) -> Call:
    return msgspec.structs.replace(call(**more), id=f"chatcmpl-{number}")


def ids(one: Any) -> list[str]:
    """Return the ids of the tool calls in an answer or a chunk, written or not."""
    said = [choice.get("message") or choice["delta"] for choice in msgspec.to_builtins(one)["choices"]]
    return [tool["id"] for inner in said for tool in inner.get("tool_calls") or () if tool.get("id")]


ODD_CALL = chunk(tool(0, "{}", id="call_0", type="function", function={"name": "f"}), mood="good")  # an unknown field
TOOL_STREAMS = {
    "in pieces": STREAMS["two calls in pieces"][0],
    "beside fields that no type names": [ODD_CALL, chunk(tool(1, "{}", **BEGUN)), chunk({}, "tool_calls")],
}


@pytest.mark.parametrize("name", TOOL_STREAMS)
def test_tool_calls_have_their_own_ids_in_each_answer(name: str) -> None:
    """Streamed, whole, and shared live; as often as there were ids, which are those of the request's own answer."""
    made = kept(TOOL_STREAMS[name])
    for number in (1, 2):
        streamed, whole = other_call(number, stream=True), other_call(number)
        expected = [tool_id(whole, 0, place) for place in (0, 1)]
        told = events(entry.stream(made, streamed) or b"")[:-1]
        assert [found for one in told for found in ids(one)] == expected
        assert [found for one in TOOL_STREAMS[name] for found in ids(entry.headed(one, whole))] == expected
        assert [found for one in entry.as_events(made, streamed) or () for found in ids(one)] == expected
        if made.whole:
            assert ids(json.loads(entry.whole(made, whole) or b"")) == expected
    assert "call_" in str(TOOL_STREAMS[name]), "what is shared has not been changed"


def test_tool_calls_of_a_whole_answer_have_their_own_ids() -> None:
    tools = [{"id": f"call_{place}", "type": "function", "function": {"name": "f"}} for place in (0, 1)]
    first = answer({"content": None, "tool_calls": tools}, "tool_calls")
    for one in (first, msgspec.to_builtins(first) | {"mood": "good"}):
        made = kept_whole(one)
        expected = [tool_id(other_call(7), 0, place) for place in (0, 1)]
        assert ids(json.loads(entry.whole(made, other_call(7)) or b"")) == expected
        assert ids(entry.headed(one, other_call(7))) == expected
    assert ids(first) == ["call_0", "call_1"]


def test_a_text_that_looks_like_a_tool_call_stays_as_it_is() -> None:
    text = '{"tool_calls":[{"id":"call_1"}]}'
    made = kept_whole(answer({"content": text}))
    assert json.loads(entry.whole(made, other_call(7)) or b"")["choices"][0]["message"]["content"] == text


def test_legacy_functions_have_no_ids() -> None:
    said = {"content": None, "function_call": {"name": "f", "arguments": "{}"}}
    made = kept_whole(answer(said, "function_call"))
    (choice,) = json.loads(entry.whole(made, other_call(7)) or b"")["choices"]
    assert choice["message"]["function_call"] == said["function_call"]


def test_legacy_texts_go_both_ways() -> None:
    prompts = TEXT | {"prompt": ["a", "b"], "logprobs": 1}
    beside = {"tokens": ["x"], "token_logprobs": [-1.0], "top_logprobs": [None], "text_offset": [0]}
    chunks: list[Event] = [
        piece("x", logprobs=beside),
        piece("z", "stop", 1),
        piece("y", "length", logprobs=beside),
    ]
    made = kept(chunks, prompts)
    whole = json.loads(entry.whole(made, call(prompts)) or b"")
    assert [choice["text"] for choice in whole["choices"]] == ["xy", "z"]
    assert whole["choices"][0]["logprobs"]["tokens"] == ["x", "x"]
    turned = CachedAnswer(made.label, made.whole, b"", made.usage)
    told = events(entry.stream(turned, call(prompts, stream=True)) or b"")
    assert [one["choices"][0]["text"] for one in told[:-1]] == ["xy", "z"]
    assert {one["object"] for one in told[:-1]} == {"text_completion"}


def test_unwritten_forms_are_the_written_ones() -> None:
    made = kept(STREAMS["two calls in pieces"][0])
    found = entry.as_completion(made, call())
    assert found is not None
    assert msgspec.json.encode(found.answer) == entry.whole(made, call())
    unwritten = entry.as_events(made, call(stream=True))
    assert unwritten is not None
    assert plain(unwritten) == events(entry.stream(made, call(stream=True)) or b"")[:-1]


def test_an_answer_with_fields_that_no_type_names_is_served_in_its_own_form_alone() -> None:
    odd = chunk({"content": "a", "mood": "good"}, "stop")
    assert isinstance(odd, dict)
    made = kept([ROLE, odd])
    assert entry.whole(made, call()) is None
    assert events(entry.stream(made, call(stream=True)) or b"")[1]["choices"][0]["delta"]["mood"] == "good"
    whole: dict[str, Any] = plain([answer({"content": "a"})])[0] | {"mood": "good"}
    made = kept_whole(whole)
    assert entry.stream(made, call(stream=True)) is None
    assert json.loads(entry.whole(made, call()) or b"")["mood"] == "good"


@pytest.mark.parametrize("more", [{"annotations": [{"type": "x"}]}, {"audio": {"id": "x"}}])
def test_what_only_a_whole_answer_has_a_place_for_is_not_lost_in_a_stream(more: dict[str, Any]) -> None:
    made = kept_whole(answer({"content": "a"} | more))
    assert entry.stream(made, call(stream=True)) is None
    assert entry.whole(made, call()) is not None


@pytest.mark.parametrize(("chunks", "more"), [
    ([ROLE], {}),
    ([ROLE, chunk({"content": "a"})], {}),
    ([chunk({"content": "a"}, "stop", 0)], {"n": 2}),
    ([chunk({"content": "a"}, "stop", 0), chunk({"content": "b"}, None, 1)], {"n": 2}),
    ([], {}),
])  # fmt: skip
def test_a_stream_in_which_a_choice_did_not_finish_is_not_kept(chunks: list[Event], more: dict[str, Any]) -> None:
    assert entry.of_stream(call(**more), chunks, USAGE, LABEL) is None


def test_a_whole_answer_without_a_finish_reason_is_not_kept() -> None:
    assert entry.of_whole(call(), answer({"content": "a"}, None), USAGE, LABEL) is None
    assert entry.of_whole(call(n=2), answer({"content": "a"}), USAGE, LABEL) is None


def test_the_details_of_a_usage_stay_beside_the_mark() -> None:
    first = msgspec.structs.replace(USAGE, prompt_tokens_details={"cached_tokens": 4, "audio_tokens": 1})
    assert entry.cached(first).prompt_tokens_details == {"cached_tokens": 12, "audio_tokens": 1}
    assert first.prompt_tokens_details == {"cached_tokens": 4, "audio_tokens": 1}


def test_keeping_an_answer_leaves_it_as_it_is() -> None:
    chunks = STREAMS["two calls in pieces"][0]
    before = msgspec.json.encode(chunks)
    kept(chunks)
    assert msgspec.json.encode(chunks) == before
    one = answer({"content": "a"})
    kept_whole(one)
    assert (one.id, one.usage) == ("first", None)


@pytest.mark.parametrize(("now", "good"), [
    (1000.0, True), (1059.9, True), (1060.0, False), (999.0, True), (990.0, False), (9e9, False), (0.0, False),
])  # fmt: skip
def test_an_entry_is_good_for_its_time_and_not_before(now: float, good: bool) -> None:
    assert LABEL.fresh(now) is good
    assert LABEL.age(now) >= 0


# --- as bytes ----------------------------------------------------------------------------------------------

LONG = kept([ROLE, *[chunk({"content": f"word{n} "}) for n in range(500)], chunk({}, "stop")])
SHORT = CachedAnswer(LABEL, b'{"choices":[]}', b"", None)


@pytest.mark.parametrize("made", [LONG, SHORT])
def test_what_is_packed_comes_out_the_same(made: CachedAnswer) -> None:
    assert packed.unpack(packed.pack(made), DIGEST) == made


def test_a_large_answer_is_compressed() -> None:
    assert len(packed.pack(LONG)) < len(LONG.lines) / 5


def fault(value: bytes, digest: bytes = DIGEST) -> str:
    with pytest.raises(UnreadableEntry) as caught:
        packed.unpack(value, digest)
    return caught.value.fault


def sealed(value: bytes) -> bytes:
    """Write a value's checksum anew, as somebody would who knows how."""
    header, payload = value[:58], value[62:]
    return header + struct.pack(">I", zlib.crc32(payload, zlib.crc32(header))) + payload


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_value_with_one_byte_changed_is_no_answer(place: int, change: int) -> None:
    value = bytearray(packed.pack(LONG))
    value[place % len(value)] ^= change
    assert fault(bytes(value)) in ("corrupt", "version")


@given(st.binary(max_size=200))
def test_no_bytes_but_an_entrys_are_an_answer(value: bytes) -> None:
    assert fault(value) == "corrupt"


@given(st.binary(max_size=100))
def test_a_payload_of_any_bytes_under_a_good_checksum_is_no_answer(payload: bytes) -> None:
    header = bytearray(packed.pack(SHORT)[:62])
    header[54:58] = struct.pack(">I", len(payload))
    assert fault(sealed(bytes(header) + payload)) == "corrupt"


def test_a_value_cut_short_is_no_answer() -> None:
    value = packed.pack(LONG)
    assert {fault(value[:size]) for size in range(0, len(value), 7)} == {"corrupt"}


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_value_of_another_version_is_known_as_such(version: int) -> None:
    value = bytearray(packed.pack(LONG))
    value[4] = version
    assert fault(sealed(bytes(value))) == "version"


def test_a_value_under_anothers_key_is_known_as_such() -> None:
    assert fault(packed.pack(LONG), b"x" * 32) == "poisoned"


@pytest.mark.parametrize(
    ("size", "kind"), [(100, "corrupt"), (packed.MAX_SIZE, "corrupt"), (packed.MAX_SIZE + 1, "oversize")]
)
def test_a_bomb_is_never_unpacked_further_than_the_limit(size: int, kind: str) -> None:
    bomb = zlib.compress(b"\x00" * (packed.MAX_SIZE * 8), 9)
    header = bytearray(packed.pack(LONG)[:62])
    header[54:58] = struct.pack(">I", size)
    value = sealed(bytes(header) + bomb)
    tracemalloc.start()
    try:
        assert fault(value) == kind
        assert tracemalloc.get_traced_memory()[1] < packed.MAX_SIZE * 4
    finally:
        tracemalloc.stop()


def test_a_value_over_the_limit_is_neither_written_nor_read() -> None:
    with pytest.raises(UnreadableEntry, match="oversize"):
        packed.pack(CachedAnswer(LABEL, b"x" * (packed.MAX_SIZE + 1), b"", None))
    assert fault(packed.pack(SHORT) + b"x" * packed.MAX_SIZE) == "oversize"
