"""What engines say when something is wrong, and the events of a TGI's stream, as they are on the wire."""

from typing import Any

import msgspec

BUSY = {"error": {"message": "The engine is currently busy", "type": "Service Unavailable", "param": None, "code": 503}}
DEAD = {
    "error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": 500}
}
TGI_BUSY = {"error": "Model is overloaded", "error_type": "overloaded"}
TGI_FAILED = {"error": "Request failed during generation: Server error: transport error", "error_type": "generation"}
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """Write an event of a stream."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def tgi_chunk(finish: str | None = None) -> bytes:
    """Write an event of a TGI's chat stream."""
    delta = {"role": "assistant", "content": "a"}
    return event({"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], "usage": None})


TGI_CHUNK = tgi_chunk()

FAILED = {"error": {"message": "EngineCore died", "type": "InternalServerError", "param": None, "code": 500}}
WRONG = {"error": {"message": "no such thing", "type": "BadRequestError", "param": None, "code": 400}}
