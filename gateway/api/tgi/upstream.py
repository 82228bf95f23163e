"""The engine's side of TGI's own API."""

from backends.base import UpstreamRequest
from backends.inbound.tgi import translate as inbound
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import PointsmanError
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.subrequest import ask_within
from gateway.services import Services
from gateway.upstream.client import Reply


class TgiEngineClient(EngineClient):
    """Asks one engine for a request of TGI's, and tells of its failures in words that name TGI's parameters."""

    def __init__(self, attempt: Attempt, context: RequestContext, services: Services) -> None:
        timeouts = services.config.timeouts
        super().__init__(attempt, context, services, timeouts.silence(context.streamed))
        self.began = context.timing.began
        self._between_events = timeouts.between_events
        self._context = context
        self._services = services

    async def event_chunk(self, reply: Reply) -> bytes:
        """Return what has come of a stream since the last call; at the end, nothing. Raises PointsmanError."""
        data = await self.chunk(reply)
        self.timer.limit = self._between_events
        return data

    async def ask_beside(self, request: UpstreamRequest) -> bytes:
        """Return the answer to a question about this request. Raises PointsmanError."""

        async def question(client: EngineClient) -> bytes:
            return await client.ask(request.path, request.body)

        try:
            return await ask_within(self.attempt, request.path, question, self._context, self._services)
        except PointsmanError as error:
            error.message = inbound.in_tgis_names(error.message)
            raise

    def failure(self, reply: Reply, body: bytes) -> PointsmanError:
        """Return what an answer means whose status is not 200."""
        failure = super().failure(reply, body)
        failure.message = inbound.in_tgis_names(failure.message)
        return failure
