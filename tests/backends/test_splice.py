"""A stream whose chunks are copied is, byte for byte, the one whose chunks are read and written anew."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import BACKENDS
from backends.base import Call
from backends.estimate import Written
from gateway.http.sse import framed
from tests.support import recorded
from tests.support.dialects import chat, text

KINDS = ("vllm", "openai", "tgi")
USED = b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'


class Read(msgspec.Struct):
    """What a client gets of a stream, what was counted of it, how it ended, and how many chunks were copied."""

    body: bytes
    tokens: int
    ended: tuple[bool, str, Any]
    copied: int


def read(kind: str, call: Call, pieces: list[bytes], copying: bool) -> Read:
    """Read an engine's stream as the gateway does."""
    backend = BACKENDS[kind]
    request = backend.encode(call, "m")[0]
    decoder = backend.decoder(call, request)
    written, body, copied = Written(), b"", list[bytes]()

    def note(texts: list[bytes]) -> None:
        written.note(texts)
        copied.extend(texts)

    if copying:
        decoder.copy_alike(note)
    for piece in [*pieces, b""]:
        if decoder.finished or decoder.failure is not None:
            break
        events = decoder.feed(piece) if piece else decoder.end()
        written.add(events)
        body += framed(events) if events else b""
    return Read(body, written.tokens, (decoder.finished, repr(decoder.failure), decoder.usage), len(copied))


def same(kind: str, call: Call, pieces: list[bytes]) -> int:
    """See that copying changes nothing; return how many chunks were copied."""
    plainly, copying = read(kind, call, pieces, False), read(kind, call, pieces, True)
    assert (copying.body, copying.tokens, copying.ended) == (plainly.body, plainly.tokens, plainly.ended)
    return copying.copied


def streams() -> list[str]:
    """Return the names of all recorded streams of chats and completions."""
    names = [f"{engine}/{name}" for engine in ("vllm", "tgi") for name in recorded.names(engine)]
    return [name for name in names if recorded.load(name).response_body.startswith((b"data: {", b"data:{"))]


@pytest.mark.parametrize("name", streams())
@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_stream(kind: str, name: str) -> None:
    """Read as any of the engines', its own, too."""
    case = recorded.load(name)
    asked = {key: value for key, value in json.loads(case.body).items() if key in ("n", "stream", "stream_options")}
    call = chat(**asked) if "chat" in case.path else text(prompt="x", **asked)
    events = [event + b"\n\n" for event in case.response_body.split(b"\n\n") if event]
    for pieces in (events, [case.response_body]):
        same(kind, call, pieces)


def event(content: str, *, index: int = 0, ascii_only: bool = False, compact: bool = True, **more: Any) -> bytes:
    """Write an event as an engine does."""
    choice = {"index": index, "delta": {"content": content}, "logprobs": None, "finish_reason": None} | more
    chunk = {"id": "e", "object": "chat.completion.chunk", "created": 1, "model": "theirs", "choices": [choice]}
    separators = (",", ":") if compact else None
    return b"data: " + json.dumps(chunk, ensure_ascii=ascii_only, separators=separators).encode() + b"\n\n"


