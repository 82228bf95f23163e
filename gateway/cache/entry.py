"""An answer as it is kept: JSON without its head, so that a hit is the new request's head and a copy of bytes.

Only where tools are called a hit is read and written anew: the calls have other ids in each answer.

The whole answer is one JSON object; the chunks of a stream are one a line. An answer is kept in the form it came in,
a stream in both; where the other form would lose something (`backends.convert`), a request for it is a miss.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from backends.base import Call, Completion, Event
from backends.convert import chunks_of, finished, whole_of
from backends.extras import ExtrasReader, merge_extra, with_extra
from backends.schema import Answer, ChatAnswer, ChatChunk, ChatRequest, TextAnswer, Usage
from gateway.cache.tool_call_ids import renewed, renewed_answer

HEAD = ("id", "object", "created", "model")
DONE = b"data: [DONE]\n\n"
TOOL_CALLS = b'"tool_calls":['  # cannot be inside a text, where quotes are escaped
SKEW = 5.0  # seconds that two gateways' clocks may differ

_encoder = msgspec.json.Encoder()
_encode = _encoder.encode
_whole_chat, _whole_text = ExtrasReader(ChatAnswer), ExtrasReader(TextAnswer)
_chat_chunk = ExtrasReader(ChatChunk)


class Marks(Struct):
    """What all chunks of a stream have in common, beside their head."""

    system_fingerprint: str | None = None


class Label(Struct, frozen=True):
    """What an entry was kept under: its key, the model's one name, when (Unix seconds), and for how long (seconds)."""

    digest: bytes
    model: str
    created: float
    ttl: float

    def age(self, now: float) -> int:
        """Return its age in whole seconds, as the Age header says it (RFC 9111, 5.1)."""
        return max(0, int(now - self.created))

    def fresh(self, now: float) -> bool:
        """Whether it is still good. One from the future is not: some clock has jumped."""
        return -SKEW <= now - self.created < self.ttl


class CachedAnswer(Struct, frozen=True):
    """A finished answer. `whole` and `lines` are empty where it has no such form; a whole one's lines are made late.

    `usage` is as first counted, and marked as cached; it is in `whole` too.
    """

    label: Label
    whole: bytes
    lines: bytes
    usage: Usage | None = None


_marks = msgspec.json.Decoder(Marks).decode


def of_stream(call: Call, events: Sequence[Event], usage: Usage | None, label: Label) -> CachedAnswer | None:
    """Return the entry of a stream's chunks; None if some choice did not finish."""
    if not finished(call, events):
        return None
    marked = usage and cached(usage)
    whole = whole_of(call, events)
    if whole is not None:
        whole.usage = marked
    lines = _encoder.encode_lines([_headless(event) for event in events])[:-1]
    return CachedAnswer(label, b"" if whole is None else _encode(_headless(whole)), lines, marked)


def of_whole(call: Call, answer: Event, usage: Usage | None, label: Label) -> CachedAnswer | None:
    """Return the entry of a whole answer; None if some choice did not finish."""
    if not finished(call, [answer]):
        return None
    marked = usage and cached(usage)
    kept = _headless(answer)
    if not isinstance(kept, dict):
        kept.usage = marked
    elif marked is not None:
        kept["usage"] = marked
    return CachedAnswer(label, _encode(kept), b"", marked)


def cached(usage: Usage) -> Usage:
    """Return a usage with all of its prompt marked as cached, in the one field that OpenAI's schema has for it."""
    details = (usage.prompt_tokens_details or {}) | {"cached_tokens": usage.prompt_tokens}
    return msgspec.structs.replace(usage, prompt_tokens_details=details)


def whole(entry: CachedAnswer, call: Call) -> bytes | None:
    """Return the answer to a request that wants it whole, as JSON; None if it has no such form."""
    if TOOL_CALLS in entry.whole:
        completion = as_completion(entry, call)
        return None if completion is None else _encode(with_extra(completion))
    return _head(call, "chat.completion") + entry.whole[1:] if entry.whole else None


def stream(entry: CachedAnswer, call: Call) -> bytes | None:
    """Return the answer to a request that wants a stream: all of its server-sent events; None if it has no such form.

    An event ends in an empty line: who plays it at a pace splits it there.
    """
    lines = _lines(entry, call)
    if not lines:
        return None
    head = b"data: " + _head(call, "chat.completion.chunk")
    if TOOL_CALLS in lines:
        events = b"".join([b"data: " + _encode(event) + b"\n\n" for event in as_events(entry, call) or ()])
    else:
        events = head + (b"\n\n" + head).join(lines[1:].split(b"\n{")) + b"\n\n"
    if call.include_usage and entry.usage is not None:
        fingerprint = _marks(lines.partition(b"\n")[0]).system_fingerprint
        last: Answer[Any] = Answer(choices=[], usage=entry.usage, system_fingerprint=fingerprint)
        events += head + _encode(last)[1:] + b"\n\n"
    return events + DONE


def as_completion(entry: CachedAnswer, call: Call) -> Completion | None:
    """Return the whole answer unwritten, for who says it in other words; None if it has no such form."""
    if not entry.whole:
        return None
    reader = _whole_chat if isinstance(call.view, ChatRequest) else _whole_text
    answer, extra = reader.read(entry.whole)
    _set_envelope(answer, call, "chat.completion")
    return Completion(renewed_answer(answer, call), extra)


def as_events(entry: CachedAnswer, call: Call) -> list[Event] | None:
    """Return the stream's chunks unwritten; None if it has no such form."""
    reader: ExtrasReader[Any] = _chat_chunk if isinstance(call.view, ChatRequest) else _whole_text
    events: list[Event] = []
    for line in _lines(entry, call).splitlines():
        chunk, extra = reader.read(line)
        _set_envelope(chunk, call, "chat.completion.chunk")
        chunk = renewed_answer(chunk, call)
        events.append(merge_extra(chunk, extra) if extra else chunk)
    return events or None


def headed(event: Event, call: Call) -> Event:
    """Return a chunk or a whole answer of another request's as this one's. What is alike is shared, not copied."""
    own = renewed(event, call)
    if isinstance(own, dict):
        return own | {"id": call.id, "created": call.created, "model": call.model}
    return msgspec.structs.replace(own, id=call.id, created=call.created, model=call.model)


def _lines(entry: CachedAnswer, call: Call) -> bytes:
    """Return the chunks, one a line: those that came, or those that the whole answer would have had."""
    if entry.lines:
        return entry.lines
    found = as_completion(entry, call)
    chunks = None if found is None or found.extra else chunks_of(found.answer)
    return _encoder.encode_lines([_headless(chunk) for chunk in chunks])[:-1] if chunks else b""


def _headless(event: Event) -> Event:
    if isinstance(event, dict):
        return {name: value for name, value in event.items() if name not in HEAD}
    return msgspec.structs.replace(event, id="", object="", created=0, model="")


def _head(call: Call, chat: str) -> bytes:
    """Return the head of an answer, up to where what is kept goes on."""
    kind = chat if isinstance(call.view, ChatRequest) else "text_completion"
    head = {"id": call.id, "object": kind, "created": call.created, "model": call.model}
    return _encode(head)[:-1] + b","


def _set_envelope(answer: Answer[Any], call: Call, chat: str) -> None:
    answer.id, answer.created, answer.model = call.id, call.created, call.model
    answer.object = chat if isinstance(call.view, ChatRequest) else "text_completion"
