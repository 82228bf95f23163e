"""What two answers have in common when their texts differ: keys and types, kinds of events in order, reasons."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

# Strings that are the dialect's own words; an id's drawn part is masked.
_WORDS = ("object", "role", "type", "model", "owned_by", "system_fingerprint", "version", "router", "status", "id")
_DRAWN = re.compile(r"[0-9a-f]{16,}")
_KEYED_BY_DATA = ("top_logprobs", "prompt_logprobs")  # objects whose keys are tokens


def shape(value: Any, key: str = "") -> Any:
    """Keys and types of a JSON value, and the dialect's own words; runs of equal shapes in a list are one."""
    if isinstance(value, dict):
        if key in _KEYED_BY_DATA and "token" not in value:
            return {"…": _runs(map(shape, value.values()))}
        return {name: shape(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return _runs(shape(inner, key) for inner in value)
    if isinstance(value, str) and key in _WORDS:
        return _DRAWN.sub("#", value)
    return type(value).__name__


def events(body: bytes) -> list[Any]:
    """The events of a stream: JSON where it is, with the event's name; else the text. A comment is an event too."""
    return [_event(part) for part in body.decode(errors="replace").split("\n\n") if part]


def _event(part: str) -> Any:
    name, _, data = part.partition("data: ")
    try:
        return json.loads(data) | ({"event": name} if name else {})
    except ValueError:
        return part


def stream_shape(body: bytes) -> list[Any]:
    """The kinds of events, in order, runs of one kind collapsed."""
    return _runs(event if isinstance(event, str) else shape(event) for event in events(body))


def _runs(values: Iterable[Any]) -> list[Any]:
    return [kind for kind, _ in groupby(values)]


def finish_reasons(value: Any) -> list[Any]:
    """Every `finish_reason` that is one, in order."""
    return list(_reasons(value))


def _reasons(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if value.get("finish_reason"):
            yield value["finish_reason"]
        value = value.values()
    if not isinstance(value, str | int | float | None):
        for inner in value:
            yield from _reasons(inner)
