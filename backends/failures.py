"""An engine's failures in the words and causes that all dialects share (CONTRACT.md 5)."""

import msgspec

from backends import problem
from backends.base import BackendError, Call, Cause
from backends.schema import ChatRequest

NOT_THE_PROTOCOL = "The engine answered with something that is not its protocol."
FAILED = "The engine failed while it generated the answer."
CUT = "The engine closed the stream before the answer was complete."


def event_failure(payload: bytes, call: Call) -> BackendError:
    """Read an event that is no chunk: an engine's error, or nonsense."""
    try:
        value = msgspec.json.decode(payload)
    except problem.UNREADABLE:
        return BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
    if not isinstance(value, dict) or "error" not in value:
        return BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
    error = value["error"]
    status = error.get("code") if isinstance(error, dict) else None
    return classify(status if isinstance(status, int) else 500, problem.read_value(value), call)


def classify(status: int, found: problem.Problem, call: Call | None) -> BackendError:
    """Turn a status and what the body says into the cause."""
    if status in (400, 413, 422):
        if problem.CONTEXT.search(found.message):
            return BackendError(Cause.CONTEXT, too_long(problem.context_length(found.message)), prompt_param(call))
        return BackendError(Cause.INVALID, found.message or "The engine refused the request.", found.param)
    if status in (401, 403):
        return BackendError(Cause.UPSTREAM_AUTH, "The engine refused the gateway's credentials.")
    if status in (404, 405):
        return BackendError(Cause.NOT_SERVED, "The engine does not serve this model here.")
    if status == 429:
        return BackendError(Cause.LIMITED, found.message or "The engine's rate limit is reached.")
    if status == 503:
        return BackendError(Cause.OVERLOADED, "The engine is busy and takes no new requests now.")
    return BackendError(Cause.FAILED, FAILED)


def too_long(context: int | None) -> str:
    """Return what a client is told of a prompt that does not fit, whichever engine found it out.

    The words are those that clients look for: "maximum context length", "prompt is too long".
    """
    length = "" if context is None else f" is {context} tokens"
    return f"This model's maximum context length{length or ' is exceeded'}: the prompt is too long."


def prompt_param(call: Call | None) -> str:
    """Return the name of the field that holds the prompt."""
    return "messages" if call is None or isinstance(call.view, ChatRequest) else "prompt"
