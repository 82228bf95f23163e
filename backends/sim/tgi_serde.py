"""What TGI's router says of a body that does not fit its structs: serde's words, with line and column. Table-driven.

Types are strict (`"3"` is no number) and the first fault in the body's own order is the one that is told.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from backends.sim.grammar import compact

_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"[ \t\r\n]*")


class Rejected(Exception):
    """A body that is no JSON (400) or not the JSON that was expected (422); both are told as text/plain."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Node(Struct):
    """A JSON value and where it stands: the column before it, and the one at its end."""

    value: Any
    start: int
    end: int
    members: "list[tuple[str, int, Node]]"  # of an object: key, the column at the key's end, value
    items: "list[Node]"


class Wrong(Exception):
    """A fault at a place: the path of fields to it, what is wrong, and the column."""

    def __init__(self, path: str, words: str, column: int) -> None:
        super().__init__(f"{path}: {words}" if path else words)
        self.column = column


Check = Callable[[str, Node], None]


def parse(raw: bytes, fields: "dict[str, Check]", required: str, struct: str) -> dict[str, Any]:
    """The body as a dict, or Rejected. What comes behind the JSON value is not looked at."""
    text = raw.decode(errors="replace")
    try:
        node = _scan(text, 0)
    except ValueError:
        raise Rejected(400, f"Failed to parse the request body as JSON: {syntax(text)}") from None
    try:
        _struct(fields, required, struct)("", node)
    except Wrong as wrong:
        line = text.count("\n", 0, wrong.column) + 1
        column = len(text[: wrong.column].rpartition("\n")[2].encode())
        words = f"Failed to deserialize the JSON body into the target type: {wrong} at line {line} column {column}"
        raise Rejected(422, words) from None
    body: dict[str, Any] = node.value
    return body


def cut_short(text: str) -> str:
    """serde's words for a JSON text that ends too early."""
    opened, string, escaped, last = [], False, False, ""
    for letter in text:
        if string:
            escaped, string = letter == "\\" and not escaped, escaped or letter != '"'
        elif letter == '"':
            string = True
        elif letter in "[{":
            opened.append(letter)
        elif letter in "]}" and opened:
            opened.pop()
        last = last if letter.isspace() else letter
    inside = {"[": "a list", "{": "an object", "": "a value"}[opened[-1] if opened else ""]
    what = "a string" if string else "a value" if last in (":", ",") and last != "," else inside
    return (
        f"EOF while parsing {what} at line {text.count(chr(10)) + 1} column {len(text.rpartition(chr(10))[2].encode())}"
    )


def syntax(text: str) -> str:
    """serde's words for a text that is no JSON."""
    if text.strip() and text.strip()[0] not in '{["':
        return "expected ident at line 1 column 2"
    field = re.fullmatch(r'\s*\{.*"(\w+)"\s*:\s*[\[{][^\]}]*', text, re.DOTALL)
    return (f"{field[1]}: " if field else "") + cut_short(text)


