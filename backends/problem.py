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
_BUSY = re.compile(
    r"overloaded\b|[\w' ]{0,40}\b(?:is|are) (?:currently |temporarily )?"
    r"(?:overloaded|(?:too )?busy|(?:at|over) capacity)\b",
    re.IGNORECASE,
)
# What engines and proxies call a status in words, by what the letters of the word contain.
_STATUS_WORDS = {
    503: ("overload", "unavailable", "capacity", "slowdown"),
    429: ("ratelimit", "toomanyrequests", "quota", "exhausted", "throttl"),
    404: ("notfound",),
    400: ("badrequest", "invalidrequest"),
}


class Problem(Struct):
    """The content of an error body: message, parameter at fault, and the engine's name for the kind of error.

    `status` is the HTTP status that the body itself names, by a number or in words, and 0 if it names none.
    """

    message: str = ""
    param: str | None = None
    kind: str = ""
    status: int = 0


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
        kind = str(value.get("error_type", ""))
        return Problem(clean(error), kind=kind, status=_status(value, kind, error))
    if not isinstance(error, dict):
        return Problem()
    message, kind = error.get("message"), str(error.get("type") or "")
    message = message if isinstance(message, str) else ""
    return Problem(clean(message), _path(error.get("param")), kind, _status(error, kind, message))


def clean(message: str) -> str:
    """Return the message without vLLM's internals: pydantic's dumps and `(parameter=…)`."""
    if _DUMP.match(message):
        first = _DUMPED.search(message)
        if not first:
            return _DUMP.sub("", message).strip()
        where = _path(first["loc"])
        return f"{where}: {first['msg']}" if where else first["msg"]
    return _PARAMETER.sub("", message)


def _status(error: dict[str, Any], kind: str, message: str) -> int:
    """Return the status that an error names; words for overload count more than a number, as TGI's is always 422."""
    if _BUSY.match(message):
        return 503
    codes = [error.get(name) for name in ("code", "http_status_code", "status_code", "status")]
    words = [_status_of_word(word) for word in (kind, *codes) if isinstance(word, str)]
    numbers = [int(code) for code in codes if isinstance(code, int) or (isinstance(code, str) and code.isdecimal())]
    named = [number for number in numbers if 400 <= number < 600]
    return next((status for status in (*named, *words) if status), 0)


def _status_of_word(word: str) -> int:
    letters = "".join(letter for letter in word.lower() if letter.isalpha())
    return next((status for status, parts in _STATUS_WORDS.items() if any(part in letters for part in parts)), 0)


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
    return Problem(found["said"], found["param"]) if found else Problem(text, status=_status({}, "", text))


def context_length(message: str) -> int | None:
    """Return the context length, in tokens, that a message names; None if it names none."""
    named = _LENGTH.search(message)
    return int(named[1]) if named else None
