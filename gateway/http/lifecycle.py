"""Opens the context of a request, and closes it exactly once, however the request ends.

It wraps each handler, rather than being one of Litestar's middlewares: so the context is a typed argument of the
handler instead of an entry in the scope's dictionary. Refusals, cut streams and clients that left all come through
the one `finally` here; here alone a client is told of an error, and here tokens are debited.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gateway.http.body import Receive
from gateway.http.cancel import CancelScope
from gateway.http.client import Client, Send
from gateway.http.context import RequestContext, Timing
from gateway.http.errors import ClientDisconnected, Internal, MethodNotAllowed, PointsmanError
from gateway.proxy.attempts import release_all
from gateway.services import Services

C = TypeVar("C", bound=Client)
Handler = Callable[[RequestContext, Receive, Client], Awaitable[None]]
ASGI = Callable[[Any, Receive, Send], Awaitable[None]]

CLIENT_CLOSED_REQUEST = 499  # nginx's; never sent, as there is nobody

log = logging.getLogger("pointsman")


def with_context(
    services: Services,
    dialect: Callable[[RequestContext, Send, Callable[[], float]], C],
    handler: Callable[[RequestContext, Receive, C], Awaitable[None]],
    *methods: str,
) -> ASGI:
    """Return an ASGI application that answers by the handler, in a dialect: these methods, or any if there are none."""
    allowed = ", ".join(methods)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        context = _open(scope, services)
        client = dialect(context, send, services.clock)
        try:
            if methods and context.method not in methods:
                message = f"{context.path} takes {allowed}, not {context.method}."
                raise MethodNotAllowed(message, headers={"allow": allowed})
            await handler(context, receive, client)
        except (Exception, asyncio.CancelledError) as error:
            context.failure = failure = await _meaning(error, context)
            await _tell(failure, context, client)
        finally:
            _close(context, services)

    return app


def _open(scope: Any, services: Services) -> RequestContext:
    task = asyncio.current_task(services.loop)
    assert task is not None, "a server runs each request in a task"
    now = services.clock()
    own, headers, path = f"{services.random.getrandbits(128):032x}", dict(scope["headers"]), scope["path"]
    context = RequestContext(
        id=own,
        method=scope["method"],
        path=path,
        raw_path=scope["raw_path"],
        headers=headers,
        trace=services.tracer.begin(headers, own, path),
        timing=Timing(now, now + services.config.timeouts.total),
        scope=CancelScope(task),
    )
    services.sweep.open.add(context)
    return context


async def _meaning(error: BaseException, context: RequestContext) -> BaseException:
    """Return why a request ended. What nobody foresaw is logged, and a fault of the gateway's."""
    meaning = await context.scope.leave(error)
    if isinstance(meaning, PointsmanError | ClientDisconnected | asyncio.CancelledError):
        return meaning
    log.error("request %s to %s failed in the gateway", context.id, context.path, exc_info=meaning)
    return Internal("The gateway failed to handle this request; its log says why.")


async def _tell(failure: BaseException, context: RequestContext, client: Client) -> None:
    """Tell the client of an error, if there is a client and it has not been told anything else."""
    if isinstance(failure, PointsmanError):
        await client.fail(failure)
        return
    client.close()
    if not isinstance(failure, ClientDisconnected):
        raise failure  # the server is going down
    context.status = context.status or CLIENT_CLOSED_REQUEST


def _close(context: RequestContext, services: Services) -> None:
    release_all(context, services)
    if context.rate_limit is not None:
        services.limiter.leave(
            context.rate_limit, max(context.usage.total_tokens, 0) if context.usage else 0, services.clock()
        )
    services.sweep.open.discard(context)
    context.let_go()
    services.records.add(context, services.clock(), services.wall(), services.loop)
