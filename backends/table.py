"""The table of parameters as the README shows it: `python -m backends.table` prints it, and a test compares."""

import sys
from itertools import groupby
from typing import Any

import msgspec

from backends.parameters import CHAT, TEXT, Parameter, Support
from backends.schema import ChatRequest, CompletionRequest


def as_markdown() -> str:
    """Return the table, a row a parameter; those that nothing is to be said of share a row."""
    rows = ["| parameter | on | type and range | vLLM | TGI | how |", "| --- | --- | --- | --- | --- | --- |"]
    every = {**{name: CHAT[name] for name in CHAT}, **{name: TEXT[name] for name in TEXT if name not in CHAT}}
    ranges = _ranges(CompletionRequest) | _ranges(ChatRequest)
    for name, row in every.items():
        if not _is_shared(row) and name in CHAT:
            rows.append(_row(name, _on(name), ranges.get(name, ""), row))
    texts = _ranges(CompletionRequest)
    for name, row in TEXT.items():
        if not _is_shared(row) and CHAT.get(name) != row:
            rows.append(_row(name, "completions", texts.get(name, ""), row))
    shared = sorted((row for row in every.values() if _is_shared(row)), key=_ways)
    for _, alike in groupby(shared, key=_ways):
        some = list(alike)
        rows.append(_row("`, `".join(row.name for row in some), "both", "", some[0]))
    rows.append("| any other | both | | same | unsupported | |")
    return "\n".join(rows) + "\n"


def _row(name: str, on: str, kind: str, row: Parameter) -> str:
    return f"| `{name}` | {on} | {kind} | {row.vllm.value} | {row.tgi.value} | {row.note} |"


def _on(name: str) -> str:
    return "both" if TEXT.get(name) == CHAT[name] else "chat"


def _is_shared(row: Parameter) -> bool:
    """Whether a row is one of many that say the same."""
    return row.vllm is Support.NEUTRAL or row.name.startswith("guided_") or _is_plain_extension(row)


def _is_plain_extension(row: Parameter) -> bool:
    return row.vllm is Support.SAME and row.tgi is Support.NONE and not row.note and row.name != "reasoning_effort"


def _ways(row: Parameter) -> tuple[str, str, str]:
    return row.vllm.value, row.tgi.value, row.note


def _ranges(view: type[msgspec.Struct]) -> dict[str, str]:
    (_,), components = msgspec.json.schema_components([view])
    properties = components[view.__name__]["properties"]
    return {name: _words(schema) for name, schema in properties.items()}


def _words(schema: dict[str, Any]) -> str:
    """Return a JSON schema in a word or two."""
    options = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return " or ".join(filter(None, map(_word, options)))


def _word(one: dict[str, Any]) -> str:
    kind = one.get("type", "object" if "$ref" in one else "")
    low, high = one.get("minimum"), one.get("maximum")
    if isinstance(high, int | float) and abs(high) < 2**31:
        return f"{kind} {low:g} to {high:g}"
    if low is not None and low > -(2**31):
        return f"{kind} from {low:g}"
    least, most = one.get("minItems"), one.get("maxItems")
    return f"{kind} of at most {most}" if most else f"{kind} of at least {least}" if least else kind


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
