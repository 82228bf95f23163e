"""The paths of one response, by its id: they lead to the engine that made it, for the tenant whose response it is."""

from collections.abc import Iterator
from functools import partial

from msgspec import Raw

from gateway.api.passthrough import response_ids
from gateway.api.passthrough.answers import PassedStream, PassedWhole, Terms
from gateway.api.passthrough.failures import stored_refusal, unknown_response
from gateway.api.passthrough.names import Names
from gateway.api.passthrough.paths import RESPONSES
from gateway.api.passthrough.work import answer, closed, passed_headers, with_query
from gateway.http.client import Client
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import RETRY_AFTER, Unavailable
from gateway.http.sse import EVENTS, RawEventStream
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.pipeline import Prepared
from gateway.proxy.surfaces import PASSTHROUGH
from gateway.routing import order_candidates, pinned
from gateway.services import Services
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, ModelRoute


class StoredResponse:
    """The work of one request about a response that an engine has. `what` follows the id in the path."""

    surface = PASSTHROUGH
    service_tier: Raw | None = None

    def __init__(
        self, given: str, what: str, body: bytes, context: RequestContext, client: Client, services: Services
    ) -> None:
        self._given = given
        self._what = what
        self._body = body
        self._context = context
        self._client = client
        self._services = services
        maker, self._own = self._find()
        self._candidates = list(self._behind(maker))
        if not self._candidates:
            raise unknown_response(given)
        self.model = self._candidates[0][0].name
        self._stream: RawEventStream | None = None

    def _find(self) -> tuple[Endpoint | None, str]:
        """Return the engine that made the response, None if it may be any, and its id there. Raises UnknownResponse."""
        given, tenant = self._given, self._context.principal.tenant
        found: tuple[Endpoint | None, str] | None = None if tenant else (None, given)
        if response_ids.is_encoded(given):
            found = response_ids.decode(given, self._services.catalog.endpoints, tenant)
        if found is None or not response_ids.is_safe(found[1]):
            raise unknown_response(given)
        return found

    def _behind(self, maker: Endpoint | None) -> Iterator[tuple[ModelRoute, Candidate]]:
        """Return the deployments to ask, each once, with a model that the key may use. Raises Unavailable."""
        asked: list[Endpoint] = []
        served = [(route, one) for route in self._services.catalog.routes.values() for one in route.candidates]
        if maker is not None and all(one.endpoint is not maker for _, one in served):
            raise Unavailable(f"The engine {maker.name} has not answered yet.", headers={"retry-after": RETRY_AFTER})
        for route, candidate in served:
            endpoint = candidate.endpoint
            if endpoint not in asked and (maker is None or endpoint is maker) and self._may(route, candidate):
                asked.append(endpoint)
                yield route, candidate

    def _may(self, route: ModelRoute, candidate: Candidate) -> bool:
        has_path = RESPONSES in candidate.endpoint.backend.passthrough_paths
        return has_path and self._context.principal.may_ask(route.name)

    def prepare(self, prepared: Prepared) -> None:
        """Have nothing to complete."""

    def conversation(self) -> None:
        """Have none: what an engine has made is asked of it."""

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the engine that has the response, or all that may."""
        return [candidate for _, candidate in self._candidates]

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the engine that has the response, or all that may. Raises InvalidRequest, Unavailable."""
        services = self._services
        pinned(prepared.route, prepared.pin)  # an engine that is none is refused here, too
        candidates = self.able(prepared.route, prepared.pin)
        if self._context.streamed:
            self._stream = self._client.raw_stream(EVENTS)
        return order_candidates(candidates, prepared.route, b"", services.clock(), services.random)

    async def open(self, attempt: Attempt, context: RequestContext) -> PassedWhole | PassedStream:
        """Ask the engine of an attempt; return its answer, begun well. Raises PointsmanError."""
        timeouts = self._services.config.timeouts
        client = EngineClient(attempt, context, self._services, timeouts.silence(context.streamed))
        method = "GET" if context.method == "HEAD" else context.method
        path = with_query(f"{RESPONSES}/{self._own}{self._what}", context)
        reply = await client.send(method, path, self._body or None, passed_headers(context))
        if reply.status != 200:
            raise stored_refusal(client, reply, await closed(client, reply), self._given, self._own)
        endpoint, tenant = attempt.candidate.endpoint, context.principal.tenant
        called = {
            one.model: name
            for name, route in self._services.catalog.routes.items()
            for one in route.candidates
            if one.endpoint is endpoint
        }
        names = Names(lambda own: called.get(own, own), partial(response_ids.encode, endpoint=endpoint, tenant=tenant))
        return await answer(client, reply, Terms(context.path, names, False, timeouts.between_events))

    async def send(self, answer: PassedWhole | PassedStream) -> None:
        """Write the answer as it comes, with the client's ids."""
        await answer.send(self._client, self._stream, self._context)
