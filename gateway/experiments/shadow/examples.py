"""What is kept of two answers that differ: enough to see how, and nothing of what they say unless that is asked for."""

from hashlib import sha256
from typing import Any

import msgspec

from backends.base import Call
from gateway.experiments.answers import Difference, DifferenceKind, SaidAnswer

AROUND = 160  # characters before and after the place where they part


def example(
    client: SaidAnswer, other: SaidAnswer, difference: Difference, kind: DifferenceKind, call: Call, clear: bool
) -> str:
    """Return an example as JSON: offsets, lengths and hashes; the texts about the place if they may be clear."""
    told: dict[str, Any] = {
        "kind": kind,
        "offset": difference.offset,
        "at_risk": difference.at_risk,
        "unit": difference.unit,
        "client": _told(client, difference.offset, clear),
        "shadow": _told(other, difference.offset, clear),
        "created": call.created,
    }
    return msgspec.json.encode(told).decode()


def _told(answer: SaidAnswer, offset: int, clear: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "characters": len(answer.text),
        "sha256": sha256(answer.text.encode(errors="surrogatepass")).hexdigest()[:16],
        "finish": answer.finish,
        "calls": len(answer.calls),
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
    }
    if clear:
        told["before"] = answer.text[max(offset - AROUND, 0) : offset]
        told["after"] = answer.text[offset : offset + AROUND]
        told["called"] = [[call.name, call.arguments[:AROUND]] for call in answer.calls]
    return told