def _scan(text: str, at: int) -> Node:
    start = _skip(text, at)
    if text[start : start + 1] not in ("{", "["):
        value, end = _DECODER.raw_decode(text, start)
        return Node(value, start, end, [], [])
    node = Node({} if text[start] == "{" else [], start, start + 1, [], [])
    closing = "}" if text[start] == "{" else "]"
    while text[_skip(text, node.end) :][:1] != closing:
        at = node.end if not (node.members or node.items) else _expect(text, node.end, ",")
        if closing == "}":
            key, at = _DECODER.raw_decode(text, _skip(text, at))
            child = _scan(text, _expect(text, at, ":"))
            node.members.append((key, at, child))
            node.value[key] = child.value
        else:
            child = _scan(text, at)
            node.items.append(child)
            node.value.append(child.value)
        node.end = child.end
    node.end = _skip(text, node.end) + 1
    return node


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _expect(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != mark:
        raise ValueError(at)
    return at + 1


def _said(node: Node) -> str:
    """A value in serde's words."""
    match node.value:
        case None:
            return "null"
        case bool():
            return f"boolean `{compact(node.value)}`"
        case int():
            return f"integer `{node.value}`"
        case float():
            return f"floating point `{node.value}`"
        case str():
            return f"string {compact(node.value)}"
        case dict():
            return "map"
    return "sequence"


def _type(path: str, node: Node, expected: str) -> Wrong:
    column = node.start if isinstance(node.value, dict | list) else node.end
    return Wrong(path, f"invalid type: {_said(node)}, expected {expected}", column)


def _unsigned(bits: int) -> Check:
    def check(path: str, node: Node) -> None:
        if type(node.value) is not int:
            raise _type(path, node, f"u{bits}")
        if not 0 <= node.value < 2**bits:
            raise Wrong(path, f"invalid value: {_said(node)}, expected u{bits}", node.end)

    return check


def _plain(kinds: tuple[type, ...], expected: str) -> Check:
    def check(path: str, node: Node) -> None:
        if type(node.value) not in kinds:
            raise _type(path, node, expected)

    return check


def _option(inner: Check) -> Check:
    def check(path: str, node: Node) -> None:
        if node.value is not None:
            inner(path, node)

    return check


def _list(inner: Check) -> Check:
    def check(path: str, node: Node) -> None:
        if not isinstance(node.value, list):
            raise _type(path, node, "a sequence")
        for index, item in enumerate(node.items):
            inner(f"{path}[{index}]", item)

    return check


def _struct(fields: dict[str, Check], required: str = "", name: str = "") -> Check:
    """An object with these fields; others are ignored, and `a|b` are two names of one."""
    names = {alias: key.partition("|")[0] for key in fields for alias in key.split("|")}
    checks = {key.partition("|")[0]: check for key, check in fields.items()}

    def check(path: str, node: Node) -> None:
        if isinstance(node.value, list):
            raise Wrong(path, f"invalid length {len(node.items)}, expected struct {name}", node.end)
        if not isinstance(node.value, dict):
            raise _type(path, node, f"struct {name.split(' ', maxsplit=1)[0]}")
        seen = set()
        for key, at, value in node.members:
            field = names.get(key)
            if field in seen:
                raise Wrong(path, f"duplicate field `{field}`", at)
            if field is not None:
                seen.add(field)
                checks[field](f"{path}.{key}" if path else key, value)
        for field in required.split():
            if field not in seen:
                raise Wrong(path, f"missing field `{field}`", node.end)

    return check


def _body_of_message(path: str, node: Node) -> None:
    """A message has a role, and content (text or parts), or tool calls."""
    _struct({"role": STRING}, "role", "Message")(path, node)
    content, calls = node.value.get("content"), node.value.get("tool_calls")
    parts = content if isinstance(content, list) else []
    known = all(isinstance(part, dict) and isinstance(part.get(_part_key(part)), str | dict) for part in parts)
    called = isinstance(calls, list) and all(_is_call(call) for call in calls)
    if not (isinstance(content, str | list) and known) and not called:
        raise Wrong(path, "data did not match any variant of untagged enum MessageBody", node.end)


def _part_key(part: dict[str, Any]) -> str:
    return {"text": "text", "image_url": "image_url"}.get(part.get("type", ""), "?")


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    return isinstance(function, dict) and {"id", "type"} <= call.keys() and {"name", "arguments"} <= function.keys()


def _grammar(path: str, node: Node) -> None:
    known = ("json", "json_object", "regex", "json_schema")
    _struct({"type": STRING}, "type", "GrammarType")(path, node)
    kind = next(value for key, _, value in node.members if key == "type")
    if kind.value not in known:
        expected = ", ".join(f"`{one}`" for one in known)
        raise Wrong(f"{path}.type", f"unknown variant `{kind.value}`, expected one of {expected}", kind.end)
    if "value" not in node.value:
        raise Wrong(path, "missing field `value`", node.end)


def _prompt(path: str, node: Node) -> None:
    if node.value == []:
        raise Wrong(path, "Empty array detected. Do not use an empty array for the prompt.", node.end)
    several = node.value if isinstance(node.value, list) else [node.value]
    if not all(isinstance(one, str) for one in several):
        raise Wrong(path, "data did not match any variant of untagged enum PromptDeserializer", node.end)


def _any(path: str, node: Node) -> None:
    """Whatever it is."""


STRING, BOOL, U32 = _plain((str,), "a string"), _plain((bool,), "a boolean"), _unsigned(32)
FLOAT, U64 = _option(_plain((int, float), "f32")), _option(_unsigned(64))
_STOPS = _list(STRING)
_FUNCTION = _struct({"arguments|parameters": _any, "name": STRING}, "arguments name", "FunctionDefinition")
_TOOL = _struct({"type": STRING, "function": _FUNCTION}, "type function", "Tool")
_SHARED: dict[str, Check] = {
    "temperature": FLOAT,
    "top_p": FLOAT,
    "frequency_penalty": FLOAT,
    "seed": U64,
}
CHAT = _SHARED | {
    "model": _option(STRING),
    "messages": _list(_body_of_message),
    "logit_bias": _option(_list(FLOAT)),
    "logprobs": _option(BOOL),
    "top_logprobs": _option(U32),
    "max_tokens|max_completion_tokens": _option(U32),
    "n": _option(U32),
    "presence_penalty": FLOAT,
    "stop": _option(_STOPS),
    "stream": BOOL,
    "stream_options": _struct({"include_usage": BOOL}, "", "StreamOptions"),
    "tools": _option(_list(_TOOL)),
    "tool_choice": _any,
    "response_format": _option(_grammar),
}
COMPLETION = _SHARED | {
    "model": _option(STRING),
    "prompt": _prompt,
    "max_tokens": _option(U32),
    "repetition_penalty": FLOAT,
    "stream": BOOL,
    "stop": _option(_STOPS),
    "suffix": _option(STRING),
}
PARAMETERS = _SHARED | {
    "best_of": _option(_unsigned(64)),
    "repetition_penalty": FLOAT,
    "top_k": _option(_plain((int,), "i32")),
    "typical_p": FLOAT,
    "do_sample": BOOL,
    "max_new_tokens": _option(U32),
    "return_full_text": _option(BOOL),
    "stop": _STOPS,
    "truncate": U64,
    "watermark": BOOL,
    "details": BOOL,
    "decoder_input_details": BOOL,
    "top_n_tokens": _option(U32),
    "grammar": _option(_grammar),
    "adapter_id": _option(STRING),
}
GENERATE: dict[str, Check] = {
    "inputs": STRING,
    "parameters": _struct(PARAMETERS, "", "GenerateParameters"),
    "stream": BOOL,
}
