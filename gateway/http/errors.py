"""Everything that can go wrong, and how a client is told.

    PointsmanError
    ├── InvalidRequest        400   the request, naming the field at fault
    │   └── ContextExceeded   400   the prompt does not fit the model
    ├── Unauthorized          401   no key, or none that is known
    ├── Forbidden             403   the key does not reach so far
    ├── NotFound              404   no such path
    │   └── ModelNotFound     404   no such model
    ├── MethodNotAllowed      405
    ├── RequestTimeout        408   the client stopped sending
    ├── BodyTooLarge          413
    ├── UnsupportedMedia      415   naming the header
    ├── RateLimited           429   the key's limit, or an engine's own
    ├── Internal              500   a fault of the gateway's
    ├── EngineFailed          502   an engine tried and failed, or is not what it should be
    │   └── ModelFailed       502   the model did, and the engine is well
    ├── Unavailable           503   no engine, or none with room
    │   └── ShuttingDown      503   the gateway ends before the answer did
    └── EngineTimeout         504   the answer was not complete in time
        └── UpstreamIdleTimeout      504   an engine said nothing for too long
    ClientDisconnected                —     nobody is there to be told

Statuses are those that OpenAI's SDKs act on: they retry 408, 409, 429 and 5xx, and wait for Retry-After.
"""

from typing import Any, ClassVar

import msgspec

from backends.base import BackendError, Cause

RETRY_AFTER = "1"


class UpstreamErrorBody(msgspec.Struct, frozen=True):
    """How an engine told of a failure, for those who speak its own API: status, body and content type."""

    status: int
    body: bytes
    kind: bytes


class PointsmanError(Exception):
    """An error that a client is told of, in OpenAI's envelope (OpenAI API reference, "Error codes").

    `own` are the engine's words for it, where the path is one that passes them on.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}
        self.passthrough_body: UpstreamErrorBody | None = None

    def body(self) -> bytes:
        """Return OpenAI's error object as JSON."""
        error: dict[str, Any] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class InvalidRequest(PointsmanError):
    """The request cannot be honoured as it is."""

    status = 400
    type = "invalid_request_error"


class ContextExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class Unauthorized(PointsmanError):
    """There is no key with the request, or none that is known here (RFC 9110, 15.5.2)."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(PointsmanError):
    """The key is known, and not good for this."""

    status = 403
    type = "invalid_request_error"
    code = "not_allowed"


class NotFound(PointsmanError):
    """There is no such path."""

    status = 404
    type = "invalid_request_error"


class ModelNotFound(NotFound):
    """There is no such model."""

    code = "model_not_found"


class MethodNotAllowed(PointsmanError):
    """The path takes other methods; the Allow header says which (RFC 9110, 15.5.6)."""

    status = 405
    type = "invalid_request_error"


class RequestTimeout(PointsmanError):
    """The client did not finish its request in time."""

    status = 408
    type = "invalid_request_error"


class BodyTooLarge(PointsmanError):
    """The body is over the limit."""

    status = 413
    type = "invalid_request_error"


class UnsupportedMedia(PointsmanError):
    """The body is not in a form that is read here."""

    status = 415
    type = "invalid_request_error"


class RateLimited(PointsmanError):
    """A limit is reached: the key's, or an upstream's own."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Internal(PointsmanError):
    """The gateway made a mistake."""

    status = 500


class EngineFailed(PointsmanError):
    """The engine failed, or does not speak its protocol."""

    status = 502
    code = "engine_error"


class ModelFailed(EngineFailed):
    """The engine is well, and what its model wrote is not what was asked for: it may be otherwise on another."""


class Unavailable(PointsmanError):
    """No engine can take the request now."""

    status = 503
    code = "overloaded"


class ShuttingDown(Unavailable):
    """The gateway ends before the answer did."""

    code = "shutting_down"


class EngineTimeout(PointsmanError):
    """The answer took longer than a request may."""

    status = 504
    code = "engine_timeout"


class UpstreamIdleTimeout(EngineTimeout):
    """The engine said nothing for too long; another may be asked, if the client has heard nothing yet."""


class ClientDisconnected(Exception):
    """The client closed its connection before it had its answer."""


# The one table from an engine's cause to what the client is told.
BY_CAUSE: dict[Cause, type[PointsmanError]] = {
    Cause.INVALID: InvalidRequest,
    Cause.CONTEXT: ContextExceeded,
    Cause.NOT_SERVED: EngineFailed,
    Cause.OVERLOADED: Unavailable,
    Cause.LIMITED: RateLimited,
    Cause.FAILED: EngineFailed,
    Cause.MODEL_OUTPUT_INVALID: ModelFailed,
    Cause.UPSTREAM_AUTH: EngineFailed,
    Cause.PROTOCOL_ERROR: EngineFailed,
}


def from_backend(error: BackendError) -> PointsmanError:
    """Return what the client is told of an engine's failure."""
    kind = BY_CAUSE[error.cause]
    headers = {"retry-after": RETRY_AFTER} if kind in (Unavailable, RateLimited) else {}
    return kind(error.message, error.param, headers)


def from_validation(error: msgspec.DecodeError) -> InvalidRequest:
    """Return what the client is told of a body that msgspec could not read, with the field's name."""
    said, _, where = str(error).partition(" - at `$")
    param = where.rstrip("`").removeprefix(".") or None
    if not isinstance(error, msgspec.ValidationError):
        return InvalidRequest(f"The body is not valid JSON: {said[0].lower()}{said[1:]}.")
    if "missing required field" in said:
        missing = said.split("`")[1]
        param = f"{param}.{missing}" if param else missing
        return InvalidRequest(f"'{param}' is required.", param)
    wanted = said.replace("`", "").removeprefix("Expected ")
    return InvalidRequest(f"Invalid '{param or 'body'}': expected {_words(wanted)}.", param)


def _words(wanted: str) -> str:
    for word, plain in (("int", "integer"), ("float", "number"), ("str", "string"), ("bool", "boolean")):
        wanted = wanted.replace(f"{word} ", f"{plain} ").replace(f"{word},", f"{plain},")
        wanted = wanted if not wanted.endswith(word) else wanted[: -len(word)] + plain
    return wanted.replace(" | ", " or ").replace("array of length", "a list of length")
