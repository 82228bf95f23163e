"""The fields of a Struct type, by which JSON that is not just as the type says is mended, as liberally as SDKs read.

What is missing or null has its default, a float that is an integer is one, and a field that does not matter to the
answer is dropped if its value is none of the type's. What matters is never guessed. Pure.
"""

from copy import copy
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from backends.lenient_json import TEXTS, read_json

NEVER = frozenset({"stop_reason", "routed_experts", "system_fingerprint"})  # they would reveal the engine

# The fields that a type requires, and what an engine means that leaves one out. A missing `index` is the place in the
# list. A whole answer without a `message` is none, but null is the empty message.
MISSING: dict[str, Any] = {
    "choices": [],
    "delta": {},
    "finish_reason": None,
    "function": {},
    "index": 0,
    "role": "assistant",
    "text": "",
}

# The fields that are the answer: a value that is none of theirs is not dropped, the answer cannot be read.
ANSWER = frozenset(
    {
        *("choices", "delta", "finish_reason", "function", "message", "tool_calls", "name", "arguments"),
        *("content", "reasoning", "reasoning_content", "refusal", "text", "generated_text", "token", "details"),
    }
)

T = TypeVar("T", bound=Struct)


class Field:
    """A field of a Struct type, and the Shape of its own Struct type, if it has one."""

    def __init__(self, told: msgspec.inspect.Field, kind: Any) -> None:
        self.name = told.encode_name
        self._kind = kind
        self.required = told.required
        self.nullable = _takes_null(told.type)
        self.shape = _shape(told.type)

    def mended(self, value: Any) -> Any:
        """Return a value, mended inside if it is a Struct's or a list of them; None if it is to be dropped."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        elif self.shape is not None:
            value = _mended_inside(value, self.shape)
        elif isinstance(value, dict | list):
            value = _as_text(self.name, value)
        return value if self.name in ANSWER or self._fits(value) else None

    def _fits(self, value: Any) -> bool:
        try:
            msgspec.convert(value, self._kind)
        except msgspec.ValidationError:
            return False
        return True


class Shape:
    """The fields of a Struct type by name."""

    def __init__(self, kind: msgspec.inspect.StructType) -> None:
        kinds = {field.encode_name: field.type for field in msgspec.structs.fields(kind.cls)}
        self.fields = {told.encode_name: Field(told, kinds[told.encode_name]) for told in kind.fields}

    @classmethod
    def of(cls, kind: type[Struct]) -> "Shape":
        """Return the Shape of a Struct type."""
        told = msgspec.inspect.type_info(kind)
        assert isinstance(told, msgspec.inspect.StructType)
        return cls(told)

    def split(self, value: dict[str, Any]) -> dict[str, Any]:
        """Remove the unknown fields from `value`, and nulls from its lists; return the fields, nested as they were."""
        extra: dict[str, Any] = {}
        for name in list(value):
            if name not in self.fields:
                taken = value.pop(name)
                if taken is not None and name not in NEVER:
                    extra[name] = taken
            elif (inner := self.fields[name].shape) and (below := _split(inner, value[name])):
                extra[name] = below
        return extra

    def mend(self, value: dict[str, Any], place: int = 0) -> None:
        """Make of `value` what its type can be read from, in place; `place` is its place in a list."""
        for name, field in self.fields.items():
            said = name in value
            given = field.mended(value.pop(name, None))
            if given is None and field.required and (said or name in MISSING):
                given = place if name == "index" else field.mended(copy(MISSING.get(name, {})))
            if given is not None or (field.nullable and (said or field.required)):
                value[name] = given


def _split(shape: Shape, value: Any) -> Any:
    if isinstance(value, dict):
        return shape.split(value)
    if isinstance(value, list):
        value[:] = [item for item in value if item is not None]
        below = [_split(shape, item) for item in value]
        return below if any(below) else None
    return None


def _mended_inside(value: Any, shape: Shape, place: int = 0) -> Any:
    if isinstance(value, dict):
        shape.mend(value, place)
    elif isinstance(value, list):
        items = [item for item in value if item is not None]
        return [_mended_inside(item, shape, place) for place, item in enumerate(items)]
    return value


def _as_text(name: str, value: Any) -> Any:
    """Return as a text what some engines have as JSON or in parts; the value itself if that cannot be."""
    if name == "arguments":
        return msgspec.json.encode(value).decode()
    if name not in TEXTS or not isinstance(value, list):
        return value
    texts = [part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "".join(texts) if len(texts) == len(value) else value


def _takes_null(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_takes_null(member) for member in kind.types)
    return isinstance(kind, msgspec.inspect.AnyType | msgspec.inspect.NoneType)


def _shape(kind: msgspec.inspect.Type) -> Shape | None:
    if isinstance(kind, msgspec.inspect.StructType):
        return Shape(kind)
    if isinstance(kind, msgspec.inspect.ListType):
        return _shape(kind.item_type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return next((shape for member in kind.types if (shape := _shape(member))), None)
    return None


class LenientDecoder(Generic[T]):
    """Reads JSON as `kind`, a Struct type. `decode` is fast, `convert` accepts what SDKs accept."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._shape = Shape.of(kind)
        self.decode = msgspec.json.Decoder(kind).decode

    def read(self, data: bytes) -> T:
        """Return the Struct. Raises one of `problem.UNREADABLE` if the JSON is not of the kind."""
        try:
            return self.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self.convert(read_json(data))

    def convert(self, value: Any) -> T:
        """Return what decoded JSON says, which is changed. Raises msgspec.ValidationError."""
        if isinstance(value, dict):
            self._shape.mend(value)
        return msgspec.convert(value, self._kind)
