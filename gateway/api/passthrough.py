"""Paths that are passed on as they are, to an engine whose dialect has them (vLLM).

The model's name is mapped, on the way in and on the way out; nothing else is touched. An engine's error becomes
OpenAI's envelope, but for Anthropic's own on Anthropic's paths.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from backends.base import BackendError, Cause
from backends.openai import raw
from backends.schema import Usage
from gateway.http.body import Receive, cancel_on_disconnect, read_body, read_json
from gateway.http.client import Client
from gateway.http.context import NEVER, Attempt, RequestContext
from gateway.http.errors import InvalidRequest, PointsmanError, UpstreamErrorBody, from_backend
from gateway.http.lifecycle import Handler
from gateway.proxy import parse
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.pipeline import Prepared, serve
from gateway.proxy.surfaces import PASSTHROUGH
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
    "/detokenize",
)
FORM_PATHS = ("/v1/audio/transcriptions",)

_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw])


class Body(msgspec.Struct, frozen=True):
    """A request's body: whom it is for, its beginning, by which replicas are told apart, and how it is written anew."""

    model: str
    head: bytes
    write: Callable[[str], bytes]  # with the engine's name for the model
    service_tier: Raw | None = None


def json_path(services: Services) -> Handler:
    """Return the handler of a path whose body is JSON."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        data = await read_json(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            fields = parse.fields(data)
            if context.path == "/v1/embeddings":  # vLLM refuses these nulls, which some clients send
                fields = {field: value for field, value in fields.items() if not parse.is_null(value)}
            model = _name(fields.get("model"))
            body = Body(model, data, partial(_with_model, fields), fields.get("service_tier"))
            context.timing.mark_stage("parse", services.clock())
            context.streamed = bytes(fields.get("stream", b"")) == b"true"
            await serve(Passthrough(body, context, client, services), context, client, services)

    return handle


def _with_model(fields: dict[str, Raw], model: str) -> bytes:
    return _encode(fields | {"model": raw(model)})


def _name(value: Raw | None) -> str:
    try:
        return "" if value is None else msgspec.json.decode(value, type=str | None) or ""
    except msgspec.ValidationError as error:
        raise InvalidRequest("Invalid 'model': expected a string.", "model") from error


def form_path(services: Services) -> Handler:
    """Return the handler of a path whose body is a multipart form (RFC 7578)."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        data = await read_body(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            boundary = _BOUNDARY.search(context.headers.get(b"content-type", b""))
            if not boundary:
                raise InvalidRequest("Content-Type must be multipart/form-data with its boundary.", "content-type")
            form = Form(data, boundary[1])
            context.timing.mark_stage("parse", services.clock())
            body = Body(form.model, b"", form.render)
            await serve(Passthrough(body, context, client, services), context, client, services)

    return handle


class Form:
    """A multipart form, of which only the part called `model` is looked at."""

    def __init__(self, body: bytes, boundary: bytes) -> None:
        self._between = b"--" + boundary
        self._parts = body.split(self._between)
        heads = [part.partition(b"\r\n\r\n")[0] for part in self._parts]
        self._index = next((index for index, head in enumerate(heads) if b'name="model"' in head), None)

    @property
    def model(self) -> str:
        """The model's name; empty if there is none."""
        if self._index is None:
            return ""
        return self._parts[self._index].partition(b"\r\n\r\n")[2].strip().decode(errors="replace")

    def render(self, model: str) -> bytes:
        """Return the form with another name for the model."""
        parts = list(self._parts)
        if self._index is not None:
            head = parts[self._index].partition(b"\r\n\r\n")[0]
            parts[self._index] = head + b"\r\n\r\n" + model.encode() + b"\r\n"
        return self._between.join(parts)


class ForwardedReply:
    """An engine's answer of status 200, of which only the head has come."""

    def __init__(self, client: EngineClient, reply: Reply) -> None:
        self.client = client
        self.reply = reply

    def worked(self) -> Usage | None:
        """Return nothing: what these answers say of usage is not read yet."""
        return None

    def close(self) -> None:
        """Stop the engine's work."""
        self.reply.close()


