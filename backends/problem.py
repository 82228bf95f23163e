"""Reads an engine's error body, in any of its forms (CONTRACT.md 5).

vLLM has four (an OpenAI-like object, a string, FastAPI's `detail`, nothing), TGI three (its own object, plain
text, nothing), and a proxy in between may answer with HTML.
"""

import re
from typing import Any

import msgspec
from msgspec import Struct

CONTEXT = re.compile(r"maximum context length|reduce the length of the (input prompt|messages)")
_PARAMETER = re.compile(r" \((?:parameter|value)=.*\)$", re.DOTALL)
_DUMP = re.compile(r"^\d+ validation errors?:\n")
_SERDE = re.compile(
    r"Failed to (?:deserialize the JSON body into the target type|parse the request body as JSON): "
    r"(?:parameters\.)?(?P<said>(?:(?P<param>\w+)[\w.\[\]]*: )?.*?)(?: at line \d+ column \d+)?",
    re.DOTALL,
)
_DUMPED = re.compile(r"'loc': '(?P<loc>[^']*)', 'msg': (?P<quote>['\"])(?P<msg>.*?)(?P=quote), ")

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The exceptions that decoding an engine's JSON may raise."""


_LENGTH = re.compile(r"maximum context length is (\d+)")


class Problem(Struct):
    """The content of an error body: message, parameter at fault, and the engine's name for the kind of error."""

    message: str = ""
    param: str | None = None
    kind: str = ""


def read(body: bytes) -> Problem:
    """Read an error body of any form; return an empty Problem if it cannot be read."""
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE:
        return _plain(body)
    return read_value(value)


def read_value(value: Any) -> Problem:
    """Read an error from decoded JSON, such as a stream's event."""
    if not isinstance(value, dict):
        return Problem()
    error = value.get("error", value.get("detail", value))
    if isinstance(error, str):
        return Problem(clean(error), kind=str(value.get("error_type", "")))
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return Problem()
    param = error.get("param")
    return Problem(clean(error["message"]), _path(param), str(error.get("type", "")))


def clean(message: str) -> str:
    """Return the message without vLLM's internals: pydantic's dumps and `(parameter=…)`."""
    if _DUMP.match(message):
        first = _DUMPED.search(message)
        if not first:
            return _DUMP.sub("", message).strip()
        where = _path(first["loc"])
        return f"{where}: {first['msg']}" if where else first["msg"]
    return _PARAMETER.sub("", message)


def _path(param: object) -> str | None:
    """Return the field at fault; None if it is the whole body or a position in it."""
    if not isinstance(param, str):
        return None
    name = param.removeprefix("body.").split(".", 1)[0]
    return None if name in ("", "body") or name.isdigit() else name


def _plain(body: bytes) -> Problem:
    """Read a plain text error; of TGI's JSON errors, without the position in a body that the client never saw."""
    text = body[:500].decode(errors="replace").strip()
    if text.startswith("<"):
        return Problem()
    found = _SERDE.fullmatch(text)
    return Problem(found["said"], found["param"]) if found else Problem(text)


def context_length(message: str) -> int | None:
    """Return the context length, in tokens, that a message names; None if it names none."""
    named = _LENGTH.search(message)
    return int(named[1]) if named else None
