"""TGI's own answers, forwarded from a TGI to the client: read only to count tokens and to detect errors."""

from typing import Any

import msgspec

from backends import estimate, problem
from backends.base import BackendError, Cause
from backends.lenient_json import EventJSON
from backends.odd_events import is_error, read_event
from backends.schema import Usage
from backends.tgi.errors import failed

_SAID = {"token", "generated_text", "details"}
_NOT_LAST = b'"generated_text":null'


class DetailsFilter:
    """Counts the tokens of one stream. `hidden`: the client did not ask for details, so they are removed."""

    def __init__(self, hidden: bool) -> None:
        self.ended = False  # the last event, or an error, has come
        self.usage: Usage | None = None
        self.failure: BackendError | None = None  # the error that ended the stream
        self._hidden = hidden
        self._json = EventJSON()
        self.written = 0

    def take(self, payload: bytes) -> bytes:
        """Take one event's payload; return it for the client, nothing if it says nothing.

        Raises BackendError if it cannot be read, or if the first event is a failure: another engine may be tried.
        """
        if _NOT_LAST in payload:  # cannot be inside a text, where quotes are escaped
            self.written += 1
            return payload
        said = read_event(payload, self._json)
        if said is None or not (is_error(said) or said.keys() & _SAID):
            return b""
        self.ended = self.ended or is_error(said) or said.get("generated_text") is not None
        if is_error(said):
            self._take_error(said)
        else:
            self.written += 1
        details = said.get("details")
        if isinstance(details, dict):
            self.usage = usage(_count(details, "input_length"), _count(details, "generated_tokens"))
            if self._hidden:
                return msgspec.json.encode(said | {"details": None})
        return payload

    def _take_error(self, said: dict[str, Any]) -> None:
        found = failed(None, None, problem.read_value(said))
        if isinstance(found, BackendError):
            self.failure = found
            if not self.written and found.cause is not Cause.INVALID:
                raise found

    def worked(self) -> Usage | None:
        """Return the engine's own figures; until they have come, an event is a token. None if there was none."""
        if self.usage is not None:
            return estimate.whole(self.usage, self.written)
        return estimate.so_far(None, self.written) if self.written else None


def answered(body: bytes, read: int, written: int, inputs: str) -> Usage:
    """Return what was worked for a whole answer to `inputs`, of which the headers told these tokens, -1 being unknown.

    What they have not told is read of the answer's details, or estimated by its text.
    """
    try:
        said = msgspec.json.decode(body)
    except problem.UNREADABLE:
        said = None
    first: Any = said[0] if isinstance(said, list) and said else said
    details = first.get("details") if isinstance(first, dict) else None
    if written < 0 and isinstance(details, dict):
        written = _count(details, "generated_tokens")
    text = first.get("generated_text") if isinstance(first, dict) else None
    size = estimate.text_size(text.removeprefix(inputs)) if isinstance(text, str) else 0
    return estimate.whole(usage(read, written), estimate.of_bytes(size))


def _count(details: dict[str, Any], name: str) -> int:
    count = details.get(name)
    return count if isinstance(count, int) else -1


def usage(read: int, written: int) -> Usage:
    """Return the usage of `read` prompt tokens and `written` generated tokens; -1 is not known."""
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=max(read, 0) + max(written, 0))
