"""A request of TGI's own API with a TGI behind: it goes there as it came, and so does the answer.

Only what counts the tokens is looked at, and asked for where the client has not.
"""

from backends.base import BackendError
from backends.failures import CUT
from backends.inbound.tgi import translate as inbound
from backends.inbound.tgi.passthrough import DetailsFilter, answered, usage
from backends.inbound.tgi.wire import TgiRequest
from backends.schema import Usage
from backends.sse import EventReader, EventTooLarge, events
from gateway.api.tgi.client import EVENTS, TgiClient, TgiEventStream
from gateway.api.tgi.errors import OWN_STATUSES
from gateway.api.tgi.streams import StreamedAnswer
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.http.errors import EngineFailed, UpstreamErrorBody, from_backend
from gateway.upstream.client import Reply

COUNTS = ("x-prompt-tokens", "x-generated-tokens")
PASSED_HEADERS = (
    *COUNTS,
    "x-compute-type",
    "x-compute-time",
    "x-compute-characters",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
)


class TgiPassthrough:
    """Passes one request on to a TGI; `request` is None if it could not be read."""

    def __init__(self, body: bytes, request: TgiRequest | None, client: TgiEngineClient) -> None:
        self._body = body
        self._inputs = request.inputs if request is not None else ""
        self._hidden = request is not None and request.stream and not request.parameters.details
        self._client = client

    async def open(self, path: str) -> "ForwardedAnswer | ForwardedStream":
        """Ask the engine; return its answer, whole or begun. Raises PointsmanError."""
        body = self._body
        if self._hidden:  # the details are asked for all the same, and taken out again: they count the prompt
            body = inbound.with_details(body)
        reply = await self._client.post(path, body)
        try:
            if not reply.headers.get("content-type", "").startswith(EVENTS):
                return await self._whole(reply)
            stream = ForwardedStream(self._client, reply, self._hidden)
            await stream.begin()
        except BaseException:
            reply.close()
            raise
        return stream

    async def _whole(self, reply: Reply) -> "ForwardedAnswer":
        body = await self._client.read(reply)
        if reply.status == 200:
            return ForwardedAnswer(reply, body, self._inputs)
        failure = self._client.failure(reply, body)
        kind = reply.headers.get("content-type", "")
        if reply.status in OWN_STATUSES and kind.startswith(("application/json", "text/plain")):
            failure.passthrough_body = UpstreamErrorBody(reply.status, body, kind.encode())
        raise failure


class ForwardedAnswer:
    """A whole answer of a TGI's, with what its headers count."""

    def __init__(self, reply: Reply, body: bytes, inputs: str) -> None:
        self._reply = reply
        self._body = body
        self._inputs = inputs

    def worked(self) -> Usage:
        """Return the tokens by the answer's headers; what they do not tell is estimated."""
        counts = [self._reply.headers.get(name, "") for name in COUNTS]
        read, written = (int(count) if count.isdecimal() else -1 for count in counts)
        return usage(read, written) if min(read, written) >= 0 else answered(self._body, read, written, self._inputs)

    async def send(self, client: TgiClient, stream: TgiEventStream | None) -> None:
        """Write the answer as it came."""
        given = self._reply.headers
        kind = given.get("content-type", "").encode()
        headers = [(name.encode(), given[name].encode()) for name in PASSED_HEADERS if name in given]
        await client.respond(200, self._body, kind, headers)

    def close(self) -> None:
        """End the connection's use."""
        self._reply.close()


class ForwardedStream(StreamedAnswer):
    """A TGI's stream on its way to the client."""

    def __init__(self, client: TgiEngineClient, reply: Reply, hidden: bool) -> None:
        super().__init__(client, reply)
        self._events = EventReader()
        self._filter = DetailsFilter(hidden)

    async def _read(self) -> bytes:
        while not self._filter.ended and (data := await self._client.event_chunk(self._reply)):
            try:
                payloads = [taken for payload in self._events.feed(data) if (taken := self._filter.take(payload))]
            except EventTooLarge as error:
                raise EngineFailed("The engine sent an event without end.") from error
            except BackendError as error:
                raise from_backend(error) from error
            if payloads:
                if self._filter.failure is None:
                    self._client.endpoint.heard(self._client.timing.received_at)
                return events(payloads)
        return b""

    def _check_end(self, client: TgiClient) -> None:
        if not self._filter.ended:
            raise EngineFailed(CUT)
        if self._filter.failure is not None:
            client.note_failure(from_backend(self._filter.failure))  # of which the client has been told

    def worked(self) -> Usage | None:
        """Return the engine's own figures; until they have come, an event is a token."""
        return self._filter.worked()
