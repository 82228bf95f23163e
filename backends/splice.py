"""Chunks of a stream that differ in their text alone are copied instead of read and written anew. Pure.

Nearly all events of a stream are the same bytes around another piece of text. The first such event is read; what was
made of it says which bytes stand before and behind the text in the chunk for the client. An event with the same bytes
around its text then makes the same chunk around the same text: a text without a quotation mark, a backslash or a
control character is written as it is read (RFC 8259, section 7).
"""

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw

from backends.schema import Answer, ChunkChoice, Delta, TextChoice

MOST_IN_VAIN = 4  # events that are learned from though nothing was copied since: some streams have no two alike
PLAIN = Delta(content="").__struct_fields__

_CONTENT, _TEXT = re.compile(rb'"content": ?"'), re.compile(rb'"text": ?"')

_encode = msgspec.json.Encoder().encode


class Splicer:
    """Copies the chunks of one stream. `copied` is told each text that was, in UTF-8."""

    def __init__(self, copied: Callable[[bytes], None], chat: bool) -> None:
        self._copied = copied
        self._begins = _CONTENT if chat else _TEXT
        self._front = self._back = b""  # around the text, in the engine's event
        self._own_front = self._own_back = b""  # in the client's chunk
        self._around = 0
        self._in_vain = 0

    def take(self, payload: bytes) -> Raw | None:
        """Return an event's chunk, if it differs from the one that was learned in its text alone."""
        front, back = self._front, self._back
        if not (front and payload.startswith(front) and payload.endswith(back) and len(payload) > self._around):
            return None
        text = payload[len(front) : len(payload) - len(back)]
        if b'"' in text or b"\\" in text or not _is_printable(text):
            return None
        self._in_vain = 0
        self._copied(text)
        return Raw(self._own_front + text + self._own_back)

    def learn(self, payload: bytes, chunk: object) -> None:
        """Learn from an event, and what was made of it, if that is a piece of text and nothing else."""
        if self._in_vain >= MOST_IN_VAIN or not isinstance(chunk, Answer) or not _is_text_alone(chunk):
            return
        self._in_vain += 1
        theirs, ours = _split(payload, self._begins), _split(_encode(chunk), self._begins)
        if theirs is None or ours is None or theirs[1] != ours[1]:
            return
        (self._front, _, self._back), (self._own_front, _, self._own_back) = theirs, ours
        self._around = len(self._front) + len(self._back)


def _split(data: bytes, begins: re.Pattern[bytes]) -> tuple[bytes, bytes, bytes] | None:
    """Return what is before, in and behind the text; None if that cannot be told by a look.

    `begins` cannot be inside another text, where a quotation mark has a backslash before it.
    """
    found = list(begins.finditer(data))
    if len(found) != 1:
        return None
    start = found[0].end()
    end = data.find(b'"', start)
    text = data[start:end]
    return None if end < start or b"\\" in text else (data[:start], text, data[end:])


def _is_text_alone(chunk: Answer[ChunkChoice] | Answer[TextChoice]) -> bool:
    """Whether a chunk is one piece of text of one choice, somewhere in its middle."""
    if len(chunk.choices) != 1 or chunk.usage is not None:
        return False
    (choice,) = chunk.choices
    if choice.finish_reason or choice.logprobs or choice.stop_reason is not None:
        return False
    if isinstance(choice, TextChoice):
        return bool(choice.text)
    delta = choice.delta
    return bool(delta.content) and all(name == "content" or not getattr(delta, name) for name in PLAIN)


def _is_printable(text: bytes) -> bool:
    """Whether a text is UTF-8 without control characters; it may be said of a few others that they are not."""
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False
