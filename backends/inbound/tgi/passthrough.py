"""TGI's own stream, forwarded from a TGI to the client: read only to count tokens and to detect errors."""

from typing import Any

import msgspec

from backends import problem
from backends.base import BackendError, Cause
from backends.lenient import EventJSON
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
        self.written += 1
        self.ended = self.ended or is_error(said) or said.get("generated_text") is not None
        if is_error(said):
            self._take_error(said)
        details = said.get("details")
        if isinstance(details, dict):
            self.usage = usage(_count(details, "input_length", 0), _count(details, "generated_tokens", self.written))
            if self._hidden:
                return msgspec.json.encode(said | {"details": None})
        return payload

    def _take_error(self, said: dict[str, Any]) -> None:
        found = failed(None, None, problem.read_value(said))
        if isinstance(found, BackendError):
            self.failure = found
            if self.written == 1 and found.cause is not Cause.INVALID:
                raise found


def _count(details: dict[str, Any], name: str, otherwise: int) -> int:
    count = details.get(name)
    return count if isinstance(count, int) else otherwise


def usage(read: int, written: int) -> Usage:
    """Return the usage of `read` prompt tokens and `written` generated tokens."""
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
