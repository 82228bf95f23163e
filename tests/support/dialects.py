"""Drives a dialect of `backends/` without a network: a call in, an answer or events out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from backends.base import Backend, BackendError, Call, Cause, Completion, Decoder, FollowUp, UpstreamRequest
from backends.choices import merged
from backends.extras import merge_extra
from backends.schema import Usage
from gateway.proxy import parse

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
FIRST = {"role": "assistant"}  # what the first delta of each choice has, whether the engine says so or not
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Heard(NamedTuple):
    """What came of a stream, read until it had finished or failed."""

    events: list[Any]
    usage: Usage | None
    finished: bool
    failure: BackendError | FollowUp | Completion | None

    @property
    def cause(self) -> Cause | None:
        return self.failure.cause if isinstance(self.failure, BackendError) else None

    @property
    def param(self) -> str | None:
        return self.failure.param if isinstance(self.failure, BackendError) else None


def chat(**fields: Any) -> Call:
    """Return the call of a chat with these fields beside its messages."""
    return call_of({"messages": HI} | fields)


def text(**fields: Any) -> Call:
    """Return the call of a body as it is."""
    return call_of(fields)


def call_of(fields: dict[str, Any]) -> Call:
    """Read a client's body as the gateway does: a chat if it has messages."""
    read = parse.chat if "messages" in fields else parse.completion
    return read(json.dumps(fields).encode(), "r", 1700000000)


def plain(value: Any) -> Any:
    """Return what is written on the wire, read again."""
    return json.loads(msgspec.json.encode(value))


def decoded(
    backend: Backend, call: Call, body: bytes, headers: dict[str, str] | None = None, place: int = 0
) -> dict[str, Any]:
    """Return what the client reads of a whole answer to one of the call's requests."""
    request = backend.encode(call, "m")[place]
    completion = backend.decode(call, request, headers or {}, body)
    assert isinstance(completion, Completion)
    answer: dict[str, Any] = plain(merge_extra(completion.answer, completion.extra))
    return answer


def all_decoded(backend: Backend, call: Call, answers: Iterable[tuple[bytes, dict[str, str]]]) -> dict[str, Any]:
    """Return what the client reads of the answers to all of the call's requests."""
    requests = backend.encode(call, "m")
    completions = []
    for request, (body, headers) in zip(requests, answers, strict=True):
        completion = backend.decode(call, request, headers, body)
        assert isinstance(completion, Completion)
        completions.append(completion)
    answer: dict[str, Any] = plain(merged(completions, requests).answer)
    return answer


def heard(backend: Backend, call: Call, pieces: Iterable[bytes], request: UpstreamRequest | None = None) -> Heard:
    """Read a stream as the gateway does: until it has finished or failed, or its pieces are at an end."""
    return drive(backend.decoder(call, request or backend.encode(call, "m")[0]), pieces)


def drive(decoder: Decoder, pieces: Iterable[bytes]) -> Heard:
    """Feed a decoder, until it has finished or failed, or the pieces are at an end."""
    got: list[Any] = []
    for piece in pieces:
        got += [plain(event) for event in decoder.feed(piece)]
        if decoder.finished or decoder.failure is not None:
            break
    else:
        got += [plain(event) for event in decoder.end()]
    return Heard(got, decoder.usage, decoder.finished, decoder.failure)


def whole(message: dict[str, Any], usage: dict[str, Any] | None = None, **choice: Any) -> bytes:
    """A chat answer of an engine's."""
    one = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": "stop"} | choice
    head = {"id": "x", "object": "x", "created": 1, "model": "theirs", "system_fingerprint": "theirs-1"}
    return json.dumps(head | {"choices": [one], "usage": usage or USAGE, "service_tier": "default"}).encode()


def events(*choices: dict[str, Any], usage: dict[str, Any] | None = None, **top: Any) -> bytes:
    """A stream of an engine's, an event for each choice; the usage is on the last."""
    head = {"id": "x", "object": "x", "created": 1, "model": "theirs", "system_fingerprint": "theirs-1"} | top
    chunks = [head | {"choices": [{"index": 0, "finish_reason": None} | choice]} for choice in choices]
    if usage is not None:
        chunks[-1]["usage"] = usage
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def end_of_answer(body: bytes) -> int:
    """Return where a recorded stream's last finish reason has come: at the end of its line."""
    last = max(found.start() for found in re.finditer(rb'"finish_reason":\s?"\w', body))
    return body.index(b"\n", last)


# Bodies of an engine's that are no answer; those that tell of an error are in ERRORS.
GARBAGE: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"OK",
    b"\x00\xff\xfe",
    b"<html><body>502</body></html>",
    b'{"choices": []}',
    b'{"choices": [{"index": 0, "message": {"role": "assistant", "content": "\xff"}, "finish_reason": null}]}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"choices":' + b"[" * 100_000,
    b'{"choices": [], "usage": {"prompt_tokens": 1e999}}',
    b'{"choices": [{"index": 0, "delta": {"content": 7}, "message": {"content": 7}, "text": 7}]}',
    b'{"choices": {"index": 0}}',
    b'{"choices": [7]}',
]
ERRORS: list[bytes] = [
    b'{"error": {"message": "no", "code": 500}}',
    b'{"error": "no", "error_type": "generation"}',
    b'{"object": "error", "message": "no", "type": "InternalServerError", "param": null, "code": 500}',
    b'{"detail": "no"}',
    b'{"detail": [{"loc": ["body"], "msg": "no", "type": "value_error"}]}',
    b'{"type": "error", "error": {"type": "api_error", "message": "no"}}',
    b'{"message": "no", "code": 500}',
    b'{"error": {"message": "no"}, "choices": null}',
    b'{"error": 7}',
    b'{"error": "\\ud800"}',
]
