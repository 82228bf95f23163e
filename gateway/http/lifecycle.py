"""Step 2: opens the account of a request, and closes it exactly once, however the request ends.

It wraps each handler, rather than being one of Litestar's middlewares: so the account is a typed argument of
the handler instead of an entry in the scope's dictionary. Refusals, cut streams and clients that left all come
through the one `finally` here, and no exception passes it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.http.body import Receive
from gateway.http.context import Exchange
from gateway.http.errors import ClientLeft, MethodNotAllowed, PointsmanError
from gateway.http.respond import Send, respond_error
from gateway.proxy.dispatch import finish
from gateway.services import Services

Handler = Callable[[Exchange, Receive, Send], Awaitable[None]]
ASGI = Callable[[Any, Receive, Send], Awaitable[None]]


def account(services: Services, handler: Handler, *methods: str) -> ASGI:
    """Return an ASGI application that answers these methods by the handler."""
    allowed = ", ".join(methods)

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        exchange = _open(scope, services)
        services.sweep.open.add(exchange)
        try:
            if methods and exchange.method not in methods:
                message = f"{exchange.path} takes {allowed}, not {exchange.method}."
                raise MethodNotAllowed(message, headers={"allow": allowed})
            await handler(exchange, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            exchange.failure = exchange.ended_by(error)
            await _close(exchange.failure, exchange, send, services)
        finally:
            finish(exchange, services)
            if exchange.standing is not None:
                tokens = exchange.usage.total_tokens if exchange.usage else 0
                services.limiter.leave(exchange.standing, tokens, services.clock())
            services.sweep.open.discard(exchange)
            services.records.add(exchange, services.clock(), services.wall(), services.loop)

    return app


async def _close(error: BaseException, exchange: Exchange, send: Send, services: Services) -> None:
    """Tell the client of an error, if there is a client and it has not been told anything else."""
    if isinstance(error, PointsmanError) and not exchange.status:
        await respond_error(exchange, send, services.clock(), error)
    elif isinstance(error, ClientLeft):
        exchange.status = exchange.status or 499
    elif not isinstance(error, PointsmanError):
        raise error  # the server is going down


def _open(scope: Any, services: Services) -> Exchange:
    task = asyncio.current_task(services.loop)
    assert task is not None, "a server runs each request in a task"
    now = services.clock()
    own, headers, path = f"{services.random.getrandbits(128):032x}", dict(scope["headers"]), scope["path"]
    return Exchange(
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
