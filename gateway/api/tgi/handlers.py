"""TGI's own API: `/generate`, `/generate_stream`, `/` and `/info`, for clients that were written for TGI.

They name no model: they speak for `[server] tgi_model`, or for the only one there is. A TGI behind gets the request
as the client sent it, and its answer goes back as it came (`tgi_passed`). For a vLLM both are translated
(`tgi_translated`). A request that the translation refuses is TGI's to judge where the model has one; so is what vLLM
has no way to do.
"""

import asyncio
from collections.abc import Awaitable, Callable

from backends.inbound.tgi import serde as native_serde
from backends.inbound.tgi import translate as native
from backends.inbound.tgi.wire import TgiRequest
from gateway.access.auth import allow
from gateway.access.guard import admit
from gateway.api.tgi.client import Client
from gateway.api.tgi.errors import Misread
from gateway.api.tgi.passthrough import TgiPassthrough
from gateway.api.tgi.translate import Names, Translation
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.http.body import JSON, Receive, cancel_on_disconnect, read_json
from gateway.http.context import NEVER, Attempt, RequestContext
from gateway.http.errors import RETRY_AFTER, InvalidRequest, MethodNotAllowed, PointsmanError, Unavailable
from gateway.http.lifecycle import Handler
from gateway.http.respond import Send
from gateway.proxy.dispatch import first_good
from gateway.proxy.pipeline import pin
from gateway.routing import order_candidates, pinned
from gateway.services import Services
from gateway.upstream.connection import Upstream
from gateway.upstream.models import Candidate, ModelRoute

PATHS = (native.WHOLE, native.STREAM, native.COMPAT_PATH)
INFO = "/info"

Vocabularies = dict[tuple[str, str], Names]  # of each deployment's models


# --- handlers -------------------------------------------------------------------------------------------------


def generation(services: Services) -> Handler:
    """Return the handler of the three paths that generate."""
    vocabularies: Vocabularies = {}

    async def answer(context: RequestContext, receive: Receive, client: Client) -> None:
        _check_method(context, "POST")
        await admit(context, services)
        body = await read_json(context, receive, services.config.server.max_body_bytes)
        context.since = services.clock()
        with cancel_on_disconnect(context, receive):
            await TgiRequestHandler(body, vocabularies, context, client, services).serve()

    return _telling(services, answer)


def info(services: Services) -> Handler:
    """Return the handler of `/info`: a TGI's own words if there is one, else what is known of the vLLM."""

    async def answer(context: RequestContext, receive: Receive, client: Client) -> None:
        _check_method(context, "GET", "HEAD")
        await admit(context, services)
        await client.respond(200, await _description(context, services), JSON)

    return _telling(services, answer)


def _telling(services: Services, answer: Callable[[RequestContext, Receive, Client], Awaitable[None]]) -> Handler:
    """Return a handler that tells of errors in TGI's words."""

    async def handle(context: RequestContext, receive: Receive, send: Send) -> None:
        client = Client(context, send, services.clock)
        try:
            await answer(context, receive, client)
        except (Exception, asyncio.CancelledError) as error:
            failure = context.failure = context.ended_by(error)
            if not isinstance(failure, PointsmanError):
                raise failure from error
            await client.tell(failure)

    return handle


def _check_method(context: RequestContext, *methods: str) -> None:
    if context.method not in methods:
        raise MethodNotAllowed("", headers={"allow": ",".join(methods)})


def spoken_for(services: Services) -> ModelRoute:
    """Return the model that TGI's paths speak for. Raises InvalidRequest if there are several, and Unavailable."""
    catalog = services.catalog
    name = services.config.server.tgi_model
    if not name and len(catalog.routes) > 1:
        there = ", ".join(catalog.routes)
        raise InvalidRequest(f"this path names no model, and there are several: {there}; server.tgi_model chooses one")
    return catalog.find(name)


# --- what is known of the model -------------------------------------------------------------------------------


async def _description(context: RequestContext, services: Services) -> bytes:
    """Return the answer to `/info`. Raises Unavailable before any engine has said how long its context is."""
    candidates = pinned(spoken_for(services), pin(context))
    for candidate in candidates:
        if candidate.endpoint.engine == "tgi" and (body := await _told_by(candidate, services.upstream)):
            context.answering = Attempt(candidate, context.began)
            return body
    candidate = next((candidate for candidate in candidates if candidate.max_model_len), candidates[0])
    if candidate.max_model_len is None:
        raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})
    return native.info(candidate.model, candidate.max_model_len)


async def _told_by(candidate: Candidate, upstream: Upstream) -> bytes:
    """Return what a TGI says of itself; nothing if it cannot be asked."""
    try:
        reply = await upstream.get(candidate.endpoint, INFO)
        body = await reply.read()
    except PointsmanError:
        return b""
    return body if reply.status == 200 else b""


# --- one request ----------------------------------------------------------------------------------------------


class TgiRequestHandler:
    """One request of a client's, from its body to its answer."""

    def __init__(
        self, body: bytes, vocabularies: Vocabularies, context: RequestContext, client: Client, services: Services
    ) -> None:
        self._body = body
        self._vocabularies = vocabularies
        self._exchange = context
        self._client = client
        self._services = services
        self._asked: TgiRequest | None = None

    async def serve(self) -> None:
        """Read the request, choose the engine, answer. Raises PointsmanError."""
        context, services = self._exchange, self._services
        refusal = self._read()
        context.mark_stage("parse", services.clock())
        if self._asked is not None and self._asked.stream:
            self._client.stream()
        route = spoken_for(services)
        context.model = route.name
        allow(context.principal, route.name)
        context.tier = context.principal.tier
        candidates = self._plan(route, refusal)
        context.mark_stage("route", services.clock())
        patience = services.config.timeouts.first_event if context.stream else NEVER
        await first_good(candidates, self._ask, context, services, patience)

    def _read(self) -> InvalidRequest | None:
        """Read the request; return what the translation has against it."""
        try:
            self._asked = native.read(self._exchange.path, self._body)
        except native_serde.Rejected as rejected:
            return Misread(rejected)
        words = native.refusal(self._asked)
        return InvalidRequest(words) if words else None

    def _plan(self, route: ModelRoute, refusal: InvalidRequest | None) -> list[Candidate]:
        """Return the candidates to try. Raises InvalidRequest if none can do what is asked."""
        candidates = pinned(route, pin(self._exchange))
        passing = [candidate for candidate in candidates if candidate.endpoint.engine == "tgi"]
        translated = [candidate for candidate in candidates if candidate.endpoint.engine == "vllm"]
        if not passing and not translated:
            refusal = InvalidRequest(f"{candidates[0].endpoint.backend.label} has no way to answer here")
        if refusal is not None and (not passing or (translated and not route.by_capability)):
            raise refusal
        candidates = passing if refusal else [*passing, *translated]
        head = self._body[: route.settings.prefix_bytes]
        return order_candidates(candidates, route, head, self._services.clock(), self._services.random)

    async def _ask(self, attempt: Attempt) -> None:
        candidate = attempt.candidate
        line = TgiEngineClient(attempt, self._exchange, self._services)
        if candidate.endpoint.engine == "tgi" or self._asked is None:
            await TgiPassthrough(self._body, self._asked, line, self._client).answer()
        else:
            names = self._vocabularies.setdefault((candidate.endpoint.name, candidate.model), {})
            await Translation(self._asked, names, line, self._client).answer(self._services.random)
