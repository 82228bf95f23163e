"""Reads an engine's error body, whichever of its shapes it has (CONTRACT.md 5).

vLLM has four (an OpenAI-like object, a string, FastAPI's `detail`, nothing), TGI three (its own object, plain
text, nothing), and a proxy in between answers in HTML.
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
"""What reading an engine's JSON may raise."""


_LENGTH = re.compile(r"maximum context length is (\d+)")


class Problem(Struct):
    """What an error body says: its message, the parameter it blames, and the engine's name for the kind."""

    message: str = ""
    param: str | None = None
    kind: str = ""


def read(body: bytes) -> Problem:
    """Read any error body. What cannot be read is an empty problem."""
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE:
        return _plain(body)
    return read_value(value)


def read_value(value: Any) -> Problem:
    """Read an error that is already JSON, such as an event of a stream."""
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
    """Leave out what vLLM's messages say about its own code: pydantic's dumps, `(parameter=…)`."""
    if _DUMP.match(message):
        first = _DUMPED.search(message)
        if not first:
            return _DUMP.sub("", message).strip()
        where = _path(first["loc"])
        return f"{where}: {first['msg']}" if where else first["msg"]
    return _PARAMETER.sub("", message)


def _path(param: object) -> str | None:
    """Return the field at fault; the body as a whole, or a place in its bytes, is none."""
    if not isinstance(param, str):
        return None
    name = param.removeprefix("body.").split(".", 1)[0]
    return None if name in ("", "body") or name.isdigit() else name


def _plain(body: bytes) -> Problem:
    """Read plain text: what TGI's reader of JSON says, less the place in a body that the client never saw."""
    text = body[:500].decode(errors="replace").strip()
    if text.startswith("<"):
        return Problem()
    found = _SERDE.fullmatch(text)
    return Problem(found["said"], found["param"]) if found else Problem(text)


def context_length(message: str) -> int | None:
    """Return the context's length, in tokens, where a message names it."""
    named = _LENGTH.search(message)
    return int(named[1]) if named else None
