"""Reads an engine's error body, whichever of its shapes it has (contract section 5).

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
_DUMPED = re.compile(r"'loc': '(?P<loc>[^']*)', 'msg': (?P<quote>['\"])(?P<msg>.*?)(?P=quote), ")


class Problem(Struct):
    """What an error body says: its message, the parameter it blames, and the engine's name for the kind."""

    message: str = ""
    param: str | None = None
    kind: str = ""


def read(body: bytes) -> Problem:
    """Read any error body. What cannot be read is an empty problem."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return Problem(_plain(body))
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
        return f"{_path(first['loc'])}: {first['msg']}" if first else _DUMP.sub("", message).strip()
    return _PARAMETER.sub("", message)


def _path(param: object) -> str | None:
    if not isinstance(param, str):
        return None
    return param.removeprefix("body.").split(".", 1)[0] or None


def _plain(body: bytes) -> str:
    text = body[:500].decode(errors="replace").strip()
    return "" if text.startswith("<") else text
