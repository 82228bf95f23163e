"""The application. Which path is answered by whom, and what lives as long as the server does."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from litestar import HttpMethod, Litestar, Request, Response, post
from litestar import route as http_route
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.handlers.base import BaseRouteHandler
from litestar.types import ASGIApp

from gateway.access.guard import for_lists, guarded
from gateway.api import admin, openai, ops
from gateway.api import passthrough as passing
from gateway.api.tgi import by_body
from gateway.api.tgi import handlers as tgi
from gateway.http.body import Receive
from gateway.http.client import Client, Send
from gateway.http.errors import Internal, InvalidRequest, MethodNotAllowed, NotFound, PointsmanError
from gateway.http.lifecycle import ASGI, Handler, client_id, new_id, with_context
from gateway.litestar_internals import route_class
from gateway.services import Services

EXPOSED = [
    "x-request-id",
    "x-pointsman-engine",
    "x-pointsman-deployment",
    "x-pointsman-adapted",
    "x-pointsman-arm",
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
        exception_handlers={HTTPException: unrouted(services)},
    )


class Mounting:
    """Makes Litestar's route handlers of the gateway's own handlers."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._route = route_class()

    def app(self, app: ASGI, *paths: str) -> BaseRouteHandler:
        """Return the handler of these paths, by an application that looks after everything itself."""
        return self._route(list(paths), copy_scope=False)(app)

    def open_to_all(self, handler: Handler, *paths: str) -> BaseRouteHandler:
        """Return the handler of a GET that needs no key, or looks after it itself."""
        return self.app(with_context(self.services, Client, handler, "GET"), *paths)

    def post(self, handler: Handler, *paths: str, dialect: type[Client] = Client) -> BaseRouteHandler:
        """Return the handler of a POST that needs a key, and is counted; `dialect` is how clients are answered."""
        return self.app(with_context(self.services, dialect, guarded(self.services, handler), "POST"), *paths)


def routes(services: Services) -> list[BaseRouteHandler]:
    """Return every path with its methods and its handler."""
    mounting = Mounting(services)
    return [
        *openai_routes(mounting),
        *passed_routes(mounting),
        *tgi_routes(mounting),
        *ops_routes(mounting),
        *admin_routes(mounting),
    ]


def openai_routes(mounting: Mounting) -> list[BaseRouteHandler]:
    """Return the paths of OpenAI's API that the gateway translates."""
    services = mounting.services
    retrieve = with_context(services, Client, for_lists(services, openai.model(services)), "GET")

    # Litestar gives path parameters to HTTP handlers only; such a handler may return an ASGI application.
    @HTTPRouteHandler("/v1/models/{model_id:path}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def model() -> ASGIApp:
        return retrieve

    return [
        mounting.post(openai.chat(services), "/v1/chat/completions"),
        mounting.post(openai.completions(services), "/v1/completions"),
        mounting.open_to_all(for_lists(services, openai.models(services)), "/v1/models"),
        model,
    ]


def passed_routes(mounting: Mounting) -> list[BaseRouteHandler]:
    """Return the paths that are passed on to an engine that has them."""
    services = mounting.services
    stored = with_context(services, passing.ResponsesClient, guarded(services, passing.response_path(services)))

    @http_route(passing.STORED_PATH, http_method=["GET", "HEAD", "DELETE"], status_code=200)
    async def response() -> ASGIApp:
        return stored

    @post(passing.STORED_PATH + "/cancel", status_code=200)
    async def cancel() -> ASGIApp:
        return stored

    return [
        *[mounting.post(passing.json_path(services), *paths, dialect=of) for of, paths in passing.DIALECTS],
        mounting.post(passing.form_path(services), *passing.FORM_PATHS),
        response,
        cancel,
    ]


def tgi_routes(mounting: Mounting) -> list[BaseRouteHandler]:
    """Return the paths of TGI's own API."""
    services = mounting.services
    generation = tgi.generation(services)
    alive = with_context(services, Client, ops.alive(b""), "GET")
    return [
        mounting.app(generation, *tgi.PATHS),
        mounting.app(root(alive, generation), "/"),
        mounting.app(tgi.info(services), tgi.INFO),
        mounting.app(by_body.invocations(services), by_body.INVOCATIONS),
        mounting.app(by_body.tokenize(services), by_body.TOKENIZE),
        mounting.app(by_body.chat_tokenize(services), by_body.CHAT_TOKENIZE),
    ]


def ops_routes(mounting: Mounting) -> list[BaseRouteHandler]:
    """Return the operators' paths."""
    services = mounting.services
    return [
        mounting.open_to_all(ops.alive(b'{"status":"ok"}'), "/healthz", "/health", "/ping"),
        mounting.open_to_all(ops.ready(services), "/readyz"),
        mounting.open_to_all(ops.metrics(services), "/metrics"),
    ]


def admin_routes(mounting: Mounting) -> list[BaseRouteHandler]:
    """Return the paths for administrators."""

    def admins(handler: Handler) -> ASGI:
        return with_context(mounting.services, Client, admin.guarded_admin(mounting.services, handler), "GET")

    services = mounting.services
    report, export = admins(admin.experiment(services)), admins(admin.export(services))

    @HTTPRouteHandler(admin.EXPERIMENTS + "/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def one() -> ASGIApp:
        return report

    @HTTPRouteHandler(admin.EXPERIMENTS + "/{name:str}" + admin.EXPORT, http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def exported() -> ASGIApp:
        return export

    return [mounting.app(admins(admin.experiments(services)), admin.EXPERIMENTS), one, exported]


def root(alive: ASGI, generation: ASGI) -> ASGI:
    """Return the application of `/`, as TGI has it: whether it is alive, and with POST what generates."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] in ("GET", "HEAD"):  # which counts and is logged as TGI's other path of that meaning
            await alive(scope | {"path": "/ping"}, receive, send)
        else:
            await generation(scope, receive, send)

    return app


def unrouted(services: Services) -> Callable[[Request[Any, Any, Any], Exception], Response[bytes]]:
    """Return what answers what Litestar could not route, in the envelope of the API that the path is of."""

    def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        told = _meaning(request, error)
        request_id = client_id(dict(request.scope["headers"])) or new_id(services.random)
        headers = {"x-request-id": request_id} | told.headers | ({"connection": "close"} if services.draining else {})
        body = passing.unrouted_body(request.url.path, told, request_id)
        return Response(body, status_code=told.status, media_type="application/json", headers=headers)

    return answer


def _meaning(request: Request[Any, Any, Any], error: Exception) -> PointsmanError:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == MethodNotAllowed.status:
        allowed = (getattr(error, "headers", None) or {}).get("allow", "GET, HEAD")
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}.", headers={"allow": allowed})
    if status == NotFound.status:
        return NotFound(f"There is no {request.method} {request.url.path} here.")
    if status < Internal.status:
        return InvalidRequest(getattr(error, "detail", "The request is not valid HTTP."))
    return Internal("The gateway failed to handle this request; its log says why.")
