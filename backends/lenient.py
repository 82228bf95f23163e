"""Requests as clients write them, in the words of `backends.schema`: what engines take for the same is made the same.

Two things differ. A null means that a field is absent (`without_nulls`). And vLLM takes other values for those that its
types name (`coerced`): it reads them in pydantic's lax mode (pydantic, "Conversion Table"), where `512.0`, `"512"` and
`true` are integers, and it takes strings, and images without a type, for parts of a message. Both return what they were
given, the same object, where there is nothing to change, and neither raises: what has no meaning at all stays as it is,
for the schema to name.
"""

import re
from collections.abc import Callable, Iterable
from functools import partial
from math import isfinite
from typing import Any

import msgspec
from msgspec import Raw, inspect

from backends import problem

NULL = b"null"
# Of these vLLM answers a field also where they are null: `backends.named` looks for them (CONTRACT.md 3.1).
ANSWERED = frozenset({"prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids"})
# The fields that hold messages, parts and tools. In all others a null inside is a value like any other.
NESTED = ("messages", "tools", "tool_choice", "functions", "function_call", "response_format", "stream_options")
DATA = frozenset({"arguments", "parameters", "schema", "value"})  # whose nulls are the client's own
CONTENT = "content"  # null beside a call, which is OpenAI's own form, and every engine takes

_NULL_FIELD = re.compile(rb'(?<!"content"):\s*null\b')
_INTEGER = re.compile(r"\s*([+-]?\d+(?:_\d+)*)(?:\.0*)?\s*")
_TRUE, _FALSE = frozenset({"1", "on", "t", "true", "y", "yes"}), frozenset({"0", "off", "f", "false", "n", "no"})
_INT64 = 2**63

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


# --- nulls ------------------------------------------------------------------------------------------------


def without_nulls(body: dict[str, Raw]) -> dict[str, Raw]:
    """Return a body without the fields that are null, in its messages, parts and tools too; those in ANSWERED stay."""
    kept = {name: value for name, value in body.items() if bytes(value) != NULL or name in ANSWERED}
    changed = len(kept) != len(body)
    for name in kept.keys() & set(NESTED):
        if _NULL_FIELD.search(kept[name]) and (bare := _changed(kept[name], _bare)) is not None:
            kept[name], changed = bare, True
    return kept if changed else body


def _changed(written: Raw, convert: Callable[[Any], Any]) -> Raw | None:
    """Return a field's value converted, as JSON; None if that changes nothing, or the value cannot be read."""
    try:
        value = _decode(written)
        made = convert(value)
        return None if made is value else Raw(_encode(made))
    except problem.UNREADABLE:
        return None


def _bare(value: Any) -> Any:
    """Return a value without its null fields, at any depth but in DATA; a null among a list's items stays."""
    if isinstance(value, dict):
        kept = {name: _kept(name, inner) for name, inner in value.items() if inner is not None or name == CONTENT}
        same = len(kept) == len(value) and _alike(kept.values(), value.values())
        return value if same else kept
    if isinstance(value, list):
        items = [_bare(item) for item in value]
        return value if _alike(items, value) else items
    return value


def _kept(name: str, value: Any) -> Any:
    return value if name in DATA else _bare(value)


def _alike(new: Iterable[Any], old: Iterable[Any]) -> bool:
    """Whether two rows hold the same objects."""
    return all(one is other for one, other in zip(new, old, strict=True))


# --- types ------------------------------------------------------------------------------------------------


def coerced(body: dict[str, Raw], view: type[msgspec.Struct]) -> dict[str, Raw]:
    """Return a body whose fields have the types that `view` names, where pydantic would convert them to those."""
    described = inspect.type_info(view)
    assert isinstance(described, inspect.StructType)
    read = [(field.encode_name, body.get(field.encode_name), field.type) for field in described.fields]
    made = {
        name: _changed(written, partial(_converted, name, kind)) for name, written, kind in read if written is not None
    }
    changed = {name: written for name, written in made.items() if written is not None}
    return body | changed if changed else body


def _converted(name: str, kind: inspect.Type, value: Any) -> Any:
    return _read(PLAIN[name](value) if name in PLAIN else value, kind)


def _read(value: Any, kind: inspect.Type) -> Any:
    """Return a value as one of a type; itself, if it is one already or cannot be."""
    match kind:
        case inspect.UnionType():
            return _read_union(value, kind)
        case inspect.StructType() if isinstance(value, dict):
            types = {field.encode_name: field.type for field in kind.fields}
            return _mapped(value, lambda name, inner: _read(inner, types[name]) if name in types else inner)
        case inspect.DictType() if isinstance(value, dict):
            return _mapped(value, lambda _, inner: _read(inner, kind.value_type))
        case inspect.ListType() if isinstance(value, list):
            items = [_read(item, kind.item_type) for item in value]
            return value if _alike(items, value) else items
    convert = _SCALARS.get(type(kind))
    return value if convert is None else convert(value)


def _mapped(value: dict[str, Any], convert: Callable[[str, Any], Any]) -> dict[str, Any]:
    made = {name: convert(name, inner) for name, inner in value.items()}
    return value if _alike(made.values(), value.values()) else made


def _read_union(value: Any, kind: inspect.UnionType) -> Any:
    """Return a value as the first of several types that it can be; a text stays one where a text is among them."""
    if isinstance(value, str) and any(isinstance(one, inspect.StrType) for one in kind.types):
        return value
    read = (_read(value, one) for one in kind.types)
    return next((made for made in read if made is not value), value)


def _integer(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _INT64:
        return int(value)
    found = _INTEGER.fullmatch(value) if isinstance(value, str) and len(value) < 40 else None
    return int(found[1]) if found else value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return float(value)
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return value
    return number if isinstance(number, float) and isfinite(number) else value


def _truth(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else "1" if value == 1 else "0" if value == 0 else ""
    return True if word in _TRUE else False if word in _FALSE else value


_SCALARS: dict[type[inspect.Type], Callable[[Any], Any]] = {
    inspect.IntType: _integer,
    inspect.FloatType: _number,
    inspect.BoolType: _truth,
}


# --- messages and schemas ---------------------------------------------------------------------------------

MEDIA = ("image_url", "image_embeds", "audio_url", "audio_embeds", "input_audio", "video_url", "video_embeds")


def _plain_messages(messages: Any) -> Any:
    if not isinstance(messages, list):
        return messages
    plain = [_plain_message(message) if isinstance(message, dict) else message for message in messages]
    return messages if _alike(plain, messages) else plain


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose parts are objects with a type, and whose calls have a type and arguments as text."""
    plain: dict[str, Any] = {}
    for name, convert in (("content", _plain_part), ("tool_calls", _plain_call)):
        value = message.get(name)
        if isinstance(value, list):
            items = [convert(item) for item in value]
            if not _alike(items, value):
                plain[name] = items
    return message | plain if plain else message


def _plain_part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, dict) and "type" not in part:
        kind = next((name for name in MEDIA if name in part), None)
        return part if kind is None else part | {"type": kind}
    return part


def _plain_call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments", {})
    if isinstance(arguments, dict):  # TGI's form
        return call | {"type": "function", "function": function | {"arguments": _encode(arguments).decode()}}
    return call if "type" in call else call | {"type": "function"}


def _plain_format(wanted: Any) -> Any:
    """Return a `response_format` whose schema has a name: TGI needs none, and vLLM does nothing with it."""
    schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict) or "name" in schema:
        return wanted
    return wanted | {"json_schema": {"name": "schema"} | schema}


PLAIN: dict[str, Callable[[Any], Any]] = {"messages": _plain_messages, "response_format": _plain_format}
