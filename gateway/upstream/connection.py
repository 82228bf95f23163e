"""One connection to an engine, over which one request after the other is sent (RFC 9112, 9.3)."""

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.http.errors import UpstreamBroken, UpstreamMalformed, UpstreamReset
from gateway.upstream.answer import HttpAnswer, Malformed

LARGE = 65536  # bytes of a body, from which on it is not copied behind its head


class Connection(asyncio.Protocol):
    """One connection. `name` is the engine's, for errors.

    `free` is told when it may be used for another request, `gone` when it is closed. `idle_since` is by the event
    loop's clock, in seconds.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        free: "Callable[[Connection], None]",
        gone: "Callable[[Connection], None]",
    ) -> None:
        self.lost = False
        self.idle_since = 0.0
        self._name = name
        self._loop = loop
        self._free = free
        self._gone = gone
        self._transport: Any = None
        self._answer: HttpAnswer | None = None  # that is being read

    @property
    def busy(self) -> bool:
        """Whether an answer is being read."""
        return self._answer is not None

    def ask(self, head: bytes, body: bytes, expects_body: bool) -> HttpAnswer:
        """Send a request; return its answer, of which nothing has come yet."""
        answer = self._answer = HttpAnswer(self, self._loop, expects_body)
        if self.lost:
            answer.fail(self._reset())
        elif len(body) < LARGE:
            self._transport.write(head + body)
        else:
            self._transport.writelines([head, body])
        return answer

    def abandon(self, answer: HttpAnswer) -> None:
        """Close the connection, if that answer still comes: for an engine, that cancels the work."""
        if self._answer is answer:
            self._answer = None
            self.abort()

    def finish(self, answer: HttpAnswer, within: float) -> None:
        """Wait for the rest of an answer, of which nothing is wanted, for so many seconds; then it is abandoned."""
        if self._answer is answer:
            answer.discard()
            self._loop.call_later(within, self.abandon, answer)

    def close(self) -> None:
        """Close it, as nothing is in flight."""
        self.lost = True
        self._transport.close()

    def abort(self) -> None:
        """Close it at once, if it has been made."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    # --- the transport tells --------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Note the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on in the answer. An engine that sends what was not asked for is not listened to."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        try:
            answer.feed(data)
        except Malformed as malformed:
            self._answer = None
            if answer.complete:  # and it is what comes behind that is wrong
                answer.end()
            else:
                message = f"The engine {self._name} does not speak HTTP as expected ({malformed})."
                answer.fail(UpstreamMalformed(message))
            self.abort()
            return
        if answer.complete:
            self._end(answer)

    def _end(self, answer: HttpAnswer) -> None:
        self._answer = None
        answer.flow_on()
        if self._transport.get_write_buffer_size():  # the engine has not read all of the request, and will not
            self.abort()
        elif answer.keep_alive and not self.lost:
            self._free(self)
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits for an answer."""
        self.lost = True
        self._gone(self)
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if answer.until_close and exc is None:
            answer.end()
            return
        cut = f"The engine {self._name} closed the connection before the answer was complete."
        answer.fail(UpstreamBroken(cut) if answer.received else self._reset())

    def _reset(self) -> UpstreamReset:
        return UpstreamReset(f"The engine {self._name} closed the connection without an answer.")

    def pause_reading(self) -> None:
        """Read no more for now: the client does not take it."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()
