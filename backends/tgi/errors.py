"""TGI's errors, classified by their messages (CONTRACT.md 2.3, 4.4, 5).

In a stream TGI's status is 200 and its code always 422, so only the message tells. Some of its errors are not
failures: less context left than `max_tokens` asks for, or no tool call where none was required.
"""

import re

import msgspec

from backends import problem
from backends.base import BackendError, Call, Cause, Completion, Continuation, FollowUp, Headers, UpstreamRequest
from backends.failures import BUSY, FAILED, REFUSED, classify, prompt_param, refusal, too_long
from backends.schema import ChatRequest
from backends.tgi import pieces
from backends.tgi.answers import context_full, counted
from backends.tgi.requests import MAX_CHOICES

FRUITLESS = "The model did not write a valid tool call."
MAX_ATTEMPTS = 2  # retries of a tool call that is required

_encode = msgspec.json.Encoder().encode
_ROOM = re.compile(r"tokens \+ `max_new_tokens` must be <= (\d+)\. Given: (\d+)")
_BLAMED = re.compile(r"`(\w+)` |(grammar) is not valid")
_TOO_LONG = re.compile(r"must have less than (\d+) tokens\. Given: (\d+)")
_CAUSES = {
    "overloaded": (Cause.OVERLOADED, BUSY),
    "generation": (Cause.FAILED, FAILED),
    "incomplete_generation": (Cause.FAILED, FAILED),
    "healthcheck": (Cause.FAILED, FAILED),
}


def failed(
    call: Call | None, request: UpstreamRequest | None, found: problem.Problem
) -> BackendError | FollowUp | Completion:
    """Return what an error means, by its kind and message: a failure, a request to send next, or an answer."""
    message = found.message.removeprefix("Input validation error: ")
    kind = found.kind or _kind(found.message)
    if kind in _CAUSES:
        return BackendError(*_CAUSES[kind])
    if found.status in (429, 503, 529):  # in a proxy's words
        return classify(found.status, found, call)
    if call is None or request is None:
        return BackendError(Cause.INVALID, message or REFUSED)
    if kind == "tool_error":
        return _tool_error(call, request, message)
    if room := _ROOM.search(message) or _TOO_LONG.search(message):
        return _too_long(call, request, int(room[1]), int(room[2]))
    return _invalid(call, message, found.param)


def _invalid(call: Call, message: str, param: str | None) -> BackendError:
    """Return the error, with OpenAI's name of the field if the message begins with TGI's name of it."""
    if param is None and (blamed := _BLAMED.match(message)):
        theirs = blamed[1] or blamed[2]
        param = _ours(call).get(theirs, theirs)
        message = message.replace(theirs, param)
    return BackendError(Cause.INVALID, message or REFUSED, param)


def _ours(call: Call) -> dict[str, str]:
    """Return OpenAI's names of the fields that TGI calls differently."""
    top = "top_logprobs" if isinstance(call.view, ChatRequest) else "logprobs"
    names = {"max_new_tokens": "max_tokens", "top_n_tokens": top, "grammar": "response_format"}
    return names | {"inputs": prompt_param(call)}


def _kind(message: str) -> str:
    if message.startswith("Model is overloaded"):
        return "overloaded"
    if message.startswith(("Request failed during generation", "Incomplete generation")):
        return "generation"
    return "tool_error" if message.startswith("Tool error") else ""


def _too_long(call: Call, request: UpstreamRequest, context: int, prompt: int) -> BackendError | FollowUp | Completion:
    """Handle a request beyond the context: limit its tokens to what the context has left, as vLLM does by itself."""
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
    """Handle a tool call that TGI could not parse (CONTRACT.md 3.5)."""
    attempt = request.continuation.attempt + 1
    body = msgspec.json.decode(request.body)
    if "EOF while parsing" in message:  # cut off by the limit; TGI reports no counts then
        return FollowUp(pieces.counting(request, body.get("max_tokens", 0), cut=True))
    if "missing field `function`" not in message:
        return BackendError(Cause.INVALID, message.removeprefix("Tool error: "), "tools")
    if body.get("tool_choice") == "auto":  # `{ }`: the model chose to call none
        return FollowUp(pieces.without_tools(call, request, Continuation(attempt=attempt)))
    if call.view.greedy or attempt > MAX_ATTEMPTS:  # greedy: a retry would give the same
        return BackendError(Cause.MODEL_OUTPUT_INVALID, FRUITLESS)
    if "seed" in body:
        body["seed"] += MAX_CHOICES
    return FollowUp(msgspec.structs.replace(request, body=_encode(body), continuation=Continuation(attempt=attempt)))


def by_status(
    call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
) -> BackendError | FollowUp | Completion:
    """Return what a response with a status other than 200 means: some of TGI's own are told apart by their words."""
    if request is not None and request.continuation.ended:
        return counted(call, request, None)  # the answer is there; only its count is missing
    found = problem.read(body)
    kind = found.kind or _kind(found.message)
    if status in (400, 422) or (kind in _CAUSES and status >= 424):
        return _with_retry_after(failed(call, request, found), headers)
    return refusal(status, headers, body, call)


def _with_retry_after(
    failure: BackendError | FollowUp | Completion, headers: Headers
) -> BackendError | FollowUp | Completion:
    if isinstance(failure, BackendError):
        failure.retry_after = headers.get("retry-after", "")
    return failure
