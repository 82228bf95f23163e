"""TGI's error messages for a body that it cannot read: serde's text, with path, line and column.

Used only after decoding with the types of `wire` has failed. A body that is not JSON is a 400, JSON of the wrong types
a 422; both are plain text (CONTRACT.md 5 "bad type", "malformed JSON"). Text after the JSON value is ignored, as TGI
does.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

DEEPEST = 127  # serde_json's own limit

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*')
_WORDS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}


class Rejected(Exception):
    """A body that TGI refuses: the HTTP status, and the error message as plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Fault(Exception):
    """An error in the body: the field's path, the message, and the position in characters."""

    def __init__(self, path: str, words: str, place: int) -> None:
        super().__init__(f"{path}: {words}" if path else words)
        self.place = place


class Node(Struct):
    """A JSON value with its start and end; its fields, each with the position where the name ends, or its items."""

    value: Any
    start: int
    end: int
    fields: "list[tuple[str, int, Node]]" = []
    items: "list[Node]" = []


Check = Callable[[str, Node], None]


def read(body: bytes, check: Check) -> Any:
    """Return the body's JSON value if it passes the check. Raises Rejected."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Rejected(400, _said("parse", body, "invalid unicode code point", error.start)) from error
    try:
        node = scan(text)
    except Fault as fault:
        raise Rejected(400, _said("parse", body, str(fault), _bytes(text, fault.place))) from fault
    try:
        check("", node)
    except Fault as fault:
        raise Rejected(422, _said("type", body, str(fault), _bytes(text, fault.place))) from fault
    return node.value


def _bytes(text: str, place: int) -> int:
    return len(text[:place].encode())


def _said(what: str, body: bytes, words: str, place: int) -> str:
    return f"Failed to {_HEADS[what]}: {words} at {_line_and_column(body[:place])}"


_HEADS = {"parse": "parse the request body as JSON", "type": "deserialize the JSON body into the target type"}


def _line_and_column(before: bytes) -> str:
    lines = before.split(b"\n")
    return f"line {len(lines)} column {len(lines[-1])}"


def syntax_fault(text: str) -> str | None:
    """Return serde's message, with line and column, if a text is not JSON; else None."""
    try:
        scan(text)
    except Fault as fault:
        return f"{fault} at {_line_and_column(text[: fault.place].encode())}"
    return None


# --- JSON, with positions --------------------------------------------------------------------------------------


def scan(text: str) -> Node:
    """Read the JSON value at the beginning of the text. Raises Fault."""
    return _value(text, 0, "", 0)


def _value(text: str, at: int, path: str, depth: int) -> Node:
    at = _skip(text, at)
    first = text[at : at + 1]
    if not first:
        raise Fault(path, "EOF while parsing a value", at)
    if first in "{[":
        if depth >= DEEPEST:
            raise Fault(path, "recursion limit exceeded", at + 1)
        read = _object if first == "{" else _list
        return read(text, at, path, depth + 1)
    if first == '"':
        end = _string(text, at, path)
        return Node(_unescaped(text[at:end], path, end), at, end)
    if first in _WORDS:
        return _word(text, at, path, *_WORDS[first])
    return _number(text, at, path)


def _object(text: str, start: int, path: str, depth: int) -> Node:
    node = Node({}, start, start, fields=[])
    here = f"{path}.?" if path else ""
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        if node.fields:
            at = _next(text, at, "}", "an object", here)
        if text[at : at + 1] != '"':
            raise Fault(here, *_expected(text, at, "key must be a string", "an object"))
        name_end = _string(text, at, here)
        colon = _skip(text, name_end)
        if text[colon : colon + 1] != ":":
            raise Fault(here, *_expected(text, colon, "expected `:`", "an object"))
        name = _unescaped(text[at:name_end], here, name_end)
        value = _value(text, colon + 1, _below(path, name), depth)
        node.fields.append((name, name_end, value))
        node.value[name] = value.value
        at = _skip(text, value.end)
    node.end = at + 1
    return node


def _list(text: str, start: int, path: str, depth: int) -> Node:
    node = Node([], start, start, items=[])
    at = _skip(text, start + 1)
    if at >= len(text):
        raise Fault(path, "EOF while parsing a list", at)
    while text[at : at + 1] != "]":
        if node.items:
            at = _next(text, at, "]", "a list", path)
        value = _value(text, at, path, depth)
        node.items.append(value)
        node.value.append(value.value)
        at = _skip(text, value.end)
    node.end = at + 1
    return node


def _next(text: str, at: int, closing: str, what: str, path: str) -> int:
    """Step over the comma between two members."""
    if text[at : at + 1] != ",":
        raise Fault(path, *_expected(text, at, f"expected `,` or `{closing}`", what))
    at = _skip(text, at + 1)
    if at >= len(text):
        raise Fault(path, "EOF while parsing a value", at)
    if text[at : at + 1] == closing:
        raise Fault(path, "trailing comma", at + 1)
    return at


def _expected(text: str, at: int, wanted: str, what: str) -> tuple[str, int]:
    return (wanted, at + 1) if at < len(text) else (f"EOF while parsing {what}", at)


