"""What the spans say, by the names of OpenTelemetry's semantic conventions: HTTP for the server's, GenAI for a try's.

The GenAI names are those of `semantic-conventions-genai` (span `gen_ai.client.inference`), as of 2026. What has no
name there begins with `pointsman`. What GenAI names is said by the tries alone, so that nobody counts tokens twice.
"""

from typing import Any

from backends.base import Call
from backends.estimate import Estimate
from backends.schema import ChatRequest, Usage
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import error_type
from gateway.observe.labels import operation
from gateway.observe.trace_notes import Notes

Attributes = dict[str, Any]

CLIENT_CLOSED = 499  # was never sent: there was nobody
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "QUERY"})
MODELS = "/v1/models/"
RESPONSES = "/v1/responses/"
ASKED = {  # of a request's fields, those that are said as they are
    "top_p": "gen_ai.request.top_p",
    "temperature": "gen_ai.request.temperature",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}


def request_name(context: RequestContext) -> str:
    """Return the name of the server's span."""
    method = context.method if context.method in METHODS else "HTTP"
    return f"{method} {route(context.path)}"


def try_name(context: RequestContext) -> str:
    """Return the name of a try's span."""
    return f"{operation(context.path)} {context.model}"


def route(path: str) -> str:
    """Return the route that a path is of."""
    if path.startswith(RESPONSES) and operation(path) == "response":
        return RESPONSES + "{response}" + ("/cancel" if path.endswith("/cancel") else "")
    return MODELS + "{model}" if path.startswith(MODELS) else path


def of_request(context: RequestContext, parented: bool) -> Attributes:
    """Return the attributes of the server's span."""
    said: Attributes = {
        "http.request.method": context.method if context.method in METHODS else "_OTHER",
        "http.route": route(context.path),
        "url.path": context.path,
        "url.scheme": "http",
    }
    if parented or context.client_id:  # else it is the trace's id
        said["pointsman.request.id"] = context.request_id
    if context.status and context.status != CLIENT_CLOSED:
        said["http.response.status_code"] = context.status
    if b"user-agent" in context.headers:
        said["user_agent.original"] = context.headers[b"user-agent"].decode("latin-1")
    if context.model:
        said["pointsman.model"] = context.model
    if context.principal.id:
        said["pointsman.key.id"] = context.principal.id
    if context.cache:
        said["pointsman.cache"] = context.cache
    if context.failure is not None:
        said["error.type"] = error_type(context.failure)
    return said


def of_try(context: RequestContext, attempt: Attempt, place: int, notes: Notes) -> Attributes:
    """Return the attributes of a try's span."""
    endpoint = attempt.candidate.endpoint
    said: Attributes = {
        "gen_ai.operation.name": operation(context.path),
        "gen_ai.provider.name": endpoint.engine,
        "gen_ai.request.model": context.model,
        "server.address": endpoint.address.socket or endpoint.address.host,
        "pointsman.deployment": endpoint.name,
    }
    if endpoint.address.port:  # a Unix socket has none
        said["server.port"] = endpoint.address.port
    if context.streamed:
        said["gen_ai.request.stream"] = True
    if place:
        said["http.request.resend_count"] = place
    if notes.call is not None:
        said |= of_call(notes.call)
    if attempt.failure is not None:
        said["error.type"] = error_type(attempt.failure)
    if attempt is context.answering:
        said |= of_answer(context, attempt, notes)
    return said


def of_call(call: Call) -> Attributes:
    """Return what the client asked for."""
    view = call.view
    said: Attributes = {name: float(value) for key, name in ASKED.items() if (value := getattr(view, key)) is not None}
    limit = view.limit if isinstance(view, ChatRequest) else view.max_tokens
    if limit is not None:
        said["gen_ai.request.max_tokens"] = limit
    if view.seed is not None:
        said["gen_ai.request.seed"] = view.seed
    if view.stop:
        said["gen_ai.request.stop_sequences"] = tuple(view.stops)
    if view.n is not None and view.n != 1:
        said["gen_ai.request.choice.count"] = view.n
    if isinstance(view, ChatRequest) and view.response_format is not None:
        said["gen_ai.output.type"] = "text" if view.response_format.type == "text" else "json"
    return said


def of_answer(context: RequestContext, attempt: Attempt, notes: Notes) -> Attributes:
    """Return what came of it."""
    said: Attributes = {"gen_ai.response.model": attempt.candidate.model or context.model}
    if notes.call is not None:
        said["gen_ai.response.id"] = notes.call.id
    if context.timing.first_event_at:
        said["gen_ai.response.time_to_first_chunk"] = context.timing.first_event_at - attempt.began
    if notes.reasons:
        said["gen_ai.response.finish_reasons"] = notes.finish_reasons
    return said | of_usage(context.usage) if context.usage is not None else said


def of_usage(usage: Usage) -> Attributes:
    """Return the tokens read and written, and whether they are an estimate of the gateway's; -1 is not known."""
    said: Attributes = {"gen_ai.usage.input_tokens": usage.prompt_tokens} if usage.prompt_tokens >= 0 else {}
    if usage.completion_tokens >= 0:
        said["gen_ai.usage.output_tokens"] = usage.completion_tokens
    if isinstance(usage, Estimate):
        said["pointsman.usage.estimated"] = True
    cached = (usage.prompt_tokens_details or {}).get("cached_tokens")
    if isinstance(cached, int):
        said["gen_ai.usage.cache_read.input_tokens"] = cached
    thought = (usage.completion_tokens_details or {}).get("reasoning_tokens")
    if isinstance(thought, int):
        said["gen_ai.usage.reasoning.output_tokens"] = thought
    return said
