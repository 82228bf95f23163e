"""A line of recorded traffic to the request in it, whatever it was recorded by. Pure.

Taken are: the bare body; {"path", "body"}; OpenAI's batch lines {"method", "url", "body"}; and any record that has
such a thing, or the body, under "request". A body may be JSON or a text that holds JSON.
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct

from backends.problem import UNREADABLE

CHAT = "chat"
TEXT = "text"
NATIVE = "native"  # TGI's own API

_BY_PATH = (("/chat/completions", CHAT), ("/completions", TEXT), ("/generate", NATIVE), ("/generate_stream", NATIVE))
_BY_FIELD = (("messages", CHAT), ("prompt", TEXT), ("inputs", NATIVE))
_DEEPEST = 3

_object = msgspec.json.Decoder(dict[str, Raw])


class UnreadableRecord(ValueError):
    """There is no request in a line; the message says why."""


class Recorded(Struct, frozen=True):
    """A request: its surface (or "" for a path that only passes through the gateway), its path and its body."""

    surface: str
    path: str
    body: bytes


def read(line: bytes) -> Recorded:
    """Return the request of a line. Raises UnreadableRecord."""
    return _read(_fields(line, "the line"), line, "", 0)


def _fields(data: bytes, what: str) -> dict[str, Raw]:
    try:
        data.decode()
        return _object.decode(data)
    except UnicodeDecodeError as error:
        raise UnreadableRecord(f"{what} is not UTF-8") from error
    except msgspec.ValidationError as error:
        raise UnreadableRecord(f"{what} is no JSON object") from error
    except UNREADABLE as error:
        raise UnreadableRecord(f"{what} is not JSON") from error


def _read(fields: dict[str, Raw], whole: bytes, path: str, depth: int) -> Recorded:
    path = _text(fields, "path") or _text(fields, "url") or path
    inner = next((name for name in ("request", "body") if name in fields), None)
    if inner is None or depth == _DEEPEST or any(name in fields for name, _ in _BY_FIELD):
        return _recorded(fields, whole, path)
    method = _text(fields, "method")
    if method and method.upper() != "POST":
        raise UnreadableRecord(f"a {method[:10]} has no body to judge")
    data = bytes(fields[inner])
    if data.startswith(b'"'):
        data = msgspec.json.decode(data, type=str).encode()
    return _read(_fields(data, f'"{inner}"'), data, path, depth + 1)


def _text(fields: dict[str, Raw], name: str) -> str:
    try:
        return msgspec.json.decode(fields[name], type=str) if name in fields else ""
    except UNREADABLE:
        return ""


def _recorded(fields: dict[str, Raw], body: bytes, path: str) -> Recorded:
    try:
        path = urlsplit(path).path.rstrip("/")
    except ValueError:
        path = ""
    surface = next((kind for end, kind in _BY_PATH if path.endswith(end)), "")
    if not surface and path.count("/") <= 1:
        surface = next((kind for name, kind in _BY_FIELD if name in fields), "")
    if not surface and not path:
        raise UnreadableRecord("neither messages, prompt nor inputs in it")
    return Recorded(surface, path, body)


def value(body: bytes) -> dict[str, Any]:
    """Return a body as Python values; only its fields are looked at by the facts."""
    found = msgspec.json.decode(body)
    return found if isinstance(found, dict) else {}
