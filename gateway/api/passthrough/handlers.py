"""The handlers of the paths that are passed on."""

import re

from gateway.api.passthrough.bodies import Body, form_body, json_body
from gateway.api.passthrough.paths import RESPONSES, STREAMING
from gateway.api.passthrough.stored import StoredResponse
from gateway.api.passthrough.work import Passthrough
from gateway.http.body import Receive, cancel_on_disconnect, read_body, read_json
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.lifecycle import Handler
from gateway.proxy.pipeline import serve
from gateway.services import Services

_STREAM = re.compile(rb"(?:^|&)stream=(?:true|1|on|yes)(?:&|$)", re.IGNORECASE)  # as vLLM reads a boolean


def json_path(services: Services) -> Handler:
    """Return the handler of a path whose body is JSON."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        data = await read_json(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            await _serve(json_body(data), context, client, services)

    return handle


def form_path(services: Services) -> Handler:
    """Return the handler of a path whose body is a multipart form (RFC 7578)."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        data = await read_body(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            await _serve(form_body(data, context.headers.get(b"content-type", b"")), context, client, services)

    return handle


async def _serve(body: Body, context: RequestContext, client: Client, services: Services) -> None:
    context.timing.mark_stage("parse", services.clock())
    context.streamed = body.streamed and context.path in STREAMING
    await serve(Passthrough(body, context, client, services), context, client, services)


def response_path(services: Services) -> Handler:
    """Return the handler of the paths of one response: `/v1/responses/{id}`, and what follows it."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        given, slash, what = context.path.removeprefix(RESPONSES + "/").partition("/")
        body = await read_body(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            context.streamed = context.method == "GET" and _STREAM.search(context.query) is not None
            work = StoredResponse(given, slash + what, body, context, client, services)
            await serve(work, context, client, services)

    return handle
