"""Anthropic's errors, whole and as events, and its sign of life (Anthropic API reference, "Errors", "Streaming").

Its SDKs raise on `event: error`, skip `event: ping`, and say nothing of an event without a name.
"""

from collections.abc import Iterable

import msgspec

from gateway.http.body import JSON
from gateway.http.client import Client, encoded
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.http.headers import Headers
from gateway.http.sse import RawEventStream

PREFIX = "/v1/messages"

TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# The same the other way round, for what an engine says. 529 is Anthropic's own status for what is 503 elsewhere.
STATUSES = {kind: status for status, kind in TYPES.items() if status != 529} | {
    "invalid_request_error": 400,
    "api_error": 500,
}

_encode = msgspec.json.Encoder().encode


class Told(msgspec.Struct):
    """What an error says."""

    type: str
    message: str


class _Envelope(msgspec.Struct, tag_field="type", tag="error"):
    error: Told


_own = msgspec.json.Decoder(_Envelope)


def error_body(error: PointsmanError, request_id: str) -> bytes:
    """Return an error in Anthropic's envelope; one that an engine has told in it keeps the engine's words."""
    kind = TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    told = engines_own(error) or Told(kind, error.message)
    return _encode({"type": "error", "error": told, "request_id": request_id})


def engines_own(error: PointsmanError) -> Told | None:
    """Return what an engine itself has said, if it was of one of Anthropic's types."""
    if error.passthrough_body is None:
        return None
    try:
        told = _own.decode(error.passthrough_body.body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return told if told.type in STATUSES else None


def unrouted_body(path: str, error: PointsmanError, request_id: str) -> bytes:
    """Return an error of a path that nothing is mounted at, in the words of those who ask for such paths."""
    return error_body(error, request_id) if path.startswith(PREFIX) else error.body()


class AnthropicEventStream(RawEventStream):
    """A stream of Anthropic's: its errors are events with their name, and so is its silence."""

    keep_alive = b'event: ping\ndata: {"type": "ping"}\n\n'

    def own_headers(self) -> Headers:
        """Return the header in which Anthropic's SDKs look for the request's id."""
        return [request_id(self._context)]

    def error_event(self, error: PointsmanError) -> bytes:
        """Return an error as an event."""
        return b"event: error\ndata: " + error_body(error, self._context.request_id) + b"\n\n"


class AnthropicClient(Client):
    """Whoever sent one request of Anthropic's API, and is answered once."""

    def raw_stream(self, kind: bytes) -> RawEventStream:
        """Return the stream that passes an engine's events on."""
        return self._open(AnthropicEventStream(self._context, self._send, self._clock, kind))

    async def respond(
        self, status: int, body: bytes, kind: bytes = JSON, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send a whole answer."""
        await super().respond(status, body, kind, [*headers, request_id(self._context)])

    async def _refuse(self, error: PointsmanError) -> None:
        await self.respond(error.status, error_body(error, self._context.request_id), headers=encoded(error.headers))


def request_id(context: RequestContext) -> tuple[bytes, bytes]:
    """Return the header in which Anthropic's SDKs look for the request's id."""
    return b"request-id", context.request_id.encode()
