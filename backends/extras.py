"""Reads an engine's JSON as one of OpenAI's types and keeps the fields that no type names.

Nearly every event holds only known fields and is decoded into a Struct in one step. Otherwise the unknown fields are
kept apart and merged into the answer for the client (some of vLLM's own parameters add such fields). Nulls are
dropped, and so are `stop_reason`, `routed_experts` and the engine's own `system_fingerprint`, which would reveal it.
"""

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, UnsetType

from backends.base import Completion, Event

NEVER = frozenset({"stop_reason", "routed_experts", "system_fingerprint"})

T = TypeVar("T", bound=Struct)


class Shape:
    """The field names of a Struct type, each with the Shape of its own Struct type, if it has one."""

    def __init__(self, kind: msgspec.inspect.StructType) -> None:
        self.names = {field.encode_name: _shape(field.type) for field in kind.fields}

    def split(self, value: dict[str, Any]) -> dict[str, Any]:
        """Remove the unknown fields from `value`; return them, nested as they were."""
        extra: dict[str, Any] = {}
        for name in list(value):
            if name not in self.names:
                taken = value.pop(name)
                if taken is not None and name not in NEVER:
                    extra[name] = taken
            elif (inner := self.names[name]) and (below := _split(inner, value[name])):
                extra[name] = below
        return extra


def _split(shape: Shape, value: Any) -> Any:
    if isinstance(value, dict):
        return shape.split(value)
    if isinstance(value, list):
        below = [_split(shape, item) for item in value]
        return below if any(below) else None
    return None


def _shape(kind: msgspec.inspect.Type) -> Shape | None:
    if isinstance(kind, msgspec.inspect.StructType):
        return Shape(kind)
    if isinstance(kind, msgspec.inspect.ListType):
        return _shape(kind.item_type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((shape for member in kind.types if (shape := _shape(member))), None)
    return None


class ExtrasReader(Generic[T]):
    """Reads JSON as `kind`, a Struct type that forbids unknown fields.

    `decode` is fast and raises if there are unknown fields; `read` accepts them.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self.decode = msgspec.json.Decoder(kind).decode
        described = msgspec.inspect.type_info(kind)
        assert isinstance(described, msgspec.inspect.StructType)
        self._shape = Shape(described)

    def read(self, data: bytes) -> tuple[T, dict[str, Any]]:
        """Return the Struct and the unknown fields. Raises msgspec.DecodeError if the JSON is not of the kind."""
        try:
            return self.decode(data), {}
        except msgspec.ValidationError:
            value = msgspec.json.decode(data)
            if not isinstance(value, dict):
                raise
            extra = self._shape.split(value)
            return msgspec.convert(value, self._kind), extra


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
