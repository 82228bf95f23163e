"""Engine failures: the causes and messages that all dialects share (CONTRACT.md 5)."""

from backends import problem
from backends.base import BackendError, Call, Cause
from backends.schema import ChatRequest

NOT_THE_PROTOCOL = "The engine's answer does not follow its protocol."
FAILED = "The engine failed while it generated the answer."
CUT = "The engine closed the stream before the answer was complete."


def classify(status: int, found: problem.Problem, call: Call | None) -> BackendError:
    """Return the failure for an HTTP status and the problem that the body names."""
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
    """Return the message for a prompt that does not fit; it is the same for all engines. `context`: length in tokens.

    It contains the words that clients search for: "maximum context length" and "prompt is too long".
    """
    length = "" if context is None else f" is {context} tokens"
    return f"This model's maximum context length{length or ' is exceeded'}: the prompt is too long."


def prompt_param(call: Call | None) -> str:
    """Return the name of the request field that holds the prompt."""
    return "messages" if call is None or isinstance(call.view, ChatRequest) else "prompt"
