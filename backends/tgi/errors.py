"""TGI's errors, sorted by what they say (CONTRACT.md 2.3, 4.4, 5).

In a stream TGI's status is 200 and its code always 422; so it is the words that tell. Some of its errors are no
failures: a prompt that leaves less room than was asked for, a tool call that came to nothing.
"""

import re

import msgspec

from backends import problem
from backends.base import BackendError, Call, Cause, Completion, Continuation, FollowUp, UpstreamRequest
from backends.failures import FAILED, prompt_param, too_long
from backends.schema import ChatRequest
from backends.tgi import pieces
from backends.tgi.answers import context_full, counted
from backends.tgi.requests import MAX_CHOICES

FRUITLESS = "The model did not write a tool call that can be read."
MAX_ATTEMPTS = 2  # beside the first, at a tool call that must be made

_encode = msgspec.json.Encoder().encode
_ROOM = re.compile(r"tokens \+ `max_new_tokens` must be <= (\d+)\. Given: (\d+)")
_BLAMED = re.compile(r"`(\w+)` |(grammar) is not valid")
_TOO_LONG = re.compile(r"must have less than (\d+) tokens\. Given: (\d+)")
_CAUSES = {
    "overloaded": (Cause.OVERLOADED, "The engine is busy and takes no new requests now."),
    "generation": (Cause.FAILED, FAILED),
    "incomplete_generation": (Cause.FAILED, FAILED),
    "healthcheck": (Cause.FAILED, FAILED),
}
_BY_STATUS = {
    429: (Cause.LIMITED, "The engine's rate limit is reached."),
    503: _CAUSES["overloaded"],
}


def failed(
    call: Call | None, request: UpstreamRequest | None, found: problem.Problem
) -> BackendError | FollowUp | Completion:
    """Sort an error by what it says: in a stream TGI's status is 200, and its code always 422."""
    message = found.message.removeprefix("Input validation error: ")
    kind = found.kind or _kind(found.message)
    if kind in _CAUSES:
        return BackendError(*_CAUSES[kind])
    if call is None or request is None:
        return BackendError(Cause.INVALID, message or "The engine refused the request.")
    if kind == "tool_error":
        return _tool_error(call, request, message)
    if room := _ROOM.search(message) or _TOO_LONG.search(message):
        return _too_long(call, request, int(room[1]), int(room[2]))
    return _invalid(call, message, found.param)


def _invalid(call: Call, message: str, param: str | None) -> BackendError:
    """Blame the client's field where the message begins with TGI's name of it."""
    if param is None and (blamed := _BLAMED.match(message)):
        theirs = blamed[1] or blamed[2]
        param = _ours(call).get(theirs, theirs)
        message = message.replace(theirs, param)
    return BackendError(Cause.INVALID, message or "The engine refused the request.", param)


def _ours(call: Call) -> dict[str, str]:
    """Return OpenAI's names of what TGI calls differently."""
    sort_top_logprobs = "top_logprobs" if isinstance(call.view, ChatRequest) else "logprobs"
    names = {"max_new_tokens": "max_tokens", "top_n_tokens": sort_top_logprobs, "grammar": "response_format"}
    return names | {"inputs": prompt_param(call)}


def _kind(message: str) -> str:
    if message.startswith("Model is overloaded"):
        return "overloaded"
    if message.startswith(("Request failed during generation", "Incomplete generation")):
        return "generation"
    return "tool_error" if message.startswith("Tool error") else ""


def _too_long(call: Call, request: UpstreamRequest, context: int, prompt: int) -> BackendError | FollowUp | Completion:
    """Cap what is to be generated at what the context has left, as vLLM does by itself."""
    limit = call.view.limit
    if prompt >= context and request.continuation.tokens:
        return context_full(call, request)
    if prompt >= context:
        return BackendError(Cause.CONTEXT, too_long(context), prompt_param(call))
    if limit is not None and limit > context and not request.continuation.tokens:
        text = f"max_tokens must be at most {context}, the model's context length, not {limit}."
        return BackendError(Cause.INVALID, text, "max_tokens")
    body = msgspec.json.decode(request.body)
    if "parameters" in body:
        body["parameters"]["max_new_tokens"] = context - prompt
    else:
        body["max_tokens"] = context - prompt
    return FollowUp(msgspec.structs.replace(request, body=_encode(body)))


def _tool_error(call: Call, request: UpstreamRequest, message: str) -> BackendError | FollowUp | Completion:
    """Read what became of a tool call that TGI could not parse (CONTRACT.md 3.5)."""
    attempt = request.continuation.attempt + 1
    body = msgspec.json.decode(request.body)
    if "EOF while parsing" in message:  # cut by the limit; TGI counts nothing then
        return FollowUp(pieces.counting(request, body.get("max_tokens", 0), cut=True))
    if "missing field `function`" not in message:
        return BackendError(Cause.INVALID, message.removeprefix("Tool error: "), "tools")
    if body.get("tool_choice") == "auto":  # `{ }`: the model chose to call none
        return FollowUp(pieces.without_tools(call, request, Continuation(attempt=attempt)))
    if call.view.greedy or attempt > MAX_ATTEMPTS:  # greedy, the same again would come to the same
        return BackendError(Cause.MODEL_OUTPUT_INVALID, FRUITLESS)
    if "seed" in body:
        body["seed"] += MAX_CHOICES
    return FollowUp(msgspec.structs.replace(request, body=_encode(body), continuation=Continuation(attempt=attempt)))


def by_status(
    call: Call | None, request: UpstreamRequest | None, status: int, body: bytes
) -> BackendError | FollowUp | Completion:
    """Sort an answer whose status is not 200."""
    if status in (401, 403):
        return BackendError(Cause.UPSTREAM_AUTH, "The engine refused the gateway's credentials.")
    if status in (404, 405):
        return BackendError(Cause.NOT_SERVED, "The engine does not serve this model here.")
    if status == 413:
        return BackendError(Cause.INVALID, "The request is larger than the engine takes.")
    found = problem.read(body)
    if request is not None and request.continuation.ended:
        return counted(call, request, None)  # the answer is there; only its count is missing
    if status in (400, 415, 422) or (found.kind or _kind(found.message)) in _CAUSES:
        return failed(call, request, found)
    return BackendError(*_BY_STATUS.get(status, (Cause.FAILED, FAILED)))
