"""Who asks, and whether that key may ask now. It stands before every path but the operators' own.

Lists of what there is (`/v1/models`, `/info`) are for every good key, whatever its limits: they are not counted, and
never refused for a limit. Every other request is counted as it comes in, also one that is then refused (400, 404).
"""

from collections.abc import Awaitable, Callable

from gateway.access.auth import authenticate
from gateway.access.limits.lease import RateLimitLease
from gateway.access.principal import Principal
from gateway.http.body import Receive
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.lifecycle import Handler
from gateway.services import Services

Enter = Callable[[Principal, float], Awaitable[RateLimitLease]]


def guarded(services: Services, handler: Handler) -> Handler:
    """Return the handler for those alone who may ask."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        await admit(context, services)
        await handler(context, receive, client)

    return handle


def for_lists(services: Services, handler: Handler) -> Handler:
    """Return the handler of a list: for those who have a good key, and not counted."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        await identify(context, services)
        await handler(context, receive, client)

    return handle


async def admit(context: RequestContext, services: Services) -> None:
    """Note who asks, and count the request. Raises Unauthorized, RateLimited, Unavailable."""
    await _enter(context, services, services.limiter.enter)


async def identify(context: RequestContext, services: Services) -> None:
    """Note who asks, and how its limits stand, and count nothing. Raises Unauthorized."""
    await _enter(context, services, services.limiter.look)


async def _enter(context: RequestContext, services: Services, enter: Enter) -> None:
    if services.keyring is None:
        return
    principal = context.principal = authenticate(context, services.keyring, services.wall())
    if principal.counted:
        context.rate_limit = await enter(principal, services.clock())
    context.timing.mark_stage("auth", services.clock())
