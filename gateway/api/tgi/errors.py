"""How TGI tells of errors: one table from the gateway's errors to TGI's status, `error_type` and words.

(CONTRACT.md 5) What its router says before it has read a request is plain text, the rest `{"error",
"error_type"}`, which in a stream is an event behind a status of 200 (CONTRACT.md 4.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from backends.inbound.tgi import serde as native_serde
from backends.inbound.tgi import translate as native
from backends.sse import event
from gateway.http.body import JSON
from gateway.http.errors import (
    BodyTooLarge,
    EngineFailed,
    EngineTimeout,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PointsmanError,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)
from gateway.upstream.connection import UpstreamConnectError

TEXT = b"text/plain; charset=utf-8"
OWN_STATUSES = frozenset({400, 413, 415, 422, 424, 429, 500})  # by which TGI itself says what is wrong

TABLE: Sequence[tuple[type[PointsmanError], int, str, str]] = (
    (InvalidRequest, 422, "validation", "Input validation error: {}"),
    (NotFound, 422, "validation", "Input validation error: {}"),
    (UpstreamConnectError, 429, "overloaded", "Model is overloaded: {}"),
    (Unavailable, 429, "overloaded", "Model is overloaded"),
    (RateLimited, 429, "overloaded", "Model is overloaded"),
    (EngineFailed, 424, "generation", "Request failed during generation: {}"),
    (EngineTimeout, 424, "generation", "Request failed during generation: {}"),
)


class Misread(InvalidRequest):
    """A body that TGI's router does not read: its words, in plain text."""

    def __init__(self, said: native_serde.Rejected) -> None:
        super().__init__(said.text)
        self.plain_status = said.status


@dataclass(frozen=True, slots=True)
class Told:
    """An error as TGI tells it; `event` is the same in a stream, where there can be one."""

    status: int
    body: bytes
    kind: bytes
    event: bytes = b""


def told(error: PointsmanError) -> Told:
    """Return how TGI tells an error; what it does not know keeps the gateway's status and words."""
    match error:
        case Misread():
            return _plain(error.plain_status, error.message)
        case BodyTooLarge():
            return _plain(error.status, "Failed to buffer the request body: length limit exceeded")
        case UnsupportedMedia():
            return _plain(error.status, "Expected request with `Content-Type: application/json`")
        case Unauthorized():
            return _plain(error.status, "")
        case MethodNotAllowed():
            return _plain(error.status, "")
    status, kind, words = error.status, error.type, "{}"
    for cause, its_status, its_kind, its_words in TABLE:
        if isinstance(error, cause):
            status, kind, words = its_status, its_kind, its_words
            break
    body = native.error(words.format(error.message), kind)
    return Told(status, body, JSON, event(body))


def _plain(status: int, text: str) -> Told:
    return Told(status, text.encode(), TEXT)
