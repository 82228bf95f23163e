"""What engines send that is not just as OpenAI defines it, and what a client reads of it.

Each stream says "hello", in one choice that ends in `stop`, unless a row says otherwise.
"""

from __future__ import annotations

import json
from typing import Any

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def event(value: Any, name: str = "") -> bytes:
    """Write an event; a value that is not bytes as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def said(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a chat chunk."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "own", "choices": [choice | more]}


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a chunk without these fields, at its top or in its choices."""
    choices = [{name: one for name, one in choice.items() if name not in names} for choice in value["choices"]]
    top = {name: one for name, one in value.items() if name not in names}
    return top | ({"choices": choices} if "choices" in top else {})


HELLO, STOP = event(said("hello")), event(said(None, "stop"))
PLAIN = HELLO + STOP + DONE

# (the stream, in whichever fields and events it differs)
FIELDS: dict[str, bytes] = {
    "delta null": event(said("x", delta=None)) + PLAIN,
    "delta absent": event(without(said("x"), "delta")) + PLAIN,
    "delta null at the end": HELLO + event(said("x", "stop", delta=None)) + DONE,
    "choices null": event(said() | {"choices": None}) + PLAIN,
    "choices absent": event(without(said(), "choices")) + PLAIN,
    "a null choice": event(said() | {"choices": [None]}) + PLAIN,
    "usage without choices": HELLO + STOP + event(without(said(), "choices") | {"usage": USAGE}) + DONE,
    "usage with null choices": HELLO + STOP + event(said() | {"choices": None, "usage": USAGE}) + DONE,
    "index absent": event(without(said("hello"), "index")) + event(without(said(None, "stop"), "index")) + DONE,
    "index null": event(said("hello", index=None)) + event(said(None, "stop", index=None)) + DONE,
    "index a float": event(said("hello", index=0.0)) + event(said(None, "stop", index=0.0)) + DONE,
    "index a text": event(said("hello", index="0")) + event(said(None, "stop", index="0")) + DONE,
    "role null": event(said(delta={"role": None, "content": "hello"})) + STOP + DONE,
    "role odd": event(said(delta={"role": 7, "content": "hello"})) + STOP + DONE,
    "content null": event(said(delta={"content": None})) + PLAIN,
    "content in parts": event(said(delta={"content": [{"type": "text", "text": "hello"}]})) + STOP + DONE,
    "usage null": event(said("hello") | {"usage": None}) + STOP + DONE,
    "usage empty": event(said("hello") | {"usage": {}}) + STOP + DONE,
    "usage a list": event(said("hello") | {"usage": []}) + STOP + DONE,
    "usage of floats": HELLO + STOP + event(said() | {"choices": [], "usage": dict.fromkeys(USAGE, 1.0)}) + DONE,
    "usage of nulls": HELLO + STOP + event(said() | {"choices": [], "usage": dict.fromkeys(USAGE)}) + DONE,
    "usage of one figure": HELLO + STOP + event(said() | {"choices": [], "usage": {"completion_tokens": 2}}) + DONE,
    "odd details": HELLO + event(said(None, "stop") | {"usage": USAGE | {"prompt_tokens_details": []}}) + DONE,
    "no envelope": event(without(said("hello"), "id", "object", "created", "model")) + STOP + DONE,
    "null envelope": event(said("hello") | dict.fromkeys(["id", "object", "created", "model"])) + STOP + DONE,
    "odd envelope": event(said("hello") | {"id": 7, "object": [], "created": 1.5, "model": {}}) + STOP + DONE,
    "finish reason absent": event(without(said("hello"), "finish_reason")) + STOP + DONE,
    "finish reason empty": event(said("hello", "")) + STOP + DONE,
    "logprobs odd": event(said("hello", logprobs=7)) + STOP + DONE,
    "logprobs empty": event(said("hello", logprobs={})) + STOP + DONE,
    "token ids odd": event(said("hello", token_ids=[1, "a"])) + STOP + DONE,
    "tool calls null": event(said(delta={"content": "hello", "tool_calls": None})) + STOP + DONE,
    "tool calls empty": event(said(delta={"content": "hello", "tool_calls": []})) + STOP + DONE,
    "error null": event(said("hello") | {"error": None}) + STOP + DONE,
    "a whole message as an event": event(
        said(message={"role": "assistant", "content": "hello"}, delta=None, finish="stop")
    )
    + DONE,
}

