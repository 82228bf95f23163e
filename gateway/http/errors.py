"""Everything that can go wrong, how a client is told, and what the gateway makes of it.

    PointsmanError
    ├── InvalidRequest            400   the request, naming the field at fault
    │   └── ContextExceeded       400   the prompt does not fit the model
    ├── Unauthorized              401   no key, or an unknown one
    ├── Forbidden                 403   the key may not do this
    ├── PaymentRequired           402   the account at an upstream has no credit left
    ├── NotFound                  404   no such path, or what the request names does not exist
    │   └── ModelNotFound         404   no such model
    ├── MethodNotAllowed          405
    ├── RequestTimeout            408   the client stopped sending
    ├── Conflict                  409   the request conflicts with the state of the engine
    ├── BodyTooLarge              413
    ├── UnsupportedMedia          415   naming the header
    ├── RateLimited               429   the key's limit, or an upstream's own
    ├── Internal                  500   a fault of the gateway's
    ├── NotImplementedByEngine    501   the engine cannot do what is asked
    ├── EngineFailed              502   an engine answered that it failed
    │   ├── ProtocolViolated      502   an engine's answer does not follow its protocol
    │   ├── ModelFailed           502   the engine is well, its model's output is not what was asked for
    │   ├── CredentialsRefused    502   an engine does not take the gateway's key: a fault of the configuration
    │   ├── UpstreamBroken        502   the connection broke in the answer
    │   │   └── UpstreamMalformed 502   an engine's answer does not follow HTTP
    │   └── UpstreamReset         502   an engine closed the connection without an answer
    ├── Unavailable               503   no engine, or none with room
    │   ├── UpstreamConnectError  503   no connection to an engine
    │   └── ShuttingDown          503   the gateway ends before the answer did
    └── EngineTimeout             504   the answer was not complete in time
        └── UpstreamIdleTimeout   504   an engine was silent for too long
    ClientDisconnected            —     nobody is there to be told

Each class says all that others ask of it: its status, type and code (OpenAI's envelope), its form in TGI's dialect, its
outcome (the word of metrics and logs), whether it is worth a retry, and whom it blames. Nobody else keeps a table of
error classes.

Statuses are those that OpenAI's SDKs act on: they retry 408, 409, 429 and 5xx, and wait for Retry-After.
"""

import asyncio
from enum import Enum, auto
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from backends.base import BackendError, Cause

RETRY_AFTER = "1"

Outcome = Literal[
    "ok",
    "client_error",
    "client_left",
    "rate_limited",
    "overloaded",
    "unreachable",
    "timeout",
    "engine_error",
    "internal",
    "aborted",
]


class Retry(Enum):
    """Whether a failure before the client's first byte is worth another attempt."""

    NEVER = auto()
    ELSEWHERE = auto()  # on another deployment: the same one would take as long, or write the same
    ANYWHERE = auto()


class Blame(Enum):
    """What a failure at a deployment says of it, and of the request (`proxy.verdict`)."""

    NOBODY = auto()  # no room, no key, the end of time: it says nothing of either
    REQUEST = auto()  # the engine refused the request; where a second one refuses it alike, no third is asked
    ANSWER = auto()  # an engine answered with a failure: its own, unless another deployment fails alike
    CONNECTION = auto()  # no connection, a broken one, or silence: the engine's in any case


class TgiForm(NamedTuple):
    """An error in TGI's dialect: status, `error_type` and words (CONTRACT.md 5). `{}` in them is the gateway's message.

    What is not given is the gateway's own. `plain`: the words alone, as text, which is how TGI's router tells of what
    it finds before it has read the request; there is no such event.
    """

    status: int = 0
    error_type: str = ""
    words: str = "{}"
    plain: bool = False


class UpstreamErrorBody(msgspec.Struct, frozen=True):
    """An engine's own error, for clients that speak its API: status, body and content type."""

    status: int
    body: bytes
    kind: bytes


OVERLOADED = TgiForm(429, "overloaded", "Model is overloaded")
UNREACHABLE = TgiForm(429, "overloaded", "Model is overloaded: {}")
VALIDATION = TgiForm(422, "validation", "Input validation error: {}")
GENERATION = TgiForm(424, "generation", "Request failed during generation: {}")


