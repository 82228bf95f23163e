"""OpenAI's API: chat completions, completions, models (OpenAI API reference)."""

from collections.abc import Callable
from urllib.parse import unquote

import msgspec

from backends.base import Call
from gateway.access.auth import allow
from gateway.http.body import Receive, cancel_on_disconnect, read_json
from gateway.http.context import RequestContext
from gateway.http.errors import ModelNotFound
from gateway.http.lifecycle import Handler
from gateway.http.respond import Send, respond
from gateway.proxy import parse
from gateway.proxy.pipeline import serve
from gateway.services import Services
from gateway.upstream.models import Catalog, ModelRoute

MODELS = "/v1/models"


class Card(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A model as `GET /v1/models` shows it; `max_model_len` is vLLM's addition, and useful."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int | None = None


def generation(services: Services, read: Callable[[bytes, str, int], Call]) -> Handler:
    """Return the handler of a path that generates; `read` is the parser of its requests."""

    async def handle(context: RequestContext, receive: Receive, send: Send) -> None:
        body = await read_json(context, receive, services.config.server.max_body_bytes)
        context.since = services.clock()
        with cancel_on_disconnect(context, receive):
            call = read(body, context.id, int(services.wall()))
            context.mark_stage("parse", services.clock())
            await serve(call, context, send, services)

    return handle


def chat(services: Services) -> Handler:
    """Return the handler of `POST /v1/chat/completions`."""
    return generation(services, parse.chat)


def completions(services: Services) -> Handler:
    """Return the handler of `POST /v1/completions`."""
    return generation(services, parse.completion)


def models(services: Services) -> Handler:
    """Return the handler of `GET /v1/models`."""

    async def handle(context: RequestContext, receive: Receive, send: Send) -> None:
        catalog = services.catalog
        routes = [route for route in catalog.routes.values() if context.principal.may_ask(route.name)]
        cards = [_card(route, route.name, catalog) for route in routes]
        body = msgspec.json.encode({"object": "list", "data": cards})
        await respond(context, send, services.clock(), 200, body)

    return handle


def model(services: Services) -> Handler:
    """Return the handler of `GET /v1/models/{id}`. Ids may hold slashes, raw and as `%2F`."""

    async def handle(context: RequestContext, receive: Receive, send: Send) -> None:
        # The routed path has its repeated slashes folded.
        name = unquote(context.raw_path.decode("latin-1")).removeprefix(MODELS + "/")
        if not name:
            raise ModelNotFound("The path needs the name of a model.", "model")
        route = services.catalog.find(name)
        allow(context.principal, route.name)
        body = msgspec.json.encode(_card(route, name, services.catalog))
        await respond(context, send, services.clock(), 200, body)

    return handle


def _card(route: ModelRoute, name: str, catalog: Catalog) -> Card:
    return Card(
        id=name, object="model", created=catalog.created, owned_by="pointsman", max_model_len=route.max_model_len
    )
