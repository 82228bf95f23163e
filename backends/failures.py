"""Engine failures: the causes and messages that all dialects share (CONTRACT.md 5).

Whose fault it is, the status says first. Overload is known by its words, too, as engines and the proxies in front of
them report it by many statuses: vLLM by 503, TGI by 429, others by 529, by 500, or inside a stream of status 200.
"""

import re

from backends import problem
from backends.base import BackendError, Call, Cause, Headers
from backends.schema import ChatRequest

NOT_THE_PROTOCOL = "The engine's answer does not follow its protocol."
FAILED = "The engine failed while it generated the answer."
CUT = "The engine closed the stream before the answer was complete."
BUSY = "The engine is busy and takes no new requests now."
REFUSED = "The engine refused the request."

# Of the other statuses, 4xx are the request's fault and 5xx the engine's.
_BY_STATUS = {
    401: Cause.UPSTREAM_AUTH,
    402: Cause.PAYMENT_REQUIRED,
    403: Cause.UPSTREAM_AUTH,
    407: Cause.UPSTREAM_AUTH,
    408: Cause.FAILED,  # it waited for the rest of the request, which the gateway sends at once
    409: Cause.CONFLICT,
    413: Cause.TOO_LARGE,
    415: Cause.MEDIA_TYPE,
    424: Cause.FAILED,  # TGI's, also behind a proxy that speaks OpenAI's API
    429: Cause.LIMITED,
    501: Cause.NOT_IMPLEMENTED,
    503: Cause.OVERLOADED,
    529: Cause.OVERLOADED,  # Anthropic's
}
# What a client is told where the engine says nothing, or nothing that is meant for clients.
_WORDS = {
    Cause.INVALID: REFUSED,
    Cause.PAYMENT_REQUIRED: "The engine's account has no credit left.",
    Cause.NOT_SERVED: "The engine does not serve this model here.",
    Cause.MODEL_NOT_FOUND: "The engine does not serve this model.",
    Cause.NOT_FOUND: "The engine does not know what the request names.",
    Cause.CONFLICT: "The request conflicts with the state of the engine.",
    Cause.TOO_LARGE: "The request is larger than the engine takes.",
    Cause.MEDIA_TYPE: "The engine does not take a request in this form.",
    Cause.NOT_IMPLEMENTED: "The engine cannot do what the request asks for.",
    Cause.OVERLOADED: BUSY,
    Cause.LIMITED: "The engine's rate limit is reached.",
    Cause.FAILED: FAILED,
    Cause.UPSTREAM_AUTH: "The engine refused the gateway's credentials.",
    Cause.PROTOCOL_ERROR: NOT_THE_PROTOCOL,
}
_OWN_WORDS = {Cause.NOT_SERVED, Cause.OVERLOADED, Cause.FAILED, Cause.UPSTREAM_AUTH, Cause.PROTOCOL_ERROR}
_NO_MODEL = re.compile(r"\bmodel\b.*\b(?:does not exist|not found|not available|not loaded)", re.IGNORECASE | re.DOTALL)
_NO_PATH = {"", "Not Found", "404 page not found"}  # FastAPI's, and Go's


def refusal(status: int, headers: Headers, body: bytes, call: Call | None) -> BackendError:
    """Return the failure for a response whose status is not 200. A 5xx that says when to come back is no room."""
    retry_after = headers.get("retry-after", "")
    if retry_after and status >= 500 and status != 501:
        status = 503
    if status < 400:
        said = f"The engine answered with status {status}, which is no answer; redirects are not followed."
        return BackendError(Cause.PROTOCOL_ERROR, said)
    error = classify(status, problem.read(body), call)
    error.retry_after = retry_after
    return error


def classify(status: int, found: problem.Problem, call: Call | None) -> BackendError:
    """Return the failure for an HTTP status and the problem that the body names."""
    cause = _cause(status, found)
    if cause is Cause.CONTEXT:
        return BackendError(cause, too_long(problem.context_length(found.message)), prompt_param(call))
    if cause is Cause.MODEL_NOT_FOUND:
        return BackendError(cause, _no_model(found.message, call), "model")
    if cause in _OWN_WORDS:
        return BackendError(cause, _WORDS[cause])
    return BackendError(cause, found.message or _WORDS[cause], _as_client_names(found.param, call))


def _as_client_names(param: str | None, call: Call | None) -> str | None:
    """Return the name of a field as the client has it: vLLM calls a chat's `top_logprobs` `logprobs`."""
    view = call.view if call else None
    return "top_logprobs" if param == "logprobs" and isinstance(view, ChatRequest) and view.top_logprobs else param


def _cause(status: int, found: problem.Problem) -> Cause:
    if status in (400, 413, 422) and problem.CONTEXT.search(found.message):
        return Cause.CONTEXT
    if status == 404:
        return _missing(found)
    if found.status in (503, 529) and (status >= 500 or (status == 429 and _is_overload(found))):
        return Cause.OVERLOADED
    if found.status == 429 and status == 500:
        return Cause.LIMITED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return Cause.INVALID if status < 500 else Cause.FAILED


def _is_overload(found: problem.Problem) -> bool:
    """Whether it is the engine that is overloaded, as a TGI says by 429, and not the account that has a limit."""
    return "overload" in f"{found.kind} {found.message}".lower()


def _missing(found: problem.Problem) -> Cause:
    """Return what a 404 says is missing: the path, the model, or something else."""
    if found.message in _NO_PATH:
        return Cause.NOT_SERVED
    return Cause.MODEL_NOT_FOUND if found.param == "model" or _NO_MODEL.search(found.message) else Cause.NOT_FOUND


def _no_model(message: str, call: Call | None) -> str:
    """Return the message with the client's name of the model, and without the others that vLLM lists after it."""
    return (
        f"The model `{call.model}` does not exist."
        if call and call.model
        else f"{message.partition('. ')[0].rstrip('.')}."
    )


def too_long(context: int | None) -> str:
    """Return the message for a prompt that does not fit; it is the same for all engines. `context`: length in tokens.

    It contains the words that clients search for: "maximum context length" and "prompt is too long".
    """
    length = "" if context is None else f" is {context} tokens"
    return f"This model's maximum context length{length or ' is exceeded'}: the prompt is too long."


def prompt_param(call: Call | None) -> str:
    """Return the name of the request field that holds the prompt."""
    return "messages" if call is None or isinstance(call.view, ChatRequest) else "prompt"
