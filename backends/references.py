"""JSON Schemas with their references resolved (JSON Schema 2020-12, section 8.2): TGI does not follow them."""

from typing import Any

MOST_DEPTH = 32


class Unresolvable(ValueError):
    """A reference leads nowhere, elsewhere, or back to itself."""


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with each `$ref` replaced by what it names. Raises Unresolvable."""
    done = _resolve(schema, schema, 0)
    return {name: value for name, value in done.items() if name not in ("$defs", "definitions")}


def _resolve(value: Any, root: dict[str, Any], depth: int) -> Any:
    if depth > MOST_DEPTH:
        raise Unresolvable("the schema refers to itself")
    if isinstance(value, list):
        return [_resolve(item, root, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str):
        beside = {name: inner for name, inner in value.items() if name != "$ref"}
        value = _named(reference, root) | beside
        return _resolve(value, root, depth + 1)
    return {
        name: inner if name in ("$defs", "definitions") else _resolve(inner, root, depth + 1)
        for name, inner in value.items()
    }


def _named(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    if not reference.startswith("#"):
        raise Unresolvable(f"{reference} is not in the schema")
    found: Any = root
    for step in filter(None, reference[1:].split("/")):
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise Unresolvable(f"{reference} is not in the schema")
        found = found[name]
    if not isinstance(found, dict):
        raise Unresolvable(f"{reference} is no schema")
    return found