FIRST = event("", delta={"role": "assistant", "content": ""})
LAST = event("", delta={}, finish_reason="stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize("limit", [{}, {"max_tokens": 10}, {"max_tokens": 5000}, {"stop": ["word40"]}], ids=str)
def test_of_a_tgis_stream_the_chunks_of_a_second_are_copied(limit: dict[str, Any]) -> None:
    """Its events say when they were written, in seconds."""
    pieces = [
        event("", delta={"role": "assistant", "content": f" word{number}"}, system_fingerprint="3.3.5").replace(
            b'"created":1', b'"created":%d' % (number // 25)
        )
        for number in range(50)
    ]
    last = event("", delta={"role": "assistant", "content": ""}, finish_reason="length")
    used = b'data: {"object":"chat.completion.chunk","id":"","created":2,"model":"x","choices":[],'
    used += USED + b"}\n\ndata: [DONE]\n\n"
    copied = same("tgi", chat(stream=True, **limit), [*pieces, last, used])
    assert copied == (0 if "stop" in limit else 47)  # the first comes with the role


@pytest.mark.parametrize("compact", [True, False])
def test_nearly_all_chunks_of_a_plain_stream_are_copied(compact: bool) -> None:
    pieces = [event(f" word{number}", compact=compact) for number in range(50)]
    assert same("vllm", chat(stream=True), [FIRST, *pieces, LAST]) == 49
    assert same("vllm", chat(stream=True), [FIRST + b"".join(pieces) + LAST]) == 49


def test_a_stream_of_texts_is_copied() -> None:
    def one(text: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        chunk = {"id": "e", "object": "text_completion", "created": 1, "model": "theirs", "choices": [choice]}
        return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"

    pieces = [*(one(f" word{number}") for number in range(20)), one("", "stop"), b"data: [DONE]\n\n"]
    assert same("vllm", text(prompt="x", stream=True), pieces) == 19


ODD = [
    'a "quoted" word',
    "a\\backslash",
    "a\nline",
    "\t",
    "\x00",
    "\x7f",
    "",
    " ",
    "Grüße",
    "日本",
    "😀",
    "\u2028",
    "\u200b",
    "\ufeff",
    '","finish_reason":"stop","x":"',
    '"content":"x',
    "data: [DONE]",
]


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("odd", ODD)
def test_any_text_among_others(odd: str, ascii_only: bool) -> None:
    pieces = [event(one, ascii_only=ascii_only) for one in ("a", "b", odd, "c", odd, odd, "d")]
    assert same("vllm", chat(stream=True), [FIRST, *pieces, LAST])
    assert same("vllm", chat(stream=True), [event(odd, ascii_only=ascii_only), *pieces, LAST])


CALLED = {"name": "f", "arguments": ""}
UNLIKE = {
    "a second choice": event("x", index=1),
    "a finish reason": event("x", finish_reason="length"),
    "log probabilities": event("x", logprobs={"content": []}),
    "a tool call": event(
        "", delta={"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}
    ),
    "what it thought": event("", delta={"reasoning": "hm"}),
    "what it thought, with a text": event("", delta={"content": "x", "reasoning": "hm"}),
    "a role in the middle": event("", delta={"role": "assistant", "content": "x"}),
    "a field of its own": event("x", token_text="x"),
    "ids of tokens": event("x", token_ids=[1]),
    "an error": b'data: {"error": {"message": "out of memory", "code": 500}}\n\n',
    "a heartbeat": b'data: {"choices": []}\n\n',
    "no JSON": b"data: {\n\n",
    "half a character": event("").replace(b'"content":""', rb'"content":"\ud83d"'),
    "a zero byte": event("x").replace(b"x", b"\0", 1),
    "no UTF-8": event("x").replace(b'"content":"x', b'"content":"\xff'),
    "half of UTF-8": event("x").replace(b'"content":"x', b'"content":"\xe6\x97'),
    "a surrogate in UTF-8": event("x").replace(b'"content":"x', b'"content":"\xed\xa0\xbd'),
    "a comment": b": alive\n\n",
    "a name": b"event: message\n" + event("x"),
    "the end": LAST,
    "usage": event("x").replace(
        b'"choices"', b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3},"choices"'
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", UNLIKE)
def test_an_event_that_is_unlike_the_others(name: str, kind: str) -> None:
    for before in (1, 3):
        pieces = [FIRST, *[event("a")] * before, UNLIKE[name], event("b"), event("c"), UNLIKE[name], event("d"), LAST]
        for asked in ({"stream": True}, {"stream": True, "n": 2}, {"stream": True, "n": 2, "temperature": 0}):
            same(kind, chat(**asked), pieces)
            same(kind, chat(**asked), [b"".join(pieces)])


def test_a_stream_of_which_no_two_events_are_alike_is_not_learned_from_for_ever() -> None:
    pieces = [event("x").replace(b'"created":1', b'"created":%d' % number) for number in range(20)]
    assert same("vllm", chat(stream=True), [FIRST, *pieces, LAST]) == 0


texts = st.one_of(st.sampled_from(ODD), st.text(max_size=5), st.sampled_from(["a", "b", " c"]))
events = st.builds(event, texts, ascii_only=st.booleans())


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(st.one_of(events, st.sampled_from(list(UNLIKE.values()))), max_size=8),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=2)), max_size=2),
    together=st.booleans(),
)
def test_any_stream(pieces: list[bytes], changes: list[tuple[int, bytes]], together: bool) -> None:
    data = [FIRST, event("a"), *pieces, event("b"), LAST]
    for place, change in changes:
        which = place % len(data)
        at = place % (len(data[which]) + 1)
        data[which] = data[which][:at] + change + data[which][at + 1 :]
    for kind in KINDS:
        same(kind, chat(stream=True), [b"".join(data)] if together else data)
