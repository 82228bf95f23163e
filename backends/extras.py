"""Reads an engine's JSON as one of OpenAI's types without losing the fields that no type names.

An engine's event nearly always holds only known fields: then it is one decode into a Struct. Otherwise the
rest is set aside, and laid over what is written for the client: nulls are dropped, everything else passes
(vLLM's own parameters bring such fields). Three never pass: `stop_reason`, `routed_experts` and
`system_fingerprint` tell one engine from another.
"""

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, UnsetType

from backends.base import Completion, Event

NEVER = frozenset({"stop_reason", "routed_experts", "system_fingerprint"})

T = TypeVar("T", bound=Struct)


class Shape:
    """The names that a Struct type knows, and the Shape of those that hold Structs themselves."""

    def __init__(self, kind: msgspec.inspect.StructType) -> None:
        self.names = {field.encode_name: _shape(field.type) for field in kind.fields}

    def split(self, value: dict[str, Any]) -> dict[str, Any]:
        """Take out of `value` what has no name here; return it, nested as it was."""
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

    `decode` is the fast road, for JSON that holds nothing else; `read` takes any.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self.decode = msgspec.json.Decoder(kind).decode
        described = msgspec.inspect.type_info(kind)
        assert isinstance(described, msgspec.inspect.StructType)
        self._shape = Shape(described)

    def read(self, data: bytes) -> tuple[T, dict[str, Any]]:
        """Return the typed view and the fields beside it. Raises msgspec.DecodeError if it is not of the kind."""
        try:
            return self.decode(data), {}
        except msgspec.ValidationError:
            value = msgspec.json.decode(data)
            if not isinstance(value, dict):
                raise
            extra = self._shape.split(value)
            return msgspec.convert(value, self._kind), extra


def merge_extra(below: Struct, extra: dict[str, Any]) -> dict[str, Any]:
    """Return `below` as a dict with the extra fields put back where they were."""
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
    """Whether a field that may be UNSET or None holds something."""
    return value is not None and not isinstance(value, UnsetType)


def with_extra(completion: Completion) -> Event:
    """Return a whole answer with its engine's fields that no type names."""
    return merge_extra(completion.answer, completion.extra) if completion.extra else completion.answer
