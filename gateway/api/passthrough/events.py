"""What is read of the events that are passed on: what they count, whether they are the end or an error.

Most events are a piece of the answer, and one search says that there is nothing to read in it, nor in all that came
with it. The others are taken apart at their top, and written anew where a name in them is the engine's own.
"""

import re

import msgspec
from msgspec import Raw

from backends.estimate import Estimate
from backends.schema import Usage
from gateway.api.passthrough.counts import Counts, counts, usage
from gateway.api.passthrough.frames import payload, with_payload
from gateway.api.passthrough.names import Fields, Names, read, write

DONE = b"[DONE]"
LONGEST_ALIVE = 64  # bytes
FAILED = "response.failed"
ENDS = frozenset({"message_stop", "response.completed", "response.incomplete", "response.cancelled", FAILED})
BEGINS = frozenset({"message_start", "response.created", "response.queued", "response.in_progress"})
LAST_WORD = "message_delta"  # on the whole message, why it ends: it is no piece of it

# The keys, and the types without any of them, of events that have to be looked at.
_TELLING = re.compile(rb'"(?:error|usage|model|message|response|message_stop|message_delta)"')
_PIECE = b'"delta"'  # the key of a piece
_ALIVE = re.compile(rb'\s*\{\s*(?:"type"\s*:\s*"(?:ping|heartbeat|keep-?alive)"\s*)?\}\s*')  # a heartbeat's data
_NAMED_ERROR = re.compile(rb"(?:^|[\r\n])event: ?error[\r\n]")


class StreamReading:
    """Reads the events of one stream. `names` are the client's.

    `spoke`: there was an event that is no comment, heartbeat or error. `incomplete`: the answer is one whose events say
    when it is complete, and they have not. `ended`: that was the last event.
    """

    def __init__(self, names: Names) -> None:
        self.spoke = False
        self.incomplete = False
        self.ended = False
        self._names = names
        self._read: int | None = None  # the engine's own figures
        self._written = 0
        self._pieces = 0

    def skim(self, events: bytes) -> bool:
        """Whether there is nothing to read in these events; then they are noted, and are to be passed as they are."""
        if not self.spoke or b"error" in events or DONE in events or _TELLING.search(events):
            return False
        self._pieces += events.count(_PIECE)
        return True

    def take(self, frame: bytes) -> tuple[bytes, Fields | None]:
        """Return the event as the client is to see it; and if it is an error, its fields."""
        data = payload(frame)
        named_error = b"error" in frame and _NAMED_ERROR.search(frame) is not None
        if not named_error and not _TELLING.search(data):
            self._note(data, "")
            return frame, None
        fields = read(data)
        if fields is None:
            self.spoke = self.spoke or not named_error
            return frame, {"message": Raw(msgspec.json.encode(data.decode(errors="replace")))} if named_error else None
        kind = _text(fields.get("type"))
        shown = with_payload(frame, write(fields)) if self._names.put(fields) else frame
        self._count(fields)
        if named_error or is_error(fields, kind):
            return shown, fields
        self._note(data, kind)
        return shown, None

    def worked(self) -> Usage:
        """Return what has been worked so far: the engine's figures; until they come, what it wrote."""
        if self.ended and self._written and self._read is not None:
            return usage(self._read, self._written)
        read, written = -1 if self._read is None else self._read, max(self._pieces, self._written)
        return Estimate(prompt_tokens=read, completion_tokens=written, total_tokens=max(read, 0) + written)

    def _note(self, data: bytes, kind: str) -> None:
        if not data or (len(data) < LONGEST_ALIVE and _ALIVE.fullmatch(data)):
            return
        self.spoke = True
        self.ended = self.ended or kind in ENDS or data == DONE
        self.incomplete = (self.incomplete or kind in BEGINS) and not self.ended and kind != LAST_WORD
        self._pieces += data.count(_PIECE) if kind != LAST_WORD else 0

    def _count(self, fields: Fields) -> None:
        for told in (counts(fields), _below(fields, "message"), _below(fields, "response")):
            if told is not None:
                self._read = told.read if told.read is not None else self._read
                self._written = told.written if told.written is not None else self._written


def is_error(fields: Fields, kind: str) -> bool:
    """Whether an event is an error, in any API's words."""
    return kind in ("error", FAILED) or bytes(fields.get("error", b"null")) != b"null"


def is_responses_own(fields: Fields) -> bool:
    """Whether an error is one in which Responses tell how the whole response stands, so that nothing is missing."""
    return _text(fields.get("type")) == FAILED and "response" in fields


def is_complete(rest: bytes) -> bool:
    """Whether what came last, without its blank line, is an event all the same, and not the beginning of one."""
    data = payload(rest)
    return data == DONE or read(data) is not None


def _below(fields: Fields, name: str) -> Counts | None:
    nested = read(fields[name]) if bytes(fields.get(name, b"")).startswith(b"{") else None
    return None if nested is None else counts(nested)


def _text(value: Raw | None) -> str:
    try:
        return "" if value is None else msgspec.json.decode(value, type=str)
    except msgspec.DecodeError:
        return ""
