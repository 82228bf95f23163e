"""The application. Which path is answered by whom, and what lives as long as the server does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.handlers.base import BaseRouteHandler
from litestar.types import ASGIApp

from gateway.access.guard import guarded
from gateway.api import openai, ops
from gateway.api import passthrough as passing
from gateway.api.tgi import by_body
from gateway.api.tgi import handlers as tgi
from gateway.http.client import Client
from gateway.http.errors import Internal, InvalidRequest, MethodNotAllowed, NotFound, PointsmanError
from gateway.http.lifecycle import ASGI, Handler, with_context
from gateway.litestar_internals import route_class
from gateway.services import Services

EXPOSED = [
    "x-request-id",
    "x-pointsman-engine",
    "x-pointsman-deployment",
    "x-pointsman-adapted",
    "x-pointsman-cache",
    "age",
    "x-pointsman-overhead-ms",
    "retry-after",
    *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
]


def create_app(services: Services) -> Litestar:
    """Return the gateway over its collaborators, which run for as long as it does."""

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with services.running():
            yield

    origins = services.config.server.cors_origins
    return Litestar(
        route_handlers=routes(services),
        lifespan=[lifespan],
        cors_config=CORSConfig(allow_origins=origins, expose_headers=EXPOSED) if origins else None,
        openapi_config=None,
        logging_config=None,
        exception_handlers={HTTPException: unrouted},
    )


def routes(services: Services) -> list[BaseRouteHandler]:
    """Return every path with its methods and its handler."""
    asgi_route = route_class()

    def mount(app: ASGI, paths: tuple[str, ...]) -> BaseRouteHandler:
        return asgi_route(list(paths), copy_scope=False)(app)

    def open_to_all(handler: Handler, paths: tuple[str, ...], *methods: str) -> BaseRouteHandler:
        return mount(with_context(services, Client, handler, *methods), paths)

    def route(handler: Handler, paths: tuple[str, ...], *methods: str) -> BaseRouteHandler:
        return open_to_all(guarded(services, handler), paths, *methods)

    retrieve = with_context(services, Client, guarded(services, openai.model(services)), "GET")

    # Litestar gives path parameters to HTTP handlers only; such a handler may return an ASGI application.
    @get("/v1/models/{model_id:path}")
    async def model() -> ASGIApp:
        return retrieve

    return [
        route(openai.chat(services), ("/v1/chat/completions",), "POST"),
        route(openai.completions(services), ("/v1/completions",), "POST"),
        route(openai.models(services), ("/v1/models",), "GET"),
        model,
        route(passing.json_path(services), passing.JSON_PATHS, "POST"),
        route(passing.form_path(services), passing.FORM_PATHS, "POST"),
        mount(tgi.generation(services), tgi.PATHS),
        mount(tgi.info(services), (tgi.INFO,)),
        mount(by_body.invocations(services), (by_body.INVOCATIONS,)),
        mount(by_body.tokenize(services), (by_body.TOKENIZE,)),
        mount(by_body.chat_tokenize(services), (by_body.CHAT_TOKENIZE,)),
        open_to_all(ops.alive(services), ("/healthz", "/health", "/ping"), "GET", "HEAD"),
        open_to_all(ops.ready(services), ("/readyz",), "GET", "HEAD"),
        open_to_all(ops.metrics(services), ("/metrics",), "GET", "HEAD"),
    ]


def unrouted(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer what Litestar could not route, in OpenAI's envelope."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {}
    told: PointsmanError = Internal("The gateway failed to handle this request; its log says why.")
    if status == MethodNotAllowed.status:
        headers = {"allow": (getattr(error, "headers", None) or {}).get("allow", "GET")}
        told = MethodNotAllowed(f"{request.url.path} does not take {request.method}.")
    elif status == NotFound.status:
        told = NotFound(f"There is no {request.method} {request.url.path} here.")
    elif status < Internal.status:
        told = InvalidRequest(getattr(error, "detail", "The request is not valid HTTP."))
    return Response(told.body(), status_code=told.status, media_type="application/json", headers=headers)
