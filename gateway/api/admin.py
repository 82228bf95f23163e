"""`/admin`: what operators ask of a running gateway, as JSON, with the key of an administrator.

Without keys it is open on loopback, but only to requests whose Host, and Origin if they have one, are loopback's: a
page elsewhere, or a name that resolves to 127.0.0.1, gets 403.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from gateway.access.auth import authenticate, require_admin
from gateway.experiments import reading
from gateway.experiments.record import rows
from gateway.experiments.report import status_of
from gateway.experiments.store.base import StoreUnavailable
from gateway.http.body import Receive
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.errors import RETRY_AFTER, Forbidden, NotFound, Unavailable
from gateway.http.lifecycle import Handler
from gateway.services import Services

EXPERIMENTS = "/admin/experiments"
EXPORT = "/export"
LINES = b"application/x-ndjson"

T = TypeVar("T")


def guarded_admin(services: Services, handler: Handler) -> Handler:
    """Return a handler for administrators alone. Raises Unauthorized, Forbidden."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        if services.keyring is not None:
            context.principal = authenticate(context, services.keyring, services.wall())
            require_admin(context.principal)
        elif not _is_local(context, services.config.server.host):
            raise Forbidden("Without keys /admin is for this machine alone, asked by a name or address of loopback's.")
        await handler(context, receive, client)

    return handle


def _is_local(context: RequestContext, listens_on: str) -> bool:
    """Whether the gateway listens on loopback, and a request came to a name of it, from a page of it or from none."""
    host = context.headers.get(b"host", b"").decode("latin-1")
    origin = context.headers.get(b"origin", b"").decode("latin-1")
    asked = urlsplit(f"//{host}").hostname
    return all(map(_is_loopback, [listens_on, asked, *([urlsplit(origin).hostname] if origin else [])]))


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def experiments(services: Services) -> Handler:
    """Return the handler of `GET /admin/experiments`: the report of each, shortly."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        found = await _asked(lambda: reading.status(services.keeper.store, services.config))
        await client.respond(200, msgspec.json.encode({"experiments": [status_of(one) for one in found]}))

    return handle


def experiment(services: Services) -> Handler:
    """Return the handler of `GET /admin/experiments/{name}`: its report."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        name = unquote(context.path.removeprefix(EXPERIMENTS + "/"))
        report = await _asked(lambda: reading.report(services.keeper.store, name, services.config))
        if report is None:
            raise NotFound(f"There is no experiment called '{name}'.")
        await client.respond(200, msgspec.json.encode(report))

    return handle


def export(services: Services) -> Handler:
    """Return the handler of `GET /admin/experiments/{name}/export`: its numbers, a JSON object a line."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        name = unquote(context.path.removeprefix(EXPERIMENTS + "/").removesuffix(EXPORT))
        record = await _asked(lambda: reading.read(services.keeper.store, name))
        if record is None:
            raise NotFound(f"There is no experiment called '{name}'.")
        await client.respond(200, msgspec.json.Encoder().encode_lines(list(rows(record))), LINES)

    return handle


async def _asked(question: Callable[[], Awaitable[T]]) -> T:
    try:
        return await question()
    except StoreUnavailable as error:
        message = f"The record of the experiments cannot be read: {error}."
        raise Unavailable(message, headers={"retry-after": RETRY_AFTER}) from error
