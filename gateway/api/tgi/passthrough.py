"""A request of TGI's own API with a TGI behind: it goes there as it came, and so does the answer.

Only what counts the tokens is looked at, and asked for where the client has not.
"""

from backends.base import BackendError, UpstreamRequest
from backends.failures import CUT
from backends.inbound.tgi import translate as native
from backends.inbound.tgi.passthrough import DetailsFilter, usage
from backends.inbound.tgi.wire import TgiRequest
from backends.sse import EventReader, EventTooLarge, events
from gateway.api.tgi.client import EVENTS, Client
from gateway.api.tgi.errors import OWN_STATUSES
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.http.errors import EngineFailed, UpstreamErrorBody, from_backend
from gateway.upstream.connection import Reply

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
    """One request passed on to a TGI, `asked` being None if it could not be read."""

    def __init__(self, body: bytes, asked: TgiRequest | None, line: TgiEngineClient, client: Client) -> None:
        self._body = body
        self._hidden = asked is not None and asked.stream and not asked.parameters.details
        self._line = line
        self._client = client
        self._exchange = line.context

    async def answer(self) -> None:
        """Ask the engine and answer the client. Raises PointsmanError."""
        body = self._body
        if self._hidden:  # the details are asked for all the same, and taken out again: they count the prompt
            body = native.with_details(body)
        reply = await self._line.post(UpstreamRequest(path=self._exchange.path, body=body, stream=self._hidden))
        try:
            if reply.headers.get("content-type", "").startswith(EVENTS):
                await self._stream(reply, DetailsFilter(self._hidden))
            else:
                await self._whole(reply)
        finally:
            reply.close()

    async def _whole(self, reply: Reply) -> None:
        body = await self._line.whole(reply)
        kind = reply.headers.get("content-type", "")
        if reply.status != 200:
            failure = self._line.failure(reply, body)
            if reply.status in OWN_STATUSES and kind.startswith(("application/json", "text/plain")):
                failure.passthrough_body = UpstreamErrorBody(reply.status, body, kind.encode())
            raise failure
        counts = [reply.headers.get(name, "") for name in COUNTS]
        read, written = (int(count) if count.isdecimal() else 0 for count in counts)
        self._exchange.usage = usage(read, written)
        headers = [(name.encode(), reply.headers[name].encode()) for name in PASSED_HEADERS if name in reply.headers]
        await self._client.respond(200, body, kind.encode(), headers)

    async def _stream(self, reply: Reply, passed: DetailsFilter) -> None:
        stream, reader = self._client.stream(), EventReader()
        while not passed.ended and (data := await self._line.chunk(reply)):
            try:
                payloads = [passed.take(payload) for payload in reader.feed(data)]
            except EventTooLarge as error:
                raise EngineFailed("The engine sent an event without end.") from error
            except BackendError as error:
                raise from_backend(error) from error
            if payloads:
                await stream.pass_on(events(payloads))
        self._exchange.usage = passed.usage
        if not passed.ended:
            raise EngineFailed(CUT)
        if passed.failure is not None:  # of which the client has been told
            self._exchange.failure = from_backend(passed.failure)
        reply.release()
        await stream.finish(b"")
