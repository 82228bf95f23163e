"""The client's side of TGI's own API: a whole answer, a stream, or an error, as TGI's router writes them."""

from gateway.api.tgi.errors import render
from gateway.http.client import Client, encoded
from gateway.http.errors import PointsmanError
from gateway.http.sse import RawEventStream

EVENTS = "text/event-stream"


class TgiEventStream(RawEventStream):
    """A stream of TGI's: its errors are events of its own, and so is its silence."""

    keep_alive = b":\n\n"

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error, if the client takes it within a moment."""
        await self._end_within_grace(render(error).event)


class TgiClient(Client):
    """Whoever sent one request of TGI's own API, and is answered once."""

    def tgi_stream(self) -> TgiEventStream:
        """Begin to be a stream: from now on errors are events."""
        self._context.streamed = True
        return self._open(TgiEventStream(self._context, self._send, self._clock, EVENTS.encode()))

    def note_failure(self, error: PointsmanError) -> None:
        """Note that the stream ended in an engine's own error, which the client has been passed."""
        self._context.failure = error

    async def fail(self, error: PointsmanError) -> None:
        """Tell of an error: as an event in a stream, which TGI begins before it knows of any."""
        form = render(error)
        if error.passthrough_body is not None and not self._context.status:
            await self._refuse(error)
        elif self._stream is not None and form.event:
            await self._stream.fail(error)
        elif not self._context.status:
            await self.respond(form.status, form.body, form.kind, encoded(error.headers))
