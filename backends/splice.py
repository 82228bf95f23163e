"""Events of a stream that differ in their text alone are copied instead of read and written anew. Pure.

Nearly all events of a stream are the same bytes around another piece of text. The first such event is read; what was
made of it says which bytes stand before and behind the text in the event for the client. An event with the same bytes
around its text then makes the same event around the same text: a text without a quotation mark, a backslash or a
control character is written as it is read (RFC 8259, section 7).
"""

import re
from collections.abc import Callable, Sequence
from itertools import takewhile

import msgspec

from backends.schema import Answer, ChunkChoice, Delta, TextChoice

WINDOW = 16384  # bytes that are looked at for one run of events
MOST_IN_VAIN = 8  # events that are looked at though nothing was copied since: some streams have no two alike
PLAIN = Delta(content="").__struct_fields__
DATA, END = b"data:", b"\n\n"

_CONTENT, _TEXT = re.compile(rb'"content": ?"'), re.compile(rb'"text": ?"')

_encode = msgspec.json.Encoder().encode

Copied = Callable[[list[bytes]], None]


class Splicer:
    """Copies the events of one stream. `copied` is told the texts of those that were, in UTF-8, none of them empty."""

    def __init__(self, copied: Copied, chat: bool) -> None:
        self._copied = copied
        self._begins = _CONTENT if chat else _TEXT
        self._front = self._back = b""  # around the text, in the engine's event
        self._own_front = self._own_back = b""  # in the client's
        self._in_vain = 0

    @property
    def has_given_up(self) -> bool:
        """Whether no two events seem to be alike."""
        return self._in_vain >= MOST_IN_VAIN

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """Copy what there is of events, from the first on, that differ from the one that was learned in their text.

        Returns the events for the client, and what was not copied. The data begin with an event.
        """
        front, back = self._front, self._back
        if not front or not data.startswith(front):
            return b"", data
        end = data.rfind(back, 0, WINDOW) + len(back)
        texts = data[len(front) : end - len(back)].split(back + front)
        if not _are_plain(texts):
            texts = list(takewhile(_is_plain, texts))
            if not texts or end < len(back):
                return b"", data
            end = sum(map(len, texts)) + len(texts) * (len(front) + len(back))
        self._in_vain = 0
        self._copied(texts)
        return self._own_front + (self._own_back + self._own_front).join(texts) + self._own_back, data[end:]

    def learn(self, event: bytes, chunks: Sequence[object]) -> None:
        """Learn from an event, without its blank line, and what was made of it, if that is text and nothing else."""
        self._in_vain += 1
        if len(chunks) != 1 or not event.startswith(DATA) or b"\n" in event:
            return
        (chunk,) = chunks
        if not isinstance(chunk, Answer) or not _is_text_alone(chunk):
            return
        theirs, ours = _split(event, self._begins), _split(_encode(chunk), self._begins)
        if theirs is None or ours is None or theirs[1] != ours[1]:
            return
        self._front, self._back = theirs[0], theirs[2] + END
        self._own_front, self._own_back = DATA + b" " + ours[0], ours[2] + END


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


def _are_plain(texts: list[bytes]) -> bool:
    """Whether each of the texts is plain; the blanks keep two halves of a character apart."""
    return b"" not in texts and _is_plain(b" ".join(texts))


def _is_plain(text: bytes) -> bool:
    """Whether a text is UTF-8 without what JSON escapes; of a few that are it may be said that they are not."""
    if not text or b'"' in text or b"\\" in text:
        return False
    try:
        return text.decode().isprintable()
    except UnicodeDecodeError:
        return False
