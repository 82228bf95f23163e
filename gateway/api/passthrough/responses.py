"""How a stream of Responses fails: by an event of its own (OpenAI API reference, "Responses", "Streaming events").

The reference has the error's fields in the event itself; OpenAI's SDKs raise where there is an object `error`. Both are
there: a client that reads events finds what it knows, and one that does not is not handed half an answer.
"""

import re

import msgspec

from gateway.http.client import Client
from gateway.http.errors import PointsmanError
from gateway.http.sse import RawEventStream

_NUMBER = re.compile(rb'"sequence_number"\s*:\s*(\d+)')
_encode = msgspec.json.Encoder().encode


class ResponsesEventStream(RawEventStream):
    """A stream of Responses: its events are numbered, the error too."""

    _numbered = b""  # the last of what went out that had a number

    async def pass_on(self, data: bytes) -> None:
        """Write what came of the engine."""
        if b'"sequence_number"' in data:
            self._numbered = data
        await super().pass_on(data)

    def error_event(self, error: PointsmanError) -> bytes:
        """Return an error as an event; its number is the next."""
        numbers = _NUMBER.findall(self._numbered)
        code = error.code or error.type
        told = {"message": error.message, "type": error.type, "param": error.param, "code": code}
        flat = {"code": code, "message": error.message, "param": error.param}
        number = int(numbers[-1]) + 1 if numbers else 0
        body = _encode({"type": "error"} | flat | {"sequence_number": number, "error": told})
        return b"event: error\ndata: " + body + b"\n\n"


class ResponsesClient(Client):
    """Whoever sent one request for a response, and is answered once; whole errors are OpenAI's."""

    def raw_stream(self, kind: bytes) -> RawEventStream:
        """Return the stream that passes an engine's events on."""
        return self._open(ResponsesEventStream(self._context, self._send, self._clock, kind))
