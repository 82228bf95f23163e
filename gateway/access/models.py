"""Which model a request means, and whether its key is good for it. A key learns of no model that it is not good for."""

from gateway.access.auth import allow
from gateway.http.context import RequestContext
from gateway.http.errors import ModelNotFound
from gateway.services import Services
from gateway.upstream.models import ModelRoute


async def find_model(name: str, context: RequestContext, services: Services) -> ModelRoute:
    """Return the model that the client calls by a name, and note it as the request's.

    Before a name is unknown, the engines are asked once more what they serve. Raises ModelNotFound, Forbidden,
    Unavailable.
    """
    principal = context.principal
    try:
        route = services.catalog.find(name, principal)
    except ModelNotFound:
        await services.catalog_refresh.wait()
        route = services.catalog.find(name, principal)
    context.model = route.name
    allow(principal, route.name, f"the model '{name}'" if name else "the model that is served here")
    return route
