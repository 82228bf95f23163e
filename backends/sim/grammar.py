"""The least text that a grammar admits: an instance of a JSON schema, a match of a regular expression. Pure.

A real engine would have its model choose among all admitted texts; a simulator writes the shortest plain one.
"""

import json
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Schema = Mapping[str, Any]
_parser: Any = import_module("re._parser")  # the standard library's own reading of a pattern; it has no public name
_LETTERS = "sab0 -" + "".join(map(chr, (*range(33, 127), 10, *range(160, 0x3000))))  # in order of preference
_CATEGORIES = {
    f"CATEGORY_{negation}{name}": rf"\{letter}"
    for name, lower in (("DIGIT", "d"), ("WORD", "w"), ("SPACE", "s"))
    for negation, letter in (("", lower), ("NOT_", lower.upper()))
}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def compact(value: object) -> str:
    """JSON without blanks, in the characters themselves."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def unknown_type(schema: object) -> str | None:
    """The first `type` in a schema that is none of JSON's, if there is one."""
    if isinstance(schema, list):
        return next(filter(None, map(unknown_type, schema)), None)
    if not isinstance(schema, dict):
        return None
    named = schema.get("type")
    if isinstance(named, str) and named not in _TYPES:
        return named
    return unknown_type([value for value in schema.values() if isinstance(value, dict | list)])


def instance(schema: object) -> Any:
    """The least JSON value that fits a schema."""
    return _instance(schema, schema if isinstance(schema, dict) else {})


def _instance(schema: object, root: Schema) -> Any:
    if not isinstance(schema, dict):
        return {}
    if "$ref" in schema:
        return _instance(_resolve(schema["$ref"], root), root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for several in ("anyOf", "oneOf"):
        if schema.get(several):
            return _instance(schema[several][0], root)
    if schema.get("allOf"):
        return _instance({key: value for part in schema["allOf"] for key, value in part.items()}, root)
    kind = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "object")
    return _LEAST.get(kind[0] if isinstance(kind, list) else kind, _object)(schema, root)


def _resolve(reference: str, root: Schema) -> object:
    place: Any = root
    for name in reference.removeprefix("#").strip("/").split("/"):
        place = place.get(name, {}) if name else place
    return place


def _object(schema: Schema, root: Schema) -> dict[str, Any]:
    required = schema.get("required", ())
    return {name: _instance(part, root) for name, part in schema.get("properties", {}).items() if name in required}


def _array(schema: Schema, root: Schema) -> list[Any]:
    return [_instance(schema.get("items", {}), root) for _ in range(schema.get("minItems", 0))]


def _string(schema: Schema, _: Schema) -> str:
    if "pattern" in schema:
        return match_of(schema["pattern"])
    text = "signal".ljust(schema.get("minLength", 0), "s")
    return text[: schema.get("maxLength", len(text))]


def _number(schema: Schema, _: Schema) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    return min(low, schema.get("maximum", low), schema.get("exclusiveMaximum", low + 1) - 1)


_LEAST: dict[object, Callable[[Schema, Schema], object]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _number,
    "number": _number,
    "boolean": lambda *_: True,
    "null": lambda *_: None,
}


def match_of(pattern: str) -> str:
    """A short text that the pattern matches; re.error where it is none."""
    return _sequence(_parser.parse(pattern))


def _sequence(nodes: Any) -> str:
    return "".join(_node(str(op), argument) for op, argument in nodes)


def _node(op: str, argument: Any) -> str:
    match op:
        case "LITERAL":
            return chr(argument)
        case "IN":
            return next(letter for letter in _LETTERS if _admits(argument, letter))
        case "ANY" | "NOT_LITERAL":
            return next(letter for letter in _LETTERS if ord(letter) != argument)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return _sequence(argument[2]) * int(argument[0])
        case "SUBPATTERN" | "ATOMIC_GROUP":
            return _sequence(argument[-1] if op == "SUBPATTERN" else argument)
        case "BRANCH":
            return _sequence(argument[1][0])
    return ""  # anchors and look-arounds


def _admits(items: Any, letter: str) -> bool:
    """Whether a set of characters has this one."""
    wanted = str(items[0][0]) != "NEGATE"
    return any(_is(str(op), argument, letter) for op, argument in items) == wanted


def _is(op: str, argument: Any, letter: str) -> bool:
    if op == "CATEGORY":
        return re.match(_CATEGORIES.get(str(argument), "."), letter) is not None
    low, high = argument if op == "RANGE" else (argument, argument)
    return op != "NEGATE" and low <= ord(letter) <= high