class Passthrough:
    """The work of one request that is passed on."""

    surface = PASSTHROUGH

    def __init__(self, body: Body, context: RequestContext, client: Client, services: Services) -> None:
        self.model = body.model
        self.service_tier = body.service_tier
        self._body = body
        self._context = context
        self._client = client
        self._services = services

    def prepare(self, prepared: Prepared) -> None:
        """Note what the client calls the model: its answer does, too."""
        self.model = self.model or prepared.route.name

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the deployments whose engines have the path."""
        now, random = self._services.clock(), self._services.random
        return plan_path(self._context.path, self._body.head, prepared.route, prepared.pin, now, random)

    async def open(self, attempt: Attempt, context: RequestContext) -> ForwardedReply:
        """Ask the engine of an attempt; return the answer, if it is one. Raises PointsmanError."""
        limit = self._services.config.timeouts.first_event if context.streamed else NEVER
        client = EngineClient(attempt, context, self._services, limit)
        content_type = context.headers.get(b"content-type", b"").decode("latin-1")
        reply = await client.post(context.path, self._body.write(attempt.candidate.model), content_type)
        if reply.status == 200:
            return ForwardedReply(client, reply)
        try:
            body = await client.read(reply)
        finally:
            reply.close()
        failure = self._failure(client, reply, body)
        if _is_anthropics(reply, body, context):
            failure.passthrough_body = UpstreamErrorBody(reply.status, body, _kind(reply))
        raise failure

    async def send(self, answer: ForwardedReply) -> None:
        """Write the answer as it comes, with the client's name for the model."""
        if answer.reply.headers.get("content-type", "").startswith("text/event-stream"):
            await self._stream(answer.client, answer.reply)
            return
        answer.client.timer.limit = NEVER
        body = await answer.client.read(answer.reply)
        kind = _kind(answer.reply)
        if kind.startswith(b"application/json"):
            body = _renamed(body, self.model)
        await self._client.respond(200, body, kind)

    async def _stream(self, client: EngineClient, reply: Reply) -> None:
        context = self._context
        context.streamed = True
        stream = self._client.raw_stream(_kind(reply))
        rest = b""
        while data := await client.chunk(reply):
            context.timing.first_event_at = context.timing.first_event_at or context.timing.received_at
            client.timer.limit = self._services.config.timeouts.between_events
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                await stream.pass_on(b"".join(_line(line, self.model) + b"\n" for line in lines))
        await stream.finish(rest)

    def _failure(self, client: EngineClient, reply: Reply, body: bytes) -> PointsmanError:
        failure = client.backend.failure(None, None, reply.status, reply.headers, body)
        if not isinstance(failure, BackendError):
            raise TypeError(f"a passed request was answered with {failure!r}")
        if failure.cause is Cause.NOT_SERVED:
            return InvalidRequest(f"The model '{self.model}' does not support {self._context.path}.", "model")
        return from_backend(failure)


def _kind(reply: Reply) -> bytes:
    return reply.headers.get("content-type", "application/json").encode("latin-1", "replace")


def _is_anthropics(reply: Reply, body: bytes, context: RequestContext) -> bool:
    """Whether an error is one that a client of Anthropic's API reads: on its paths, and in its envelope."""
    if not context.path.startswith("/v1/messages") or reply.status in (401, 403):
        return False
    try:
        return bool(msgspec.json.decode(body, type=dict[str, Any]).get("type") == "error")
    except msgspec.DecodeError:
        return False


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


def _line(line: bytes, model: str) -> bytes:
    """Return a line of an event stream; where it is an event with the model's name, with the client's."""
    if line.startswith(b"data: {") and b'"model"' in line:
        return b"data: " + _renamed(line[6:], model)
    return line
