"""The engine's side of TGI's own API: what one attempt sends to its engine, and how it hears of it."""

from backends.base import BackendError, UpstreamRequest
from backends.inbound.tgi import translate as native
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import PointsmanError, from_backend
from gateway.services import Services
from gateway.upstream.connection import Reply


class TgiEngineClient:
    """The line to the engine of one attempt."""

    def __init__(self, attempt: Attempt, context: RequestContext, services: Services) -> None:
        self.attempt = attempt
        self.candidate = attempt.candidate
        self.context = context
        self.clock = services.clock
        self._upstream = services.upstream
        self._between_events = services.config.timeouts.between_events

    async def post(self, request: UpstreamRequest) -> Reply:
        """Send one request; return the head of its answer. Raises PointsmanError."""
        context, endpoint = self.context, self.candidate.endpoint
        context.heard = self.clock()
        context.asked = context.asked or context.heard
        told = context.trace.headers(len(context.attempts) - 1, endpoint.engine)  # it is never hedged
        headers = {"x-request-id": context.id, **told}
        reply = await self._upstream.post(endpoint, request.path, request.body, headers)
        context.heard = self.clock()
        return reply

    async def whole(self, reply: Reply) -> bytes:
        """Return the whole of an answer. Raises PointsmanError."""
        body = await reply.read()
        self.context.heard = self.clock()
        return body

    async def chunk(self, reply: Reply) -> bytes:
        """Return what has come of a stream since the last call; at the end, nothing. Raises PointsmanError."""
        data = await reply.chunk()
        context = self.context
        context.heard = self.clock()
        context.first = context.first or context.heard
        context.patience = self._between_events
        return data

    async def read(self, request: UpstreamRequest) -> bytes:
        """Return the answer to a question beside the request. Raises PointsmanError."""
        reply = await self.post(request)
        try:
            body = await reply.read()
        finally:
            reply.close()
        if reply.status != 200:
            raise self.failure(reply, body)
        return body

    def failure(self, reply: Reply, body: bytes) -> PointsmanError:
        """Return what an answer means whose status is not 200, in words that name TGI's parameters."""
        failure = self.candidate.endpoint.backend.failure(None, None, reply.status, reply.headers, body)
        if not isinstance(failure, BackendError):
            raise TypeError(f"a request of TGI's was answered with {failure!r}")
        failure.message = native.in_tgis_names(failure.message)
        return from_backend(failure)
