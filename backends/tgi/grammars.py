"""Structured output in TGI's form (CONTRACT.md 2.1 "response_format", 2.4).

TGI takes a JSON schema whose root has `properties`, or a regular expression. It does not follow references, so they
are resolved. "Any JSON object" becomes a regular expression of bounded depth.
"""

import re
from typing import Any

import msgspec

from backends.references import Unresolvable, resolved
from backends.schema import ResponseFormat

Grammar = dict[str, Any]

JSON_DEPTH = 1  # of nested objects: each level makes the expression, and its compilation, four times larger


def of_format(wanted: ResponseFormat) -> Grammar | None:
    """Return TGI's grammar for a response format, None if there is none. TGI's own forms are not changed."""
    if wanted.value is not None:
        return {"type": wanted.type, "value": wanted.value}
    if wanted.type == "json_object":
        return {"type": "regex", "value": json_object(JSON_DEPTH)}
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        schema = _schema(wanted.json_schema.schema)
        return schema and {"type": "json_schema", "value": {"name": wanted.json_schema.name, "schema": schema}}
    return None


def of_outputs(wanted: dict[str, Any]) -> Grammar | None:
    """Return TGI's grammar for vLLM's `structured_outputs`, None if there is none."""
    given = {name: value for name, value in wanted.items() if value is not None}
    match given:
        case {"regex": str(expression), **rest} if not rest:
            return {"type": "regex", "value": expression}
        case {"choice": [_, *_] as choices, **rest} if not rest and all(isinstance(one, str) for one in choices):
            return {"type": "regex", "value": "(" + "|".join(re.escape(one) for one in choices) + ")"}
        case {"json": schema, **rest} if not rest:
            found = _schema(_parsed(schema))
            return found and {"type": "json", "value": found}
    return None


def for_vllm(wanted: ResponseFormat) -> tuple[str, dict[str, Any]]:
    """Return vLLM's field, and its value, for a response format in one of TGI's own forms."""
    if wanted.type == "regex":
        return "structured_outputs", {"regex": wanted.value}
    value = _parsed(wanted.value)
    named = wanted.type == "json_schema" and isinstance(value, dict) and "schema" in value
    schema = value if named else {"schema": value}
    return "response_format", {"type": "json_schema", "json_schema": schema | {"name": schema.get("name") or "answer"}}


def json_object(depth: int) -> str:
    """Return a regular expression for JSON objects with nested objects and arrays up to this depth."""
    text = r'"([^"\\\x00-\x1F\x7F-\x9F]|\\["\\])*"'
    number = r"((-)?(0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-][0-9]+)?"

    def value(depth: int) -> str:
        nested = f"|{obj(depth - 1)}|{array(depth - 1)}" if depth > 0 else ""
        return f"({text}|{number}|(true|false)|null{nested})"

    def obj(depth: int) -> str:
        member = f"{text}[ ]?:[ ]?{value(depth)}"
        return rf"\{{[ ]?({member}([ ]?,[ ]?{member})*)?[ ]?\}}"

    def array(depth: int) -> str:
        return rf"\[[ ]?({value(depth)}([ ]?,[ ]?{value(depth)})*)?[ ]?\]"

    return obj(depth)


def _schema(schema: Any) -> dict[str, Any] | None:
    """Return the schema with its references resolved, or None if TGI cannot take it."""
    if not isinstance(schema, dict):
        return None
    try:
        plain = resolved(schema)
    except Unresolvable:
        return None
    return plain if isinstance(plain.get("properties"), dict) else None


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return None
