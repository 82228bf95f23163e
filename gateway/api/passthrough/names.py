"""The client's name for the model, and for a response, in what an engine says."""

from collections.abc import Callable

import msgspec
from msgspec import Raw

from backends import problem
from backends.lenient_json import read_json
from backends.openai import raw

Fields = dict[str, Raw]

NESTED = ("response", "message")  # in which the events of `/v1/responses` and `/v1/messages` have their model
IDS = ("id", "previous_response_id")

_encode = msgspec.json.Encoder().encode
_fields = msgspec.json.Decoder(dict[str, Raw])


class Names:
    """What the client of one request calls things: functions of what the engine calls a model, and a response.

    Without `response_id` ids stay as they are: only Responses' lead anywhere.
    """

    def __init__(self, model: Callable[[str], str], response_id: Callable[[str], str] | None = None) -> None:
        named = {"model": model}
        self._named = named | dict.fromkeys(IDS, response_id) if response_id else named
        self._known: dict[tuple[str, bytes], Raw] = {}  # each stands in many events

    def put(self, fields: Fields) -> bool:
        """Put the client's names into an object, and the response or message in it; return whether it changed."""
        changed = False
        for name in self._named:
            own = bytes(fields.get(name, b""))
            if own.startswith(b'"') and (name != "id" or _is_response(fields)):
                fields[name] = self._clients(name, own)
                changed = changed or bytes(fields[name]) != own
        for name in NESTED:
            below = read(fields[name]) if bytes(fields.get(name, b"")).startswith(b"{") else None
            if below is not None and self.put(below):
                fields[name] = Raw(_encode(below))
                changed = True
        return changed

    def _clients(self, name: str, own: bytes) -> Raw:
        if (name, own) not in self._known:
            try:
                self._known[name, own] = raw(self._named[name](msgspec.json.decode(own, type=str)))
            except msgspec.DecodeError:
                return Raw(own)
        return self._known[name, own]


def _is_response(fields: Fields) -> bool:
    """Whether an object is a response, or the word of one that is deleted: by its kind, or by its id."""
    kind, own = bytes(fields.get("object", b"")), bytes(fields["id"])
    return kind.startswith(b'"response') or own.startswith(b'"resp_')


def read(data: bytes | Raw) -> Fields | None:
    """Return the fields of a JSON object; None if it is not one."""
    try:
        return _fields.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return _read_as_sdks(bytes(data))


def _read_as_sdks(data: bytes) -> Fields | None:
    """Return likewise what msgspec refuses and the SDKs read, such as a lone surrogate, which becomes U+FFFD."""
    try:
        value = read_json(data)
    except problem.UNREADABLE:
        return None
    return {name: Raw(_encode(own)) for name, own in value.items()} if isinstance(value, dict) else None


def write(fields: Fields) -> bytes:
    """Return the JSON of fields."""
    return _encode(fields)
