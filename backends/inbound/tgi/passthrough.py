"""TGI's own stream, forwarded from a TGI to the client: read only to count tokens and to detect errors."""

from typing import Any

import msgspec

from backends import problem
from backends.base import BackendError, Cause
from backends.failures import NOT_THE_PROTOCOL
from backends.schema import Usage
from backends.tgi.errors import failed

_NOT_LAST = b'"generated_text":null'


class DetailsFilter:
    """Counts the tokens of one stream. `hidden`: the client did not ask for details, so they are removed."""

    def __init__(self, hidden: bool) -> None:
        self.ended = False  # the last event, or an error, has come
        self.usage: Usage | None = None
        self.failure: BackendError | None = None  # the error that ended the stream
        self._hidden = hidden
        self.written = 0

    def take(self, payload: bytes) -> bytes:
        """Take one event's payload; return it for the client.

        Raises BackendError if it is not one of TGI's, or if the first event is a failure: another engine may be tried.
        """
        self.written += 1
        if _NOT_LAST in payload:  # cannot be inside a text, where quotes are escaped
            return payload
        try:
            said = msgspec.json.decode(payload, type=dict[str, Any])
        except problem.UNREADABLE as error:
            raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL) from error
        self.ended = self.ended or "error" in said or said.get("generated_text") is not None
        if "error" in said:
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
