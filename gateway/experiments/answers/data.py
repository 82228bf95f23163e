"""Tool calls and JSON compared as data (P5): numbers by value, the order of keys ignored.

As in the K2 Vendor Verifier (MoonshotAI), it is first asked whether a tool was called at all, then which and how, and
whether the arguments keep to the request's schema.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.experiments.answers.said import CalledTool, SaidAnswer

UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}

Schema = Mapping[str, Any] | bool


class DataCheck(Struct, frozen=True):
    """What can be said of one answer by itself: whether it calls, and whether its data are valid; None: has none."""

    calls: bool
    valid: bool | None


def check_data(answer: SaidAnswer, tools: Mapping[str, Schema], json_schema: Schema | None) -> DataCheck:
    """Hold an answer against the request's tools (parameters by name) and its schema; `True` is any JSON."""
    calls = bool(answer.calls)
    if calls:
        return DataCheck(
            True, all(call.name in tools and _valid(call.arguments, tools[call.name]) for call in answer.calls)
        )
    return DataCheck(False, None if json_schema is None else _valid(answer.text, json_schema))


def same_data(one: SaidAnswer, other: SaidAnswer, as_json: bool) -> bool:
    """Whether two answers say the same as data: the same calls in the same order, or the same JSON."""
    if one.calls or other.calls:
        calls = zip(one.calls, other.calls, strict=False)
        return len(one.calls) == len(other.calls) and all(_same_call(mine, its) for mine, its in calls)
    return not as_json or one.text == other.text or _same_json(one.text, other.text)


def _same_call(one: CalledTool, other: CalledTool) -> bool:
    return one.name == other.name and (one.arguments == other.arguments or _same_json(one.arguments, other.arguments))


def _same_json(one: str, other: str) -> bool:
    try:
        return _same(msgspec.json.decode(one), msgspec.json.decode(other))
    except UNREADABLE:
        return False


def _same(one: Any, other: Any) -> bool:
    """Compare values; for Python, True is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _valid(text: str, schema: Schema) -> bool:
    try:
        return fits(msgspec.json.decode(text), schema)
    except UNREADABLE:
        return False


def fits(value: Any, schema: Schema) -> bool:
    """Whether a value keeps to a JSON schema: types, enum, const, properties, items, anyOf, oneOf and allOf.

    Other keywords (`$ref`, `pattern`, bounds) are not looked at: what they alone forbid counts as valid.
    """
    if isinstance(schema, bool):
        return schema
    if not _is_of(value, schema.get("type")) or value not in schema.get("enum", (value,)):
        return False
    if "const" in schema and not _same(value, schema["const"]):
        return False
    some = [schema[name] for name in ("anyOf", "oneOf") if name in schema]
    if not all(any(fits(value, one) for one in options) for options in some):
        return False
    if not all(fits(value, one) for one in schema.get("allOf", ())):
        return False
    return _object_fits(value, schema) if isinstance(value, dict) else _items_fit(value, schema)


def _is_of(value: Any, wanted: str | Sequence[str] | None) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    return names is None or any(_is(value, name) for name in names)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    whole = name == "integer" and isinstance(value, float) and value.is_integer()
    return whole or isinstance(value, _TYPES.get(name, (object,)))


def _object_fits(value: dict[str, Any], schema: Mapping[str, Any]) -> bool:
    known = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    has_all = all(name in value for name in schema.get("required", ()))
    return has_all and all(fits(one, known.get(name, more)) for name, one in value.items())


def _items_fit(value: Any, schema: Mapping[str, Any]) -> bool:
    return not isinstance(value, list) or all(fits(one, schema.get("items", True)) for one in value)