def _string(text: str, at: int, path: str) -> int:
    """Return the position where the string ends."""
    found = _STRING.match(text, at)
    end = found.end() if found else at
    match text[end : end + 1]:
        case '"':
            return end + 1
        case "":
            raise Fault(path, "EOF while parsing a string", end)
        case "\\":
            raise Fault(path, "invalid escape", end + 2)
    raise Fault(path, "control character (\\u0000-\\u001F) found while parsing a string", end + 1)


def _unescaped(written: str, path: str, end: int) -> str:
    value: str = json.loads(written)
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise Fault(path, "lone leading surrogate in hex escape", end - 1)
    return value


def _word(text: str, at: int, path: str, word: str, value: Any) -> Node:
    for place, letter in enumerate(word, at):
        if place >= len(text):
            raise Fault(path, "EOF while parsing a value", place)
        if text[place] != letter:
            raise Fault(path, "expected ident", place + 1)
    return Node(value, at, at + len(word))


def _number(text: str, at: int, path: str) -> Node:
    found = _NUMBER.match(text, at)
    if found is None:
        raise Fault(path, *(("invalid number", at + 2) if text[at] == "-" else ("expected value", at + 1)))
    after = text[found.end() : found.end() + 1]
    if found[0] in ("0", "-0") and after.isdigit():
        raise Fault(path, "invalid number", found.end() + 1)
    if after and after in ".eE":
        raise Fault(path, "invalid number", found.end() + 2)
    value = json.loads(found[0])
    if isinstance(value, float) and math.isinf(value):
        raise Fault(path, "number out of range", found.end())
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        value = float(value)  # as serde reads it
    return Node(value, at, found.end())


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _below(path: str, name: str) -> str:
    """Return the path of a field: serde's paths are at most two names deep, as the request's types are."""
    if not path:
        return name
    return f"{path}.{name}" if path == "parameters" else path


# --- types ----------------------------------------------------------------------------------------------------


def plain(expected: str, *kinds: type) -> Check:
    """Return a check that a value is of one of these types."""

    def check(path: str, node: Node) -> None:
        if type(node.value) not in kinds:
            raise _type(path, node, expected)

    return check


def integer(expected: str, low: int, high: int) -> Check:
    """Return a check that a value is an integer from `low` to `high`."""

    def check(path: str, node: Node) -> None:
        if type(node.value) is not int:
            raise _type(path, node, expected)
        if not low <= node.value <= high:
            raise Fault(path, f"invalid value: {_words(node.value)}, expected {expected}", node.end)

    return check


def option(inner: Check) -> Check:
    """Return a check that also accepts null."""

    def check(path: str, node: Node) -> None:
        if node.value is not None:
            inner(path, node)

    return check


def several(inner: Check) -> Check:
    """Return a check of a list's items."""

    def check(path: str, node: Node) -> None:
        if not isinstance(node.value, list):
            raise _type(path, node, "a sequence")
        for place, item in enumerate(node.items):
            inner(f"{path}[{place}]", item)

    return check


def struct(name: str, fields: dict[str, Check], *required: str) -> Check:
    """Return a check of an object's fields, in the order in which they are sent; unknown fields are ignored."""

    def check(path: str, node: Node) -> None:
        if isinstance(node.value, list):  # serde could read it by position; not supported here
            raise Fault(
                path, f"invalid length {len(node.items)}, expected {name} with {len(fields)} elements", node.end
            )
        if not isinstance(node.value, dict):
            raise _type(path, node, name)
        seen = set()
        for field, place, value in node.fields:
            if field in seen:
                raise Fault(path, f"duplicate field `{field}`", place)
            if field in fields:
                seen.add(field)
                fields[field](f"{path}.{field}" if path else field, value)
        for field in required:
            if field not in seen:
                raise Fault(path, f"missing field `{field}`", node.end)

    return check


def tagged(name: str, kinds: dict[str, Check]) -> Check:
    """Return a check of an object whose `type` selects the check of its `value`."""

    def check(path: str, node: Node) -> None:
        if not isinstance(node.value, dict):
            raise _type(path, node, f"adjacently tagged enum {name}")
        there = {field: value for field, _, value in node.fields}
        for field in ("type", "value"):
            if field not in there:
                raise Fault(path, f"missing field `{field}`", node.end)
        kind = there["type"]
        plain("variant identifier", str)(f"{path}.type", kind)
        if kind.value not in kinds:
            known = ", ".join(f"`{one}`" for one in kinds)
            raise Fault(f"{path}.type", f"unknown variant `{kind.value}`, expected one of {known}", kind.end)
        kinds[kind.value](f"{path}.value", there["value"])

    return check


def anything(path: str, node: Node) -> None:
    """Accept any value."""


def _type(path: str, node: Node, expected: str) -> Fault:
    place = node.start if isinstance(node.value, dict | list) else node.end
    return Fault(path, f"invalid type: {_words(node.value)}, expected {expected}", place)


def _words(value: Any) -> str:
    """Return a value as serde's messages name it."""
    match value:
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{str(value).replace('e+', 'e')}`"
        case str():
            return f"string {json.dumps(value, ensure_ascii=False)}"
        case dict():
            return "map"
        case list():
            return "sequence"
    return "null"
