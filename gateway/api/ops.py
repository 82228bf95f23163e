"""What operators ask: is it alive, is it ready, how is it doing."""

from collections.abc import Sequence
from itertools import groupby
from urllib.parse import parse_qsl

import msgspec

from gateway.access.models import find_model
from gateway.http.body import JSON, Receive
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.errors import ModelNotFound
from gateway.http.lifecycle import Handler
from gateway.observe.metrics import CONTENT_TYPE
from gateway.services import Services
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import ModelRoute


def alive(body: bytes) -> Handler:
    """Return the handler of `/healthz` and of its like: whoever can answer is alive. `body` is what is said then."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        await client.respond(200, body, JSON if body else b"")

    return handle


def ready(services: Services) -> Handler:
    """Return the handler of `/readyz`: 200 when at least one model can be served, else 503; and who is missing.

    `?model=NAME` asks for one model, by any of its names. The answer holds no addresses, as it needs no key.
    """

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        catalog, now = services.catalog, services.clock()
        routes, endpoints = list(catalog.routes.values()), catalog.endpoints
        if name := dict(parse_qsl(context.query.decode("latin-1"))).get("model"):
            route = await _model(name, context, services)
            routes, endpoints = [route], [candidate.endpoint for candidate in route.candidates]
        models = {route.name: route.ready(now) for route in routes}
        is_ready = any(models.values()) and not services.draining
        report = {
            "status": "ready" if is_ready else "draining" if services.draining else "not ready",
            "models": models,
            "missing": missing(endpoints, routes, now),
        }
        await client.respond(200 if is_ready else 503, msgspec.json.encode(report))

    return handle


async def _model(name: str, context: RequestContext, services: Services) -> ModelRoute:
    """Return a model that an operator asks for. Raises ModelNotFound, Unavailable."""
    try:
        return await find_model(name, context, services)
    except ModelNotFound as error:  # whose words list the models
        raise ModelNotFound(f"The model '{name}' does not exist.", "model") from error


def missing(endpoints: Sequence[Endpoint], routes: Sequence[ModelRoute], now: float) -> dict[str, str]:
    """Return the deployments that serve none of their models now, by name, and why; in place of addresses, how many."""
    told = {}
    for name, alike in groupby(sorted(endpoints, key=_public_name), _public_name):
        replicas = list(alike)
        lacks = [lack for endpoint in replicas if (lack := _lack(endpoint, routes, now))]
        if lacks:
            told[name] = lacks[0] if len(replicas) == 1 else f"{len(lacks)} of {len(replicas)}: {lacks[0]}"
    return told


def _lack(endpoint: Endpoint, routes: Sequence[ModelRoute], now: float) -> str:
    """Return why a deployment serves none of its models now; nothing if it serves one."""
    served = [candidate for route in routes for candidate in route.candidates if candidate.endpoint is endpoint]
    if not endpoint.up:
        return endpoint.public_reason
    closed = any(candidate.breaker.allows(now) for candidate in served)
    return "" if closed or not served else served[0].breaker.describe(now)


def _public_name(endpoint: Endpoint) -> str:
    return endpoint.public_name


def metrics(services: Services) -> Handler:
    """Return the handler of `/metrics`: those of all workers, whichever is asked."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        services.records.flush()
        await client.respond(200, await services.metrics.text(), CONTENT_TYPE)

    return handle
