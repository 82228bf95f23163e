"""What an engine's error on a passed path means, whole or as an event, in whichever API's words it is told.

    Anthropic's       {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    Responses'        {"type": "error", "code": "server_error", "message": "boom", "param": null}
                      {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "boom"}}}
    OpenAI's, vLLM's  {"error": {"message": "boom", "type": "InternalServerError", "code": 500}}

An event has no status of its own: it is the one that its code or its type stands for.
"""

import re
from typing import Any

import msgspec

from backends import problem
from backends.base import BackendError
from gateway.api.passthrough.anthropic import STATUSES
from gateway.api.passthrough.names import Fields
from gateway.api.passthrough.paths import MESSAGES, RESPONSES
from gateway.http.body import JSON
from gateway.http.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PointsmanError,
    Retry,
    UpstreamErrorBody,
    from_backend,
)
from gateway.proxy.engine_client import EngineClient
from gateway.upstream.client import Reply

UNROUTED = frozenset({"", "Not Found", "Method Not Allowed"})  # what a server says that does not have the path
CREDENTIALS = frozenset({401, 403, 407})  # the gateway's own, of which a client is told nothing
FAILED = 500

# What Responses' codes stand for (OpenAI API reference, "Response object", `error.code`); others are the engine's.
CODES = {"rate_limit_exceeded": 429, "invalid_prompt": 400, "server_is_overloaded": 503}

_MODEL = re.compile(r"\bmodel\b", re.IGNORECASE)


class UnknownResponse(NotFound):
    """There is no such response, for this tenant. Where it was not clear which engine has it, another may know it."""

    retry = Retry.ELSEWHERE


class UnknownPreviousResponse(UnknownResponse):
    """There is no such response to go on from (OpenAI's code for it)."""

    code = "previous_response_not_found"


def unknown_response(given: str) -> UnknownResponse:
    """Return the error of a response that no engine here has, in OpenAI's words."""
    return UnknownResponse(f"Response with id '{given}' not found.")


def unknown_previous_response(given: str) -> UnknownPreviousResponse:
    """Return the error of a response to go on from that no engine of the model has, in OpenAI's words."""
    return UnknownPreviousResponse(f"Previous response with id '{given}' not found.", "previous_response_id")


def refusal(client: EngineClient, reply: Reply, body: bytes, path: str, model: str) -> PointsmanError:
    """Return what a client is told of an answer whose status is not 200. `model` is the client's name for it."""
    if reply.status not in (404, 405):
        failure = client.failure(reply, body)
        if path.startswith(MESSAGES) and reply.status not in CREDENTIALS:
            failure.passthrough_body = UpstreamErrorBody(reply.status, body, JSON)
        return failure
    found = problem.read(body)
    if found.message in UNROUTED:
        return InvalidRequest(f"The model '{model}' does not support {path}.", "model")
    if (
        reply.status == 404
        and path.startswith(RESPONSES)
        and found.param != "model"
        and not _MODEL.search(found.message)
    ):
        return UnknownResponse(found.message, found.param)
    return client.failure(reply, body)


def stored_refusal(client: EngineClient, reply: Reply, body: bytes, given: str, own: str) -> PointsmanError:
    """Return what a client is told of a response that an engine does not give: `given` is the client's id of it."""
    found = problem.read(body)
    message = "" if found.message in UNROUTED else found.message.replace(own, given)
    if reply.status == 404:
        return UnknownResponse(message, found.param) if message else unknown_response(given)
    if reply.status == 405:
        label = client.backend.label
        message = message or f"{label}, which has this response, does not take this method."
        return MethodNotAllowed(message, headers={"allow": reply.headers.get("allow", "GET")})
    failure = client.failure(reply, body)
    failure.message = failure.message.replace(own, given)
    return failure


def event_failure(client: EngineClient, fields: Fields, path: str) -> PointsmanError:
    """Return what an event means that is an error, of a stream that answers a request to `path`."""
    event = msgspec.json.encode(fields)
    value: Any = msgspec.json.decode(event)
    error = value.get("error") or value.get("response") or value
    if isinstance(error, dict) and isinstance(error.get("error"), dict):
        error = error["error"]
    body = msgspec.json.encode({"error": error})
    failure = client.backend.failure(None, None, _status(error), {}, body)
    if not isinstance(failure, BackendError):
        raise TypeError(f"a passed event was read as {failure!r}")
    told = from_backend(failure)
    if path.startswith(MESSAGES):
        told.passthrough_body = UpstreamErrorBody(told.status, event, JSON)
    return told


def _status(error: object) -> int:
    """Return the status that an error's code or type stands for."""
    if not isinstance(error, dict):
        return FAILED
    for name in (error.get("code"), error.get("type"), error.get("status")):
        if isinstance(name, int) and 400 <= name < 600:
            return name
        known = STATUSES.get(str(name)) or CODES.get(str(name))
        if known is not None:
            return known
    return FAILED
