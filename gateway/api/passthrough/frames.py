"""An event stream cut into whole events (WHATWG HTML, section 9.2), each as it came, with its blank line.

Nothing of an event goes out before its end has come: an `event:` line whose data never follows would name the next
event, and a comment between the two would end the event. Only an event that grows beyond `limit` bytes goes out in
pieces, so that it neither waits nor fills the memory.
"""

import re
from itertools import pairwise
from typing import NamedTuple

LIMIT = 4 * 2**20

_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\r\n|\r\n\n|\n\n|\r\r")
_NAME = re.compile(rb"(?:event:[^\r\n]*\n)?")
_SEAM = 3  # bytes: all but the last of the longest of these
_BOM = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    """A whole event or comment, or `whole` being false a piece of one; `last`: nothing more of it follows."""

    data: bytes
    whole: bool = True
    last: bool = True


class FrameReader:
    """Cuts what comes of a stream. `limit` is the number of bytes from which an event goes out in pieces."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of an event whose end has not come
        self._size = 0
        self._tail = _BOM  # the last bytes of the pieces; at first, what may be left out
        self._piecewise = False  # the event's beginning has gone out

    def feed(self, data: bytes) -> list[Frame]:
        """Take the bytes of one read, split anywhere; return what is complete."""
        if self._tail == _BOM:
            data, self._tail = data.removeprefix(_BOM), b""
        seam = self._tail + data
        plain = b"\r" not in seam  # the usual case
        if not (b"\n\n" in seam if plain else _BLANK_LINE.search(seam)):
            self._keep(data)
            return self._overflow()
        text = b"".join([*self._pieces, data])
        self._pieces, self._size, self._tail = [], 0, b""
        *events, rest = _plain_events(text) if b"\r" not in text else _events(text)
        frames = [Frame(event) for event in events]
        if self._piecewise:
            frames[0], self._piecewise = Frame(events[0], whole=False), False
        if rest:
            self._keep(rest)
        return frames + self._overflow() if rest else frames

    def is_whole(self, data: bytes) -> bool:
        """Whether what has come is whole events and nothing else, as far as that is seen at once."""
        return not self._pieces and not self._piecewise and data.endswith(b"\n\n") and b"\r" not in data

    def end(self) -> bytes:
        """Return what came of an event whose end never did, at the end of the stream."""
        rest, self._pieces, self._size = b"".join(self._pieces), [], 0
        return rest

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        self._tail = (self._tail + data)[-_SEAM:]

    def _overflow(self) -> list[Frame]:
        """Return all but the end of an event that has grown too large: its end may be half a blank line."""
        if self._size <= self._limit and not self._piecewise:
            return []
        text = b"".join(self._pieces)
        self._pieces, self._size, self._piecewise = [text[-_SEAM:]], min(_SEAM, self._size), True
        return [Frame(text[:-_SEAM], whole=False, last=False)] if text[:-_SEAM] else []


def _plain_events(text: bytes) -> list[bytes]:
    """Return the events of a text whose lines end in line feeds, and what comes after the last."""
    *events, rest = text.split(b"\n\n")
    return [*(event + b"\n\n" for event in events), rest]


def _events(text: bytes) -> list[bytes]:
    ends = [end.end() for end in _BLANK_LINE.finditer(text)]
    return [text[begin:end] for begin, end in pairwise([0, *ends, len(text)])]


def payload(frame: bytes) -> bytes:
    """Return the data of an event; of a comment, nothing."""
    name, _, data = frame.partition(b"data: ")
    if data.find(b"\n") == len(data) - 2 and b"\r" not in data and _NAME.fullmatch(name):
        return data[:-2]  # the usual case: at most a name, and one line of data
    lines = [line[5:].removeprefix(b" ") for line in frame.splitlines() if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)


def with_payload(frame: bytes, data: bytes) -> bytes:
    """Return an event with other data, of one line, in the place of its own."""
    end = b"\r\n" if b"\r\n" in frame else b"\n"
    lines = [line for line in frame.splitlines() if line and not line.startswith(b"data:")]
    return end.join([*lines, b"data: " + data, b"", b""])