class PointsmanError(Exception):
    """An error that a client is told of, in OpenAI's envelope (OpenAI API reference, "Error codes").

    `passthrough_body` is the engine's own error, where the path is one that passes it on. `retry_after` is the engine's
    header of that name, as it came; empty if there was none.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None
    outcome: ClassVar[Outcome] = "client_error"
    retry: ClassVar[Retry] = Retry.NEVER
    blame: ClassVar[Blame] = Blame.NOBODY
    tgi: TgiForm = TgiForm()

    def __init__(self, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers or {}
        self.passthrough_body: UpstreamErrorBody | None = None
        self.retry_after = ""

    def body(self) -> bytes:
        """Return OpenAI's error object as JSON."""
        error: dict[str, Any] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


class InvalidRequest(PointsmanError):
    """The request cannot be honoured as it is."""

    status = 400
    type = "invalid_request_error"
    blame = Blame.REQUEST
    tgi = VALIDATION


class ContextExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class Unauthorized(PointsmanError):
    """There is no key with the request, or none that is known here (RFC 9110, 15.5.2)."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"
    tgi = TgiForm(words="", plain=True)


class Forbidden(PointsmanError):
    """The key is known, and not good for this."""

    status = 403
    type = "invalid_request_error"
    code = "not_allowed"


class PaymentRequired(PointsmanError):
    """The account at an upstream has no credit left; another deployment has its own."""

    status = 402
    type = "invalid_request_error"
    code = "payment_required"
    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST


class NotFound(PointsmanError):
    """There is no such path; or an engine does not know what the request names, and another may."""

    status = 404
    type = "invalid_request_error"
    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST
    tgi = VALIDATION


class ModelNotFound(NotFound):
    """There is no such model; or an engine has unloaded it. That says nothing of its other models."""

    code = "model_not_found"
    blame = Blame.NOBODY


class MethodNotAllowed(PointsmanError):
    """The path takes other methods; the Allow header says which (RFC 9110, 15.5.6)."""

    status = 405
    type = "invalid_request_error"
    tgi = TgiForm(words="", plain=True)


class RequestTimeout(PointsmanError):
    """The client did not finish its request in time."""

    status = 408
    type = "invalid_request_error"


class Conflict(PointsmanError):
    """The request conflicts with the state of the engine (RFC 9110, 15.5.10)."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"
    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST


class BodyTooLarge(PointsmanError):
    """The body is over the limit, the gateway's or an engine's."""

    status = 413
    type = "invalid_request_error"
    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST
    tgi = TgiForm(words="Failed to buffer the request body: length limit exceeded", plain=True)


class UnsupportedMedia(PointsmanError):
    """The body is not in a form that is read here, or by an engine."""

    status = 415
    type = "invalid_request_error"
    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST
    tgi = TgiForm(words="Expected request with `Content-Type: application/json`", plain=True)


class RateLimited(PointsmanError):
    """A limit is reached: the key's, or an upstream's own."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    outcome = "rate_limited"
    retry = Retry.ANYWHERE
    tgi = OVERLOADED


class Internal(PointsmanError):
    """The gateway made a mistake."""

    status = 500
    outcome = "internal"


class NotImplementedByEngine(PointsmanError):
    """The engine cannot do what is asked (RFC 9110, 15.6.2); another may."""

    status = 501
    type = "invalid_request_error"
    code = "not_implemented"
    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST


class EngineFailed(PointsmanError):
    """The engine answered that it failed."""

    status = 502
    code = "engine_error"
    outcome = "engine_error"
    retry = Retry.ANYWHERE
    blame = Blame.ANSWER
    tgi = GENERATION


class ProtocolViolated(EngineFailed):
    """The engine's answer does not follow its protocol."""


class ModelFailed(EngineFailed):
    """The engine is well, and what its model wrote is not what was asked for: it may be otherwise on another."""

    retry = Retry.ELSEWHERE
    blame = Blame.REQUEST


