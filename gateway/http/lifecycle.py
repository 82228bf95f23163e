"""Opens the context of a request, and closes it exactly once, however the request ends.

It wraps each handler, rather than being one of Litestar's middlewares: so the context is a typed argument of the
handler instead of an entry in the scope's dictionary. Refusals, cut streams and clients that left all come through
the one `finally` here; here alone a client is told of an error, and here tokens are debited.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from random import Random
from typing import Any, TypeVar

from backends import estimate
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

# An X-Request-Id that is taken over: nothing that means something in a header, a log, a URL's query or a shell.
_taken_over = re.compile(rb"[A-Za-z0-9._~:/+=@-]{1,128}").fullmatch

CLIENT_END = "pointsman.client"  # an extension of ASGI's scope
CLIENT_CLOSED_REQUEST = 499  # nginx's; never sent, as there is nobody

log = logging.getLogger("pointsman")


def with_context(
    services: Services,
    dialect: Callable[[RequestContext, Send, Callable[[], float]], C],
    handler: Callable[[RequestContext, Receive, C], Awaitable[None]],
    *methods: str,
) -> ASGI:
    """Return an ASGI application that answers by the handler, in a dialect: these methods, or any if there are none.

    HEAD goes with GET: the same answer without its body (RFC 9110, 9.3.2).
    """
    if "GET" in methods:
        methods += ("HEAD",)
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
    own, headers, path = new_id(services.random), dict(scope["headers"]), scope["path"]
    context = RequestContext(
        id=own,
        client_id=client_id(headers),
        method=scope["method"],
        path=path,
        raw_path=scope["raw_path"],
        query=scope["query_string"],
        headers=headers,
        trace=services.tracer.begin(headers, own, path),
        timing=Timing(now, now + services.config.timeouts.total),
        scope=CancelScope(task),
        client_end=scope["extensions"].get(CLIENT_END) if "extensions" in scope else None,
        closing=services.draining,
    )
    services.sweep.open.add(context)
    return context


def new_id(random: Random) -> str:
    """Return an id for a request: 32 hexadecimal digits."""
    return f"{random.getrandbits(128):032x}"


def client_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the X-Request-Id that a client sent; nothing if there is none that may be taken over."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if given and _taken_over(given) else ""


async def _meaning(error: BaseException, context: RequestContext) -> BaseException:
    """Return why a request ended. What nobody foresaw is logged, and a fault of the gateway's."""
    meaning = await context.scope.leave(error)
    if isinstance(meaning, PointsmanError | ClientDisconnected | asyncio.CancelledError):
        return meaning
    log.error("request %s to %s failed in the gateway", context.request_id, context.path, exc_info=meaning)
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
    work = context.leads
    if work is None:  # else the attempts are of the work, which may go on
        release_all(context, services)
    services.sweep.open.discard(context)
    context.drop_references()
    now, wall = services.clock(), services.wall()
    if work is None or work.closed:
        _settle(context, services, now, wall)
        return
    if context.rate_limit is not None:
        services.limiter.leave(context.rate_limit, 0, now)
    work.when_closed(partial(_settle, context, services, now, wall))


def _settle(context: RequestContext, services: Services, now: float, wall: float) -> None:
    """Debit the tokens that were worked for a request that ended at this time, and tell of it.

    Whoever was answered with another's work pays for none.
    """
    if context.usage is not None and context.estimate_prompt is not None:
        context.usage = estimate.with_prompt(context.usage, context.estimate_prompt)
    context.estimate_prompt = None  # which holds the request's body
    if context.rate_limit is not None:
        usage = None if context.cache in ("hit", "coalesced") else context.usage
        services.limiter.leave(context.rate_limit, estimate.total(usage) if usage else 0, services.clock())
    services.records.add(context, now, wall, services.loop)