EVENTS: dict[str, bytes] = {
    "a ping with data": event({}, "ping") + PLAIN,
    "a ping with a text": event(b"2026-11-28", "ping") + PLAIN,
    "a ping without data": b"event: ping\n\n" + PLAIN,
    "an empty object": event({}) + HELLO + event({}) + STOP + event({}) + DONE,
    "a ping in data": event({"type": "ping"}) + PLAIN,
    "a null": event(b"null") + event(b"[]") + event(b"7") + event(b'"ping"') + PLAIN,
    "no data": b"data:\n\ndata: \n\ndata\n\n" + PLAIN,
    "a word": event(b"ping") + PLAIN,
    "comments": b": OPENROUTER PROCESSING\n\n:\n\n" + HELLO + b": x\n" + STOP + DONE,
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN,
    "blank lines first": b"\n\n\r\n" + PLAIN,
    "CRLF": PLAIN.replace(b"\n", b"\r\n"),
    "CR": PLAIN.replace(b"\n", b"\r"),
    "retry and id": b"retry: 3000\n\nid: 1\n" + HELLO + b"id: 2\nretry: 1\n" + STOP + DONE,
    "no space": PLAIN.replace(b"data: ", b"data:"),
    "named chunks": b"event: completion\n" + HELLO + b"event: message\n" + STOP + DONE,
    "several lines of data": HELLO.replace(b', "choices"', b',\ndata: "choices"') + STOP + DONE,
    "a space after done": HELLO + STOP + b"data: [DONE] \n\n",
    "no done": HELLO + STOP,
    "no done and a usage": HELLO + STOP + event(said() | {"choices": [], "usage": USAGE}),
    "no blank line at the end": HELLO + STOP.rstrip(),
    "one line end at the end": HELLO + STOP[:-1],
    "NaN": event(
        json.dumps(said("hello", logprobs={"content": [{"token": "a", "logprob": 0}]}))
        .replace(": 0}", ": NaN}")
        .encode()
    )
    + STOP
    + DONE,
}

ENDS: dict[str, tuple[bytes, str]] = {
    "a lone surrogate": (PLAIN.replace(b"hello", rb"hello\ud83d"), "hello\ufffd"),
    "a lone second half": (PLAIN.replace(b"hello", rb"\ude00hello"), "\ufffdhello"),
    "a pair": (PLAIN.replace(b"hello", rb"\ud83d\ude00"), "\U0001f600"),
    "a pair of two events": (
        HELLO.replace(b"hello", rb"a\ud83d") + HELLO.replace(b"hello", rb"\ude00b") + STOP + DONE,
        "a\U0001f600b",
    ),
    "a half and no other": (
        HELLO.replace(b"hello", rb"a\ud83d") + HELLO.replace(b"hello", b"b") + STOP + DONE,
        "a\ufffdb",
    ),
    "a half and an event between": (
        HELLO.replace(b"hello", rb"a\ud83d")
        + event({})
        + event(said())
        + HELLO.replace(b"hello", rb"\ude00")
        + STOP
        + DONE,
        "a\U0001f600",
    ),
    "in bytes": (PLAIN.replace(b"hello", b"a\xed\xa0\xbd"), "a\ufffd"),
    "a tab in the text": (PLAIN.replace(b"hello", b"a\tb"), "a\tb"),
}


def whole(**choice: Any) -> dict[str, Any]:
    """Return a whole chat answer that says "hello"."""
    one = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"} | choice
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "own", "choices": [one], "usage": USAGE}


WHOLE: dict[str, bytes] = {
    name: json.dumps(value).encode()
    for name, value in {
        "plain": whole(),
        "index absent": without(whole(), "index"),
        "index null": whole(index=None),
        "index a float": whole(index=0.0),
        "role absent": whole(message={"content": "hello"}),
        "role null": whole(message={"role": None, "content": "hello"}),
        "content in parts": whole(
            message={"content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}
        ),
        "usage null": whole() | {"usage": None},
        "usage absent": without(whole(), "usage"),
        "usage empty": whole() | {"usage": {}},
        "usage partial": whole() | {"usage": {"prompt_tokens": 5}},
        "usage of floats": whole() | {"usage": dict.fromkeys(USAGE, 1.0)},
        "usage odd": whole() | {"usage": "many"},
        "no envelope": without(whole(), "id", "object", "created", "model"),
        "odd envelope": whole() | {"id": 7, "created": 1.5, "model": None},
        "logprobs odd": whole(logprobs=[]),
        "tool calls empty": whole(message={"role": "assistant", "content": "hello", "tool_calls": []}),
        "error null": whole() | {"error": None},
    }.items()
}
WHOLE |= {
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE["plain"],
    "blanks first": b" \n\n \r\n" + WHOLE["plain"],
}


def as_texts(stream: bytes) -> bytes:
    """Return a stream of `HELLO` and `STOP` as a completion's."""
    return stream.replace(b'"delta": {"content": "hello"}', b'"text": "hello"').replace(b'"delta": {}', b'"text": ""')