class CredentialsRefused(EngineFailed):
    """The engine does not take the gateway's key: the configuration is at fault, and another deployment has its own."""

    retry = Retry.ELSEWHERE
    blame = Blame.NOBODY


class UpstreamBroken(EngineFailed):
    """The connection to the engine broke before the answer was complete."""

    blame = Blame.CONNECTION


class UpstreamMalformed(UpstreamBroken):
    """The engine's answer does not follow HTTP."""


class UpstreamReset(UpstreamBroken):
    """The engine closed the connection without an answer."""


class Unavailable(PointsmanError):
    """No engine can take the request now."""

    status = 503
    code = "overloaded"
    outcome: ClassVar[Outcome] = "overloaded"
    retry = Retry.ANYWHERE
    tgi = OVERLOADED


class UpstreamConnectError(Unavailable):
    """No connection to the engine: it has not seen the request, so another may be asked."""

    code = "engine_unreachable"
    outcome = "unreachable"
    blame = Blame.CONNECTION
    tgi = UNREACHABLE


class ShuttingDown(Unavailable):
    """The gateway ends before the answer did."""

    code = "shutting_down"
    outcome = "aborted"
    retry = Retry.NEVER


class EngineTimeout(PointsmanError):
    """The answer took longer than a request may."""

    status = 504
    code = "engine_timeout"
    outcome = "timeout"
    tgi = GENERATION


class UpstreamIdleTimeout(EngineTimeout):
    """The engine said nothing for too long; another may be asked, if the client has heard nothing yet."""

    retry = Retry.ELSEWHERE
    blame = Blame.CONNECTION


class ClientDisconnected(Exception):
    """The client closed its connection before it had its answer."""

    outcome: ClassVar[Outcome] = "client_left"


def outcome(failure: BaseException | None) -> Outcome:
    """Return in one word how a request, or an attempt, ended: "ok" if it failed of nothing."""
    if failure is None:
        return "ok"
    if isinstance(failure, PointsmanError | ClientDisconnected):
        return failure.outcome
    return "aborted" if isinstance(failure, asyncio.CancelledError) else "internal"


def error_type(failure: BaseException | None) -> str:
    """Return OpenTelemetry's `error.type`: the code that a client is told, else the outcome; empty if all went well."""
    if isinstance(failure, PointsmanError):
        return failure.code or failure.type
    return "" if failure is None else outcome(failure)


def retryable(failure: BaseException) -> Retry:
    """Return whether a failure is worth another attempt."""
    return failure.retry if isinstance(failure, PointsmanError) else Retry.NEVER


def blame(failure: BaseException) -> Blame:
    """Return whom a failure blames."""
    return failure.blame if isinstance(failure, PointsmanError) else Blame.NOBODY


# The one table from an engine's cause to what the client is told.
BY_CAUSE: dict[Cause, type[PointsmanError]] = {
    Cause.INVALID: InvalidRequest,
    Cause.CONTEXT: ContextExceeded,
    Cause.PAYMENT_REQUIRED: PaymentRequired,
    Cause.NOT_SERVED: NotFound,
    Cause.MODEL_NOT_FOUND: ModelNotFound,
    Cause.NOT_FOUND: NotFound,
    Cause.CONFLICT: Conflict,
    Cause.TOO_LARGE: BodyTooLarge,
    Cause.MEDIA_TYPE: UnsupportedMedia,
    Cause.NOT_IMPLEMENTED: NotImplementedByEngine,
    Cause.OVERLOADED: Unavailable,
    Cause.LIMITED: RateLimited,
    Cause.FAILED: EngineFailed,
    Cause.MODEL_OUTPUT_INVALID: ModelFailed,
    Cause.UPSTREAM_AUTH: CredentialsRefused,
    Cause.PROTOCOL_ERROR: ProtocolViolated,
}


def from_backend(error: BackendError) -> PointsmanError:
    """Return what the client is told of an engine's failure."""
    kind = BY_CAUSE[error.cause]
    if kind not in (Unavailable, RateLimited):
        return kind(error.message, error.param)
    failure = kind(error.message, error.param, {"retry-after": RETRY_AFTER})
    failure.retry_after = error.retry_after
    return failure
