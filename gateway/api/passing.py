"""Paths that are passed on as they are, to an engine whose dialect has them (vLLM).

The model's name is mapped, on the way in and at the top of a JSON answer; nothing else is touched. An engine's
error becomes OpenAI's envelope, but on Anthropic's paths, whose clients expect Anthropic's.
"""

import re

import msgspec
from msgspec import Raw

from backends.base import BackendError, Cause
from backends.openai import raw
from gateway import parse
from gateway.account import Handler
from gateway.catalog import Offer
from gateway.door import Receive, Send, read_body, read_json, respond, watching
from gateway.errors import InvalidRequest, from_backend
from gateway.exchange import Exchange
from gateway.pipeline import pin
from gateway.routing import plan_path
from gateway.services import Services
from gateway.upstream import Reply

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


def json_path(services: Services) -> Handler:
    """Return the handler of a path whose body is JSON."""

    async def handle(exchange: Exchange, receive: Receive, send: Send) -> None:
        body = await read_json(exchange, receive, services.config.server.max_body_bytes)
        with watching(exchange, receive):
            fields = parse.fields(body)
            name = _name(fields.get("model"))
            offer = _offer(name, exchange, services)
            fields["model"] = raw(offer.model)
            if exchange.path == "/v1/embeddings":  # vLLM refuses these nulls, which some clients send
                fields = {field: value for field, value in fields.items() if bytes(value) != b"null"}
            await _pass(_encode(fields), name, offer, exchange, send, services)

    return handle


def form_path(services: Services) -> Handler:
    """Return the handler of a path whose body is a multipart form (RFC 7578)."""

    async def handle(exchange: Exchange, receive: Receive, send: Send) -> None:
        body = await read_body(exchange, receive, services.config.server.max_body_bytes)
        with watching(exchange, receive):
            boundary = _BOUNDARY.search(exchange.headers.get(b"content-type", b""))
            if not boundary:
                raise InvalidRequest("Content-Type must be multipart/form-data with its boundary.", "content-type")
            parts = body.split(b"--" + boundary[1])
            place = next((i for i, part in enumerate(parts) if b'name="model"' in part.partition(b"\r\n\r\n")[0]), None)
            name = "" if place is None else parts[place].partition(b"\r\n\r\n")[2].strip().decode(errors="replace")
            offer = _offer(name, exchange, services)
            if place is not None:
                head = parts[place].partition(b"\r\n\r\n")[0]
                parts[place] = head + b"\r\n\r\n" + offer.model.encode() + b"\r\n"
            await _pass((b"--" + boundary[1]).join(parts), name, offer, exchange, send, services)

    return handle


def _name(value: Raw | None) -> str:
    try:
        return "" if value is None else msgspec.json.decode(value, type=str | None) or ""
    except msgspec.ValidationError as error:
        raise InvalidRequest("Invalid 'model': expected a string.", "model") from error


def _offer(name: str, exchange: Exchange, services: Services) -> Offer:
    entry = services.catalog.find(name)
    offer = plan_path(exchange.path, entry, pin(exchange), services.random)[0]
    exchange.model, exchange.target = entry.name, offer.target
    return offer


async def _pass(body: bytes, name: str, offer: Offer, exchange: Exchange, send: Send, services: Services) -> None:
    headers = {"x-request-id": exchange.id}
    kind = exchange.headers.get(b"content-type")
    if kind is not None:
        headers["content-type"] = kind.decode("latin-1")
    began = services.clock()
    reply = await services.upstream.post(offer.target, exchange.path, body, headers)
    exchange.waited = services.clock() - began
    try:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            await _pass_stream(reply, exchange, send, services)
        else:
            await _pass_whole(reply, name, exchange, send, services)
    finally:
        reply.close()


async def _pass_whole(reply: Reply, name: str, exchange: Exchange, send: Send, services: Services) -> None:
    body = await reply.read()
    if reply.status != 200 and not exchange.path.startswith("/v1/messages"):
        raise _failure(reply, body, exchange)
    kind = reply.headers.get("content-type", "application/json").encode("latin-1")
    if name and reply.status == 200 and kind.startswith(b"application/json"):
        body = _renamed(body, name)
    await respond(exchange, send, services.clock(), reply.status, body, kind)


def _failure(reply: Reply, body: bytes, exchange: Exchange) -> Exception:
    assert exchange.target is not None
    failure = exchange.target.backend.failure(None, None, reply.status, reply.headers, body)
    if not isinstance(failure, BackendError):
        raise TypeError(f"a passed request was answered with {failure!r}")
    if failure.cause is Cause.MISSING:
        return InvalidRequest(f"The model '{exchange.model}' does not support {exchange.path}.", "model")
    return from_backend(failure)


def _renamed(body: bytes, name: str) -> bytes:
    try:
        fields = _fields.decode(body)
    except msgspec.DecodeError:
        return body
    if "model" not in fields:
        return body
    fields["model"] = raw(name)
    return _encode(fields)


async def _pass_stream(reply: Reply, exchange: Exchange, send: Send, services: Services) -> None:
    exchange.stream = True
    exchange.patience = services.config.timeouts.between_events
    first = await reply.chunk()
    exchange.status = reply.status
    headers = [
        (b"content-type", reply.headers["content-type"].encode("latin-1")),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
        *exchange.answer_headers(services.clock()),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    data = first
    while data:
        exchange.heard = services.clock()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        data = await reply.chunk()
    await send({"type": "http.response.body", "body": b""})
