"""The gateway's side of one conversation with an engine: what is sent, how long it may be silent, and when it spoke."""

from functools import partial

from backends.base import BackendError
from gateway.http.context import Attempt, RequestContext
from gateway.http.deadlines import IdleTimer
from gateway.http.errors import PointsmanError, UpstreamIdleTimeout, from_backend
from gateway.services import Services
from gateway.upstream.client import Reply
from gateway.upstream.endpoints import Endpoint


class EngineClient:
    """Asks the engine of one attempt, and is judged by its own silence.

    Of an attempt that asks for several choices one by one, each has a client of its own. `limit` is how long the
    engine may be silent, in seconds; it may be changed between two waits, by `timer.limit`. A wait for an engine that
    its health checks find dead ends before that, as long as another deployment can be asked instead.
    """

    def __init__(self, attempt: Attempt, context: RequestContext, services: Services, limit: float) -> None:
        self.attempt = attempt
        self.endpoint = attempt.candidate.endpoint
        self.backend = self.endpoint.backend
        self.clock = services.clock
        self.timing = context.timing
        self.timer = IdleTimer(limit, services.clock, self.endpoint.silence, partial(_given_up, self.endpoint, context))
        context.idle_timers.append(self.timer)
        self._upstream = services.upstream
        trace = context.trace.headers(attempt.number, self.endpoint.engine)
        self._headers = {"x-request-id": context.request_id, **trace}

    async def post(self, path: str, body: bytes, content_type: str = "") -> Reply:
        """Send one request; return the head of its answer. Raises PointsmanError."""
        return await self.send("POST", path, body, {"content-type": content_type} if content_type else {})

    async def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        """Send one request of any method, with its query and more headers; else as `post`."""
        timing = self.timing
        with self.timer:
            timing.received_at = self.timer.since
            timing.sent_at = timing.sent_at or self.timer.since
            reply = await self._upstream.send(self.endpoint, method, path, body, self._headers | headers)
        timing.received_at = self.clock()
        return reply

    async def get(self, path: str) -> Reply:
        """Ask for a path; return the head of the answer. Raises PointsmanError."""
        with self.timer:
            reply = await self._upstream.get(self.endpoint, path)
        self.timing.received_at = self.clock()
        return reply

    async def read(self, reply: Reply) -> bytes:
        """Return the whole body of an answer. Raises PointsmanError.

        An engine that sends a part of it, be it white space, is not silent.
        """
        at_hand = reply.at_hand()
        if at_hand is not None:
            return at_hand
        parts = []
        while data := await self.chunk(reply):
            parts.append(data)
        return b"".join(parts)

    async def chunk(self, reply: Reply) -> bytes:
        """Return what has come of a body since the last call; at its end, nothing. Raises PointsmanError."""
        with self.timer:
            data = await reply.chunk()
        self.timing.received_at = self.clock()
        return data

    async def ask(self, path: str, body: bytes | None = None) -> bytes:
        """Return the answer to a question of the gateway's own: a POST if there is a body. Raises PointsmanError."""
        reply = await (self.get(path) if body is None else self.post(path, body))
        try:
            answer = await self.read(reply)
        finally:
            reply.close()
        if reply.status != 200:
            raise self.failure(reply, answer)
        return answer

    def failure(self, reply: Reply, body: bytes) -> PointsmanError:
        """Return what an answer means whose status is not 200, to a request that is no Call."""
        failure = self.backend.failure(None, None, reply.status, reply.headers, body)
        if not isinstance(failure, BackendError):
            raise TypeError(f"a request that is no call was answered with {failure!r}")
        return from_backend(failure)


def _given_up(endpoint: Endpoint, context: RequestContext) -> PointsmanError | None:
    """Return why an engine's answer is not waited for any longer, if it is not: it is asked for elsewhere."""
    if endpoint.found_dead and context.can_fail_over():
        return UpstreamIdleTimeout(f"The engine {endpoint.name} has stopped answering.")
    return None
