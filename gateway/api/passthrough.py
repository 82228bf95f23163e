"""Paths that are passed on as they are, to an engine whose dialect has them (vLLM).

The model's name is mapped, on the way in and on the way out; nothing else is touched. An engine's error becomes
OpenAI's envelope, but for Anthropic's own on Anthropic's paths.
"""

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from backends.base import BackendError, Cause
from backends.openai import raw
from gateway.access.auth import allow
from gateway.http.body import Receive, cancel_on_disconnect, read_body, read_json
from gateway.http.context import NEVER, Attempt, RequestContext
from gateway.http.errors import InvalidRequest, PointsmanError, UpstreamErrorBody, from_backend
from gateway.http.lifecycle import Handler
from gateway.http.respond import Send, respond
from gateway.http.sse import RawEventStream
from gateway.proxy import parse
from gateway.proxy.dispatch import first_good
from gateway.proxy.pipeline import pin, tier
from gateway.routing import plan_path
from gateway.services import Services
from gateway.upstream.connection import Reply
from gateway.upstream.models import Candidate

JSON_PATHS = (
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/v1/score",
    "/tokenize",
    "/detokenize",
)
FORM_PATHS = ("/v1/audio/transcriptions",)

_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw])


Write = Callable[[Candidate], bytes]


def json_path(services: Services) -> Handler:
    """Return the handler of a path whose body is JSON."""

    async def handle(context: RequestContext, receive: Receive, send: Send) -> None:
        body = await read_json(context, receive, services.config.server.max_body_bytes)
        context.since = services.clock()
        with cancel_on_disconnect(context, receive):
            fields = parse.fields(body)
            if context.path == "/v1/embeddings":  # vLLM refuses these nulls, which some clients send
                fields = {field: value for field, value in fields.items() if not parse.is_null(value)}
            name = _name(fields.get("model"))
            context.mark_stage("parse", services.clock())
            context.tier = tier(fields.get("service_tier"), context)
            context.stream = bytes(fields.get("stream", b"")) == b"true"
            await _pass(name, body, partial(_with_model, fields), context, send, services)

    return handle


def _with_model(fields: dict[str, Raw], candidate: Candidate) -> bytes:
    return _encode(fields | {"model": raw(candidate.model)})


def form_path(services: Services) -> Handler:
    """Return the handler of a path whose body is a multipart form (RFC 7578)."""

    async def handle(context: RequestContext, receive: Receive, send: Send) -> None:
        body = await read_body(context, receive, services.config.server.max_body_bytes)
        context.since = services.clock()
        with cancel_on_disconnect(context, receive):
            boundary = _BOUNDARY.search(context.headers.get(b"content-type", b""))
            if not boundary:
                raise InvalidRequest("Content-Type must be multipart/form-data with its boundary.", "content-type")
            form = Form(body, boundary[1])
            context.tier = context.principal.tier
            context.mark_stage("parse", services.clock())
            await _pass(form.model, b"", lambda candidate: form.written(candidate.model), context, send, services)

    return handle


class Form:
    """A multipart form, of which only the part called `model` is looked at."""

    def __init__(self, body: bytes, boundary: bytes) -> None:
        self._between = b"--" + boundary
        self._parts = body.split(self._between)
        heads = [part.partition(b"\r\n\r\n")[0] for part in self._parts]
        self._place = next((place for place, head in enumerate(heads) if b'name="model"' in head), None)

    @property
    def model(self) -> str:
        """The model's name; empty if there is none."""
        if self._place is None:
            return ""
        return self._parts[self._place].partition(b"\r\n\r\n")[2].strip().decode(errors="replace")

    def written(self, model: str) -> bytes:
        """Return the form with another name for the model."""
        parts = list(self._parts)
        if self._place is not None:
            head = parts[self._place].partition(b"\r\n\r\n")[0]
            parts[self._place] = head + b"\r\n\r\n" + model.encode() + b"\r\n"
        return self._between.join(parts)


def _name(value: Raw | None) -> str:
    try:
        return "" if value is None else msgspec.json.decode(value, type=str | None) or ""
    except msgspec.ValidationError as error:
        raise InvalidRequest("Invalid 'model': expected a string.", "model") from error


