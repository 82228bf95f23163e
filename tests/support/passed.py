"""What engines say on Responses' and Anthropic's paths, and what a client reads of it."""

import json
from typing import Any, NamedTuple

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
ASKED = {"model": "tiny", "input": "x", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
STREAMED = ASKED | {"stream": True}


class Heard(NamedTuple):
    """An event as a client reads it (WHATWG HTML, section 9.2): its name, and its data as JSON."""

    name: str
    data: Any


def event(kind: str, **fields: Any) -> bytes:
    """Write a named event, as both APIs have them."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()


def heard(body: bytes) -> list[Heard]:
    """Read a stream by the letter of the standard: what has no blank line behind it is no event."""
    found, name, data = [], "", list[str]()
    for line in body.decode().splitlines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                found.append(Heard(name, json.loads("\n".join(data))))
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return found


def response(identity: str = "resp_1", status: str = "completed", **fields: Any) -> dict[str, Any]:
    """A response of an engine's, as far as anybody looks at it."""
    usage = {"input_tokens": 12, "output_tokens": 4, "total_tokens": 16} if status == "completed" else None
    head = {"id": identity, "object": "response", "model": "tiny", "status": status, "error": None}
    return head | {"previous_response_id": None, "usage": usage} | fields


CREATED = event("response.created", response=response(status="in_progress"), sequence_number=0)
PIECE = event("response.output_text.delta", delta="hi", item_id="msg_1", sequence_number=1)
COMPLETED = event("response.completed", response=response(), sequence_number=2)

BEGUN = {"id": "m", "type": "message", "model": "tiny", "usage": {"input_tokens": 12, "output_tokens": 0}}
STARTED = event("message_start", message=BEGUN)
TEXT = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "hi"})
LAST = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"input_tokens": 12, "output_tokens": 4})
STOPPED = event("message_stop")
