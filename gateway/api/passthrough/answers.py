"""An engine's answer that has begun well, on its way to the client: whole, or as a stream."""

from collections.abc import Sequence
from typing import NamedTuple

from backends import estimate
from backends.failures import CUT
from backends.schema import Usage
from gateway.api.passthrough.counts import counts, usage
from gateway.api.passthrough.events import StreamReading, is_complete, is_responses_own
from gateway.api.passthrough.failures import event_failure
from gateway.api.passthrough.frames import Frame, FrameReader
from gateway.api.passthrough.names import Names, read, write
from gateway.http.client import Client
from gateway.http.context import RequestContext
from gateway.http.errors import EngineFailed, PointsmanError
from gateway.http.sse import RawEventStream
from gateway.proxy.engine_client import EngineClient
from gateway.upstream.client import Reply

EVENTS = "text/event-stream"
LEFT_OVER = 1.0  # seconds of silence after the answer's last event, after which nothing more is waited for
NO_EVENTS = "The engine answered whole where a stream was asked for."


def kind(reply: Reply) -> bytes:
    """Return the content type of an answer."""
    return reply.headers.get("content-type", "application/json").encode("latin-1", "replace")


class Terms(NamedTuple):
    """What has to be known of a request to read its answer.

    `names` are the client's; `counted` is whether tokens are worked for such answers. Of a stream an engine may be
    silent for `between_events` seconds.
    """

    path: str
    names: Names
    counted: bool
    between_events: float


class PassedWhole:
    """A whole answer."""

    def __init__(self, reply: Reply, body: bytes, terms: Terms) -> None:
        self._reply = reply
        self._body = body
        self._worked = estimate.so_far(None, 0) if terms.counted else None
        fields = read(body) if kind(reply).startswith(b"application/json") else None
        if fields is None:
            return
        told = counts(fields) if terms.counted else None
        if told is not None and told.read is not None:
            self._worked = usage(told.read, told.written or 0)
        if terms.names.put(fields):
            self._body = write(fields)

    def worked(self) -> Usage | None:
        """Return the answer's own figures, or that it has none."""
        return self._worked

    async def send(self, client: Client, stream: RawEventStream | None, context: RequestContext) -> None:
        """Write the answer."""
        if stream is not None and stream.begun:
            raise EngineFailed(NO_EVENTS)
        context.streamed = False
        await client.respond(200, self._body, kind(self._reply))

    def close(self) -> None:
        """End the connection's use."""
        self._reply.close()


class PassedStream:
    """A stream, event by event."""

    def __init__(self, client: EngineClient, reply: Reply, terms: Terms) -> None:
        self._client = client
        self._reply = reply
        self._terms = terms
        self._frames = FrameReader()
        self._reading = StreamReading(terms.names)
        self._failure: PointsmanError | None = None
        self._told = False  # the client has been passed the failure in its own words
        self._inside = False  # what was read last ends inside an event
        self._first = b""

    async def begin(self) -> None:
        """Read until the first event that is neither an error nor a sign of life. Raises PointsmanError."""
        while not self._reading.spoke and not self._inside:
            data = await self._next()
            if self._failure is not None and not self._reading.spoke:
                raise self._failure
            if not data:
                break
            self._first += data
        if not self._reading.spoke and not self._inside:
            raise EngineFailed(CUT)
        self._client.timing.first_event_at = self._client.timing.received_at
        self._client.timer.limit = self._terms.between_events

    def worked(self) -> Usage | None:
        """Return the engine's figures as far as they have come, and what was written since."""
        return self._reading.worked() if self._terms.counted else None

    async def send(self, client: Client, stream: RawEventStream | None, context: RequestContext) -> None:
        """Write the events as they come. Raises what the stream ended in, if the client has not been told of it."""
        context.streamed = True
        if stream is None:
            stream = client.raw_stream(kind(self._reply))
        stream.kind = kind(self._reply)
        data = self._first
        while data:
            await stream.pass_on(data)
            data = await self._next()
        if self._failure is not None and not self._told:
            raise self._failure
        context.failure = self._failure
        await stream.finish(b"")

    async def _next(self) -> bytes:
        """Return the whole events of the next reads; at the end, nothing."""
        while self._failure is None:
            data = await self._chunk()
            shown = self._read(data) if data else self._end()
            if shown or not data:
                return shown
        return b""

    async def _chunk(self) -> bytes:
        if not self._reading.ended:
            data = await self._client.chunk(self._reply)
            if self._reading.spoke:
                self._client.endpoint.heard(self._client.timing.received_at)
            return data
        self._client.timer.limit = LEFT_OVER
        try:
            return await self._client.chunk(self._reply)
        except PointsmanError:  # the answer is complete: how the connection ends is nobody's concern
            return b""

    def _read(self, data: bytes) -> bytes:
        if self._frames.is_whole(data) and self._reading.skim(data):
            return data
        return self._take(self._frames.feed(data))

    def _take(self, frames: Sequence[Frame]) -> bytes:
        shown: list[bytes] = []
        for frame in frames:
            self._inside = not frame.last
            event, error = self._reading.take(frame.data) if frame.whole else (frame.data, None)
            if error is None:
                shown.append(event)
                continue
            self._failure = event_failure(self._client, error, self._terms.path)
            self._told = self._reading.spoke and is_responses_own(error)
            return b"".join([*shown, event] if self._told else shown)
        return b"".join(shown)

    def _end(self) -> bytes:
        """Return what was left at the end of the engine's body; see whether its answer is complete."""
        rest = self._frames.end()
        whole = not self._inside and is_complete(rest)
        shown = self._take([Frame(rest.rstrip(b"\r\n") + b"\n\n")]) if whole else b""
        reading = self._reading
        if self._failure is None and (self._inside or reading.incomplete):
            self._failure = EngineFailed(CUT)
        return shown

    def close(self) -> None:
        """Stop the engine's work, if it is not done."""
        self._reply.close()
