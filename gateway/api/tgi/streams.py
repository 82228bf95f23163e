"""An engine's stream on its way to a client of TGI's own API, whichever the engine."""

from abc import ABC, abstractmethod

from backends.schema import Usage
from gateway.api.tgi.client import TgiClient, TgiEventStream
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.upstream.client import Reply


class StreamedAnswer(ABC):
    """Reads the engine's events and writes TGI's. What they are, and when they are complete, the dialects say."""

    def __init__(self, client: TgiEngineClient, reply: Reply) -> None:
        self._client = client
        self._reply = reply
        self._first = b""
        self._done = False

    async def begin(self) -> None:
        """Read the first events, so that a failure before them can be told by a status. Raises PointsmanError."""
        self._first = await self._read()

    async def send(self, client: TgiClient, stream: TgiEventStream | None) -> None:
        """Write the events as they come. Raises PointsmanError."""
        stream = stream or client.tgi_stream()
        timing = self._client.timing
        timing.first_event_at = timing.received_at
        data = self._first
        while data:
            await stream.pass_on(data)
            data = await self._read()
        self._check_end(client)
        self._reply.release()
        self._done = True
        await stream.finish(b"")

    def close(self) -> None:
        """Stop the engine's work, if it is not done."""
        if not self._done:
            self._reply.close()

    @abstractmethod
    async def _read(self) -> bytes:
        """Return the next events, at the end none. Raises PointsmanError."""

    @abstractmethod
    def _check_end(self, client: TgiClient) -> None:
        """See that the stream came to its end. Raises PointsmanError."""

    @abstractmethod
    def worked(self) -> Usage | None:
        """Return the engine's own figures; until they have come, an event is a token (see `OpenAnswer`)."""
