"""The work of one request that is passed on: which deployments are asked, and how."""

from functools import partial

from backends import estimate
from gateway.api.passthrough import response_ids
from gateway.api.passthrough.answers import EVENTS, PassedStream, PassedWhole, Terms, kind
from gateway.api.passthrough.bodies import Body
from gateway.api.passthrough.failures import refusal, unknown_previous_response
from gateway.api.passthrough.names import Names
from gateway.api.passthrough.paths import COUNTING, FORM_PATHS, RESPONSES
from gateway.experiments.unit import of_body
from gateway.http import sse
from gateway.http.client import Client
from gateway.http.context import Attempt, RequestContext
from gateway.http.sse import RawEventStream
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.pipeline import Prepared
from gateway.proxy.surfaces import PASSTHROUGH
from gateway.routing import able_path, plan_path
from gateway.services import Services
from gateway.upstream.client import Reply
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, ModelRoute

PASSED_HEADERS = (b"anthropic-", b"openai-")


class Passthrough:
    """The work of one request with a body."""

    surface = PASSTHROUGH

    def __init__(self, body: Body, context: RequestContext, client: Client, services: Services) -> None:
        self.model = body.model
        self.service_tier = body.service_tier
        self._body = body
        self._previous = body.previous  # as the engine calls it
        self._context = context
        self._client = client
        self._services = services
        self._stream: RawEventStream | None = None

    def prepare(self, prepared: Prepared) -> None:
        """Note what the client calls the model, as its answer does, too; and how long its prompt is, about."""
        self.model = self.model or prepared.route.name
        if self._counted() and self._context.path not in FORM_PATHS:  # of a sound nothing can be said
            self._context.estimate_prompt = partial(estimate.of_body, self._body.head)

    def conversation(self) -> list[bytes] | None:
        """Return the beginning of what is said, or all of it; nothing of what only counts tokens."""
        return of_body(self._context.body) if self._counted() else None

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the deployments whose engines have the path."""
        return able_path(self._context.path, route, pin, self._maker())

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the deployments whose engines have the path; of what goes on from a response, the one that made it."""
        context, services, head = self._context, self._services, self._body.head
        now, random = services.clock(), services.random
        maker, first = self._maker(), prepared.first
        candidates = plan_path(context.path, head, prepared.route, prepared.pin, now, random, maker, first)
        if not candidates:
            raise unknown_previous_response(self._body.previous)
        if context.streamed:
            self._stream = self._client.raw_stream(sse.EVENTS)
        return candidates

    def _maker(self) -> Endpoint | None:
        """Return the deployment that the request has to go to. Raises UnknownPreviousResponse."""
        given, tenant = self._body.previous, self._context.principal.tenant
        if not response_ids.is_encoded(given):
            if given and tenant:
                raise unknown_previous_response(given)
            return None
        found = response_ids.decode(given, self._services.catalog.endpoints, tenant)
        if found is None:
            raise unknown_previous_response(given)
        endpoint, self._previous = found
        return endpoint

    async def open(self, attempt: Attempt, context: RequestContext) -> PassedWhole | PassedStream:
        """Ask the engine of an attempt; return its answer, begun well. Raises PointsmanError."""
        timeouts = self._services.config.timeouts
        client = EngineClient(attempt, context, self._services, timeouts.silence(context.streamed))
        reply = await client.send(
            "POST",
            with_query(context.path, context),
            self._body.write(attempt.candidate.model, self._previous),
            passed_headers(context, with_type=True),
        )
        if reply.status != 200:
            raise refusal(client, reply, await closed(client, reply), context.path, self.model)
        terms = Terms(context.path, self._names(attempt), self._counted(), timeouts.between_events)
        return await answer(client, reply, terms)

    def _names(self, attempt: Attempt) -> Names:
        if not self._context.path.startswith(RESPONSES):
            return Names(self._called)
        endpoint, tenant = attempt.candidate.endpoint, self._context.principal.tenant
        return Names(self._called, partial(response_ids.encode, endpoint=endpoint, tenant=tenant))

    def _called(self, _: str) -> str:
        return self.model

    def _counted(self) -> bool:
        """Whether tokens are worked for such a request."""
        return self._context.path not in COUNTING

    async def send(self, answer: PassedWhole | PassedStream) -> None:
        """Write the answer as it comes, with the client's names."""
        await answer.send(self._client, self._stream, self._context)


async def answer(client: EngineClient, reply: Reply, terms: Terms) -> PassedWhole | PassedStream:
    """Return an engine's answer of status 200: all of it, or as a stream that has begun well. Raises PointsmanError."""
    if not kind(reply).startswith(EVENTS.encode()):
        return PassedWhole(reply, await closed(client, reply), terms)
    stream = PassedStream(client, reply, terms)
    try:
        await stream.begin()
    except BaseException:
        stream.close()
        raise
    return stream


async def closed(client: EngineClient, reply: Reply) -> bytes:
    """Return the whole body of an answer, whose connection is not needed afterwards. Raises PointsmanError."""
    try:
        return await client.read(reply)
    finally:
        reply.close()


def with_query(path: str, context: RequestContext) -> str:
    """Return a path with the query of the client's request."""
    return f"{path}?{context.query.decode('latin-1')}" if context.query else path


def passed_headers(context: RequestContext, with_type: bool = False) -> dict[str, str]:
    """Return the client's headers that an engine is sent: those of the two APIs, and the type of a body."""
    passed = {name: value for name, value in context.headers.items() if name.startswith(PASSED_HEADERS)}
    if with_type and b"content-type" in context.headers:
        passed[b"content-type"] = context.headers[b"content-type"]
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in passed.items()}
