"""What an engine's stream has that is no chunk: heartbeats, which are skipped, and errors in all their forms. Pure.

The SDKs take no notice of an event that says nothing they know; what cannot be read at all is an error that names what
was seen.
"""

from typing import Any

from backends import problem
from backends.base import BackendError, Call, Cause
from backends.failures import CUT, NOT_THE_PROTOCOL, classify
from backends.lenient_json import EventJSON, read_json
from backends.sse import BOM, DONE, ErrorPayload

EXCERPT = 100  # bytes
NO_CHOICES = "there are no choices"


def is_done(payload: bytes) -> bool:
    """Whether an event says that the stream is at its end."""
    return payload.lstrip().startswith(DONE)


def read_event(payload: bytes, reader: EventJSON) -> dict[str, Any] | None:
    """Return an event's decoded JSON; None if it is to be skipped; `{"error": …}` if its name is `error`.

    Raises BackendError (PROTOCOL_ERROR) if it begins as JSON and cannot be read.
    """
    try:
        value = reader.read(payload)
    except problem.UNREADABLE as error:
        if payload.lstrip().startswith((b"{", b"[")):
            raise unreadable(payload, error) from error
        value = payload.decode(errors="replace")
    if isinstance(payload, ErrorPayload) and not (isinstance(value, dict) and is_error(value)):
        return {"error": value}
    return value if isinstance(value, dict) else None


def is_error(value: dict[str, Any]) -> bool:
    """Whether decoded JSON is an engine's error (CONTRACT.md 4.4), or FastAPI's, or one of Anthropic's form."""
    if value.get("error") or value.get("object") == "error" or value.get("type") == "error":
        return True
    if value.get("choices"):
        return False
    return bool(value.get("detail")) or (isinstance(value.get("message"), str) and _status(value) is not None)


def failure_of(value: dict[str, Any], call: Call | None) -> BackendError:
    """Return the failure for an engine's error: by the status that it names, else FAILED."""
    found = problem.read_value(value)
    return classify(found.status or 500, found, call)


def _status(error: object) -> int | None:
    """Return the HTTP status that an error names."""
    for name in ("code", "status", "status_code"):
        value = error.get(name) if isinstance(error, dict) else None
        if isinstance(value, int | float | str) and str(value).removesuffix(".0").isdecimal():
            number = int(float(value))
            if 400 <= number < 600:
                return number
    return None


def is_stream(body: bytes) -> bool:
    """Whether the body of a complete answer may be an event stream, as it is no JSON."""
    return not body.removeprefix(BOM).lstrip().startswith((b"{", b"[")) and (b"data:" in body or b"event:" in body)


def no_answer(body: bytes, call: Call | None, said: Exception | str) -> BackendError:
    """Return the failure for a body that is no answer: the error that it tells, else what is said of it."""
    try:
        value = read_json(body)
    except problem.UNREADABLE as error:
        return unreadable(body, error)
    return failure_of(value, call) if isinstance(value, dict) and is_error(value) else unreadable(body, said)


def unreadable(data: bytes, error: Exception | str) -> BackendError:
    """Return the failure for what cannot be read: it names the field, or the place, and shows what was sent."""
    said, _, where = str(error).replace("`", "").partition(" - at $")
    place = f" at '{where.removeprefix('.')}'" if where else ""
    message = f"{NOT_THE_PROTOCOL.removesuffix('.')}: {said[:1].lower()}{said[1:]}{place}. {shown(data)}"
    return BackendError(Cause.PROTOCOL_ERROR, message)


def cut(data: bytes) -> BackendError:
    """Return the failure for a stream that ended too soon; `data` is what came that was no answer."""
    return BackendError(Cause.FAILED, f"{CUT} {shown(data)}" if data.strip() else CUT)


def shown(data: bytes) -> str:
    """Return a sentence that shows the beginning of what an engine sent."""
    text = data[:EXCERPT].decode(errors="replace")
    text = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return f"It sent: {text}{'…' if len(data) > EXCERPT else ''}" if text else "It sent nothing."
