"""Who asks, and whether that key may ask now. It stands before every path but the operators' own."""

from gateway.access.auth import authenticate
from gateway.http.body import Receive
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.lifecycle import Handler
from gateway.services import Services


def guarded(services: Services, handler: Handler) -> Handler:
    """Return the handler for those alone who may ask."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        await admit(context, services)
        await handler(context, receive, client)

    return handle


async def admit(context: RequestContext, services: Services) -> None:
    """Note who asks, and count the request. Raises Unauthorized, RateLimited, Unavailable."""
    if services.keyring is None:
        return
    principal = context.principal = authenticate(context, services.keyring, services.wall())
    if principal.limited:
        context.rate_limit = await services.limiter.enter(principal, services.clock())
    context.timing.mark_stage("auth", services.clock())
