"""What operators ask: is it alive, is it ready, how is it doing."""

import msgspec

from gateway.http.body import JSON, Receive
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.lifecycle import Handler
from gateway.observe.metrics import CONTENT_TYPE
from gateway.services import Services


def alive(body: bytes) -> Handler:
    """Return the handler of `/healthz` and of its like: whoever can answer is alive. `body` is what is said then."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        await client.respond(200, body, JSON if body else b"")

    return handle


def ready(services: Services) -> Handler:
    """Return the handler of `/readyz`: 200 when each model has an engine, else 503 and who is missing."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        routes = services.catalog.routes
        now = services.clock()
        lacking = [name for name, route in routes.items() if not route.ready(now)]
        is_ready = bool(routes) and not lacking and not services.draining
        report = {
            "status": "ready" if is_ready else "draining" if services.draining else "not ready",
            "models": {name: name not in lacking for name in routes},
            "missing": {
                endpoint.name: endpoint.lacks(now) for endpoint in services.catalog.endpoints if not endpoint.ready(now)
            },
        }
        await client.respond(200 if is_ready else 503, msgspec.json.encode(report))

    return handle


def metrics(services: Services) -> Handler:
    """Return the handler of `/metrics`: those of all workers, whichever is asked."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        services.records.flush()
        await client.respond(200, await services.metrics.text(), CONTENT_TYPE)

    return handle
