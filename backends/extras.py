"""Reads an engine's JSON as one of OpenAI's types, as liberally as the SDKs, and keeps the fields that no type names.

Nearly every event holds only known fields, each as its type says, and is decoded into a Struct in one step. Otherwise
the unknown fields are kept apart and merged into the answer for the client (some of vLLM's own parameters add such
fields). Nulls are dropped, and so are `stop_reason`, `routed_experts` and the engine's own `system_fingerprint`, which
would reveal it. What is not as its type says is then mended (`backends.shapes`).
"""

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, UnsetType

from backends.base import Completion, Event
from backends.lenient_json import read_json
from backends.schema import ChatAnswer, ChatChunk, TextAnswer
from backends.shapes import Shape

T = TypeVar("T", bound=Struct)


class ExtrasReader(Generic[T]):
    """Reads JSON as `kind`, a Struct type that forbids unknown fields.

    `decode` is fast, and raises if anything is not as the type says; `read` and `convert` accept what SDKs accept.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self.decode = msgspec.json.Decoder(kind).decode
        self._shape = Shape.of(kind)

    def read(self, data: bytes) -> tuple[T, dict[str, Any]]:
        """Return the Struct and the unknown fields. Raises one of `problem.UNREADABLE` if it is no such JSON."""
        try:
            return self.decode(data), {}
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self.convert(read_json(data))

    def convert(self, value: Any) -> tuple[T, dict[str, Any]]:
        """Return likewise what decoded JSON says, which is changed. Raises msgspec.ValidationError."""
        extra = self._shape.split(value) if isinstance(value, dict) else {}
        try:
            return msgspec.convert(value, self._kind), extra
        except msgspec.ValidationError:
            if not isinstance(value, dict):
                raise
        self._shape.mend(value)
        return msgspec.convert(value, self._kind), extra


WHOLE_CHAT = ExtrasReader(ChatAnswer)
CHAT_CHUNK = ExtrasReader(ChatChunk)
WHOLE_TEXT = ExtrasReader(TextAnswer)  # chunks, too


def merge_extra(below: Struct, extra: dict[str, Any]) -> dict[str, Any]:
    """Return `below` as a dict, with the extra fields back in their places."""
    value: dict[str, Any] = msgspec.to_builtins(below)
    _lay(value, extra)
    return value


def _lay(value: dict[str, Any], extra: dict[str, Any]) -> None:
    for name, more in extra.items():
        here = value.get(name)
        if isinstance(here, dict) and isinstance(more, dict):
            _lay(here, more)
        elif isinstance(here, list) and isinstance(more, list):
            for item, beside in zip(here, more, strict=False):
                if isinstance(beside, dict):
                    _lay(item, beside)
        else:
            value[name] = more


def is_set(value: object) -> bool:
    """Whether a field's value is neither UNSET nor None."""
    return value is not None and not isinstance(value, UnsetType)


def with_extra(completion: Completion) -> Event:
    """Return a complete answer with its extra fields merged in."""
    return merge_extra(completion.answer, completion.extra) if completion.extra else completion.answer