async def _pass(name: str, head: bytes, write: Write, context: RequestContext, send: Send, services: Services) -> None:
    route = services.catalog.find(name)
    context.model = name or route.name
    allow(context.principal, route.name)
    candidates = plan_path(context.path, head, route, pin(context), services.clock(), services.random)
    context.mark_stage("route", services.clock())
    try:
        reply = await first_good(
            candidates,
            lambda attempt: _ask(attempt, write(attempt.candidate), context, services),
            context,
            services,
            services.config.timeouts.first_event if context.stream else NEVER,
        )
    except PointsmanError as error:
        if error.passthrough_body is None or context.status:
            raise
        context.failure = error
        return await respond(
            context,
            send,
            services.clock(),
            error.passthrough_body.status,
            error.passthrough_body.body,
            error.passthrough_body.kind,
        )
    try:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            await _pass_stream(reply, context, send, services)
        else:
            await _pass_whole(reply, context, send, services)
    finally:
        reply.close()


async def _ask(attempt: Attempt, body: bytes, context: RequestContext, services: Services) -> Reply:
    """Return the answer, if it is one. Raises PointsmanError."""
    place = context.attempts.index(attempt)
    headers = {"x-request-id": context.id, **context.trace.headers(place, attempt.candidate.endpoint.engine)}
    kind = context.headers.get(b"content-type")
    if kind is not None:
        headers["content-type"] = kind.decode("latin-1")
    context.heard = services.clock()
    context.asked = context.asked or context.heard
    reply = await services.upstream.post(attempt.candidate.endpoint, context.path, body, headers)
    context.heard = services.clock()
    if reply.status == 200:
        return reply
    try:
        said = await reply.read()
    finally:
        reply.close()
    failure = _failure(reply, said, attempt.candidate, context)
    if _is_anthropics(reply, said, context):
        failure.passthrough_body = UpstreamErrorBody(reply.status, said, _kind(reply))
    raise failure


def _kind(reply: Reply) -> bytes:
    return reply.headers.get("content-type", "application/json").encode("latin-1", "replace")


async def _pass_whole(reply: Reply, context: RequestContext, send: Send, services: Services) -> None:
    context.patience = NEVER
    body = await reply.read()
    context.heard = services.clock()
    kind = _kind(reply)
    if kind.startswith(b"application/json"):
        body = _renamed(body, context.model)
    await respond(context, send, services.clock(), 200, body, kind)


def _is_anthropics(reply: Reply, body: bytes, context: RequestContext) -> bool:
    """Whether an error is one that a client of Anthropic's API reads: on its paths, and in its envelope."""
    if not context.path.startswith("/v1/messages") or reply.status in (401, 403):
        return False
    try:
        return bool(msgspec.json.decode(body, type=dict[str, Any]).get("type") == "error")
    except msgspec.DecodeError:
        return False


def _failure(reply: Reply, body: bytes, candidate: Candidate, context: RequestContext) -> PointsmanError:
    failure = candidate.endpoint.backend.failure(None, None, reply.status, reply.headers, body)
    if not isinstance(failure, BackendError):
        raise TypeError(f"a passed request was answered with {failure!r}")
    if failure.cause is Cause.NOT_SERVED:
        return InvalidRequest(f"The model '{context.model}' does not support {context.path}.", "model")
    return from_backend(failure)


def _renamed(body: bytes, name: str) -> bytes:
    """Return a JSON object with the client's name for the model, at the top and one level below.

    The lower one is where the events of `/v1/responses` (`response`) and `/v1/messages` (`message`) have it.
    """
    try:
        fields = _fields.decode(body)
        for below in ("response", "message"):
            if below in fields and bytes(fields[below]).startswith(b"{"):
                fields[below] = Raw(_renamed(bytes(fields[below]), name))
    except msgspec.DecodeError:
        return body
    if "model" in fields:
        fields["model"] = raw(name)
    return _encode(fields)


async def _pass_stream(reply: Reply, context: RequestContext, send: Send, services: Services) -> None:
    context.stream = True
    client = RawEventStream(context, send, services.clock, _kind(reply))
    lines = b""
    try:
        while data := await reply.chunk():
            context.heard = services.clock()
            context.first = context.first or context.heard
            context.patience = services.config.timeouts.between_events
            *whole, lines = (lines + data).split(b"\n")
            if whole:
                await client.pass_on(b"".join(_line(line, context.model) + b"\n" for line in whole))
        await client.finish(lines)
    except (Exception, asyncio.CancelledError) as error:
        failure = context.failure = context.ended_by(error)
        if not client.begun or not isinstance(failure, PointsmanError):
            client.close()
            raise failure from error
        await client.fail(failure)


def _line(line: bytes, model: str) -> bytes:
    """Return a line of an event stream; where it is an event with the model's name, with the client's."""
    if line.startswith(b"data: {") and b'"model"' in line:
        return b"data: " + _renamed(line[6:], model)
    return line
