"""TGI's own API: `/generate`, `/generate_stream`, `/` and `/info`, for clients that were written for TGI.

They name no model: they speak for `[server] tgi_model`, or for the only one there is. A TGI behind gets the request
as the client sent it, and its answer goes back as it came (`passthrough`). For a vLLM both are translated
(`translate`). A request that the translation refuses is TGI's to judge where the model has one; so is what vLLM
has no way to do.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from msgspec import Raw

from backends import estimate
from backends.inbound.tgi import serde
from backends.inbound.tgi import translate as inbound
from backends.inbound.tgi.wire import TgiRequest
from gateway.access.guard import admit, identify
from gateway.access.models import find_model
from gateway.api.tgi.client import TgiClient, TgiEventStream
from gateway.api.tgi.errors import Misread
from gateway.api.tgi.info import description
from gateway.api.tgi.passthrough import TgiPassthrough
from gateway.api.tgi.translate import Translation
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.api.tgi.vocabularies import Vocabularies
from gateway.http.body import JSON, Receive, cancel_on_disconnect, read_json
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import Forbidden, InvalidRequest, MethodNotAllowed, ModelNotFound
from gateway.http.lifecycle import ASGI, with_context
from gateway.proxy.pipeline import Prepared, pin, serve
from gateway.proxy.sources import OpenAnswer
from gateway.proxy.surfaces import TGI
from gateway.routing import order_candidates, pinned
from gateway.services import Services
from gateway.upstream.models import Candidate, ModelRoute

PATHS = (inbound.WHOLE, inbound.STREAM)
GENERATING = {inbound.COMPAT_PATH: ("POST", "GET", "HEAD")}  # the methods of a path if there is not POST alone
INFO = "/info"


class TgiAnswer(OpenAnswer, Protocol):
    """An engine's answer that has begun, and is written to the client in TGI's words."""

    async def send(self, client: TgiClient, stream: TgiEventStream | None) -> None:
        """Write it, into the stream that the request asks for, or whole."""
        ...


class TgiGeneration:
    """The work of one request of TGI's."""

    surface = TGI
    service_tier: Raw | None = None

    def __init__(
        self,
        body: bytes,
        vocabularies: Vocabularies,
        context: RequestContext,
        client: TgiClient,
        services: Services,
    ) -> None:
        self.model = ""
        self._body = body
        self._vocabularies = vocabularies
        self._context = context
        self._client = client
        self._services = services
        self._request: TgiRequest | None = None
        self._stream: TgiEventStream | None = None
        self._refusal = self._read()
        context.estimate_prompt = partial(estimate.of_body, body)
        context.timing.mark_stage("parse", services.clock())
        if self._request is not None and self._request.stream:
            self._stream = client.tgi_stream()

    def _read(self) -> InvalidRequest | None:
        """Read the request; return what the translation has against it."""
        try:
            self._request = inbound.read(self._context.path, self._body)
        except serde.Rejected as rejected:
            return Misread(rejected)
        words = inbound.refusal(self._request)
        return InvalidRequest(words) if words else None

    def prepare(self, prepared: Prepared) -> None:
        """Have nothing to complete: these requests name no model."""

    def conversation(self) -> list[bytes]:
        """Return the whole prompt; of a request that could not be read, all of it."""
        return [self._body] if self._request is None else [self._request.inputs.encode(errors="surrogatepass")]

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the deployments to try. Raises InvalidRequest if none can do what is asked."""
        candidates, refusal = pinned(route, pin), self._refusal
        passing = [candidate for candidate in candidates if candidate.endpoint.engine == "tgi"]
        translated = [candidate for candidate in candidates if candidate.endpoint.engine == "vllm"]
        if not passing and not translated:
            refusal = InvalidRequest(f"{candidates[0].endpoint.backend.label} has no way to answer here")
        if refusal is not None and (not passing or (translated and not route.by_capability)):
            raise refusal
        return passing if refusal else [*passing, *translated]

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the deployments to try, in the order of the model's policy."""
        route, services = prepared.route, self._services
        found, head = self.able(route, prepared.pin), self._body[: route.settings.prefix_bytes]
        return order_candidates(found, route, head, services.clock(), services.random, prepared.first)

    async def open(self, attempt: Attempt, context: RequestContext) -> TgiAnswer:
        """Ask the engine of an attempt; return its answer, begun well. Raises PointsmanError."""
        candidate = attempt.candidate
        client = TgiEngineClient(attempt, context, self._services)
        if candidate.endpoint.engine == "tgi" or self._request is None:
            return await TgiPassthrough(self._body, self._request, client).open(context.path)
        names = self._vocabularies.of(candidate)
        return await Translation(self._request, names, client).open(self._services.random)

    async def send(self, answer: TgiAnswer) -> None:
        """Write the answer to the client."""
        await answer.send(self._client, self._stream)


def generation(services: Services) -> ASGI:
    """Return the application that answers the three paths that generate."""
    admitted = answer(services)

    async def handle(context: RequestContext, receive: Receive, client: TgiClient) -> None:
        _check_method(context, *GENERATING.get(context.path, ("POST",)))
        await admit(context, services)
        await admitted(context, receive, client)

    return with_context(services, TgiClient, handle)


def answer(services: Services) -> Callable[[RequestContext, Receive, TgiClient], Awaitable[None]]:
    """Return the handler of a request that has been let in."""
    vocabularies = Vocabularies()

    async def handle(context: RequestContext, receive: Receive, client: TgiClient) -> None:
        body = await read_json(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            work = TgiGeneration(body, vocabularies, context, client, services)
            work.model = (await spoken_for(context, services)).name
            await serve(work, context, client, services)

    return handle


def info(services: Services) -> ASGI:
    """Return the application that answers `/info`."""

    async def handle(context: RequestContext, receive: Receive, client: TgiClient) -> None:
        _check_method(context, "GET", "HEAD")
        await identify(context, services)
        with cancel_on_disconnect(context, receive):
            route = await spoken_for(context, services)
            await client.respond(200, await description(route, pin(context), context, services), JSON)

    return with_context(services, TgiClient, handle)


def _check_method(context: RequestContext, *methods: str) -> None:
    if context.method not in methods:
        raise MethodNotAllowed("", headers={"allow": ",".join(methods)})


async def spoken_for(context: RequestContext, services: Services) -> ModelRoute:
    """Return the model that TGI's paths speak for.

    Raises InvalidRequest if there are several, and as `find_model` does, without a name that the client has not said.
    """
    catalog, principal = services.catalog, context.principal
    name = services.config.server.tgi_model
    if not name and len(catalog.routes) > 1:
        there = catalog.listed(principal)
        raise InvalidRequest(f"this path names no model, and there are several; server.tgi_model chooses one{there}")
    try:
        return await find_model(name, context, services)
    except (Forbidden, ModelNotFound) as error:
        if not principal.models:
            raise
        raise type(error)("this API key is not good for the model that this path speaks for") from error
