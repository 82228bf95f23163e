"""Step 2: opens the account of a request, and closes it exactly once, however the request ends.

It wraps each handler, rather than being one of Litestar's middlewares: so the account is a typed argument of
the handler instead of an entry in the scope's dictionary. Refusals, cut streams and clients that left all come
through the one `finally` here, and no exception passes it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.http.body import Receive
from gateway.http.context import RequestContext
from gateway.http.errors import ClientDisconnected, MethodNotAllowed, PointsmanError
from gateway.http.respond import Send, respond_error
from gateway.proxy.dispatch import finish
from gateway.services import Services

Handler = Callable[[RequestContext, Receive, Send], Awaitable[None]]
ASGI = Callable[[Any, Receive, Send], Awaitable[None]]


def with_context(services: Services, handler: Handler, *methods: str) -> ASGI:
    """Return an ASGI application that answers these methods by the handler."""
    allowed = ", ".join(methods)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        context = _open(scope, services)
        services.sweep.open.add(context)
        try:
            if methods and context.method not in methods:
                message = f"{context.path} takes {allowed}, not {context.method}."
                raise MethodNotAllowed(message, headers={"allow": allowed})
            await handler(context, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            context.failure = context.ended_by(error)
            await _close(context.failure, context, send, services)
        finally:
            finish(context, services)
            if context.rate_limit is not None:
                tokens = context.usage.total_tokens if context.usage else 0
                services.limiter.leave(context.rate_limit, tokens, services.clock())
            services.sweep.open.discard(context)
            services.records.add(context, services.clock(), services.wall(), services.loop)

    return app


async def _close(error: BaseException, context: RequestContext, send: Send, services: Services) -> None:
    """Tell the client of an error, if there is a client and it has not been told anything else."""
    if isinstance(error, PointsmanError) and not context.status:
        await respond_error(context, send, services.clock(), error)
    elif isinstance(error, ClientDisconnected):
        context.status = context.status or 499
    elif not isinstance(error, PointsmanError):
        raise error  # the server is going down


def _open(scope: Any, services: Services) -> RequestContext:
    task = asyncio.current_task(services.loop)
    assert task is not None, "a server runs each request in a task"
    now = services.clock()
    own, headers, path = f"{services.random.getrandbits(128):032x}", dict(scope["headers"]), scope["path"]
    return RequestContext(
        id=own,
        method=scope["method"],
        path=path,
        raw_path=scope["raw_path"],
        headers=headers,
        trace=services.tracer.begin(headers, own, path),
        began=now,
        ends=now + services.config.timeouts.total,
        task=task,
    )
