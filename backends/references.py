"""Resolves references in JSON Schemas (JSON Schema 2020-12, section 8.2), which TGI does not follow."""

from itertools import count
from typing import Any
from urllib.parse import unquote

MAX_DEPTH = 32
MAX_VALUES = 20_000  # in the result: nested references grow exponentially


class Unresolvable(ValueError):
    """A reference has no target, points outside the schema, or is recursive."""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with each `$ref` replaced by what it names. Raises Unresolvable."""
    plain = {name: value for name, value in schema.items() if name not in ("$defs", "definitions")}
    done: dict[str, Any] = _Resolver(schema).resolve(plain, 0)
    return done


class _Resolver:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._values = count(1)

    def resolve(self, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH or next(self._values) > MAX_VALUES:
            raise Unresolvable("the schema is recursive or too large")
        if isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if isinstance(reference, str):
            beside = {name: inner for name, inner in value.items() if name != "$ref"}
            return self.resolve(_named(reference, self._root) | beside, depth + 1)
        return {name: self.resolve(inner, depth + 1) for name, inner in value.items() if name != "$defs"}


def _named(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    if not reference.startswith("#"):
        raise Unresolvable(f"{reference} is not in the schema")
    found: Any = root
    for step in filter(None, reference[1:].split("/")):
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise Unresolvable(f"{reference} is not in the schema")
        found = found[name]
    if not isinstance(found, dict):
        raise Unresolvable(f"{reference} is not a schema")
    return found
