"""A small fast server in an engine's place: `python -m loadtests.upstream --port 8000 --events 64`.

No engine and no simulator: it answers every request at once with the same words, so that what stands in front of it is
all that takes time. A stream's events are written in one go. Serves `/v1/models`, `/health` and whatever is asked as
chat.
"""

import argparse
import asyncio
import json
from typing import Any

MODEL = "bench"
LISTED = {
    "object": "list",
    "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "loadtests", "max_model_len": 32768}],
}


def answer(events: int) -> dict[str, Any]:
    """Return a whole answer of so many tokens."""
    usage = {"prompt_tokens": 8, "completion_tokens": events, "total_tokens": 8 + events}
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * events}, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }


def stream(events: int) -> bytes:
    """Return a stream of so many events with text, its usage, and its end."""
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    text = chunk | {
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}]
    }
    last = chunk | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = chunk | {"choices": [], "usage": answer(events)["usage"]}
    said = [json.dumps(event) for event in (*[text] * events, last, usage)]
    return "".join(f"data: {event}\n\n" for event in (*said, "[DONE]")).encode()


def whole(body: bytes, kind: str = "application/json") -> bytes:
    """Return a response with its head."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Upstream(asyncio.Protocol):
    """A connection: reads requests as they come, and answers each from what was written down before."""

    def __init__(self, events: int) -> None:
        self._whole = whole(json.dumps(answer(events)).encode())
        self._stream = whole(stream(events), "text/event-stream")
        self._listed = whole(json.dumps(LISTED).encode())
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer all requests that are complete."""
        self._read += data
        while request := self._next():
            head, body = request
            if head.startswith(b"GET"):
                self._transport.write(self._listed)
            else:
                self._transport.write(self._stream if json.loads(body or b"{}").get("stream") else self._whole)

    def _next(self) -> tuple[bytes, bytes] | None:
        """Take the next request from what was read: its head and its body."""
        head, end, rest = self._read.partition(b"\r\n\r\n")
        if not end:
            return None
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            body, last, after = rest.partition(b"0\r\n\r\n")
            if not last:
                return None
            self._read = after
            return head, b"".join(body.split(b"\r\n")[1::2])
        size = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < size:
            return None
        self._read = rest[size:]
        return head, rest[:size]


async def serve(port: int, events: int) -> None:
    """Serve until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(events), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--events", type=int, default=64, help="tokens of an answer, events of a stream")
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.events))


if __name__ == "__main__":
    main()
