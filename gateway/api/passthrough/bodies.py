"""A request's body on its way to an engine: what is read of it, and how it is written anew."""

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw

from backends.openai import raw
from gateway.http.errors import InvalidRequest
from gateway.proxy import parse

_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?')
_STREAM = re.compile(rb'name="stream"\r\n(?:[^\r\n]+\r\n)*\r\n\s*(?:true|1)\s*\r\n', re.IGNORECASE)
_encode = msgspec.json.Encoder().encode


class Body(msgspec.Struct, frozen=True):
    """A request's body. `head` is its beginning, by which replicas are told apart.

    `write` takes the engine's name for the model and, if the request goes on from a response, the engine's id of it.
    """

    model: str
    head: bytes
    write: Callable[[str, str], bytes]
    service_tier: Raw | None = None
    previous: str = ""  # the response that the request goes on from, as the client calls it
    streamed: bool = False


def json_body(data: bytes) -> Body:
    """Read a body of JSON. A null field is absent, as vLLM refuses many that clients send. Raises InvalidRequest."""
    fields = {field: value for field, value in parse.fields(data).items() if not parse.is_null(value)}

    def write(model: str, previous: str) -> bytes:
        goes_on = {"previous_response_id": raw(previous)} if previous else {}
        return _encode(fields | {"model": raw(model)} | goes_on)

    return Body(
        model=_text(fields, "model"),
        head=data,
        write=write,
        service_tier=fields.get("service_tier"),
        previous=_text(fields, "previous_response_id"),
        streamed=bytes(fields.get("stream", b"")) == b"true",
    )


def form_body(data: bytes, content_type: bytes) -> Body:
    """Read a multipart form (RFC 7578). Raises InvalidRequest."""
    boundary = _BOUNDARY.search(content_type)
    if not boundary:
        raise InvalidRequest("Content-Type must be multipart/form-data with its boundary.", "content-type")
    form = Form(data, boundary[1])
    return Body(form.model, b"", lambda model, _: form.render(model), streamed=_STREAM.search(data) is not None)


def _text(fields: dict[str, Raw], name: str) -> str:
    try:
        return msgspec.json.decode(fields[name], type=str) if name in fields else ""
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"Invalid '{name}': expected a string.", name) from error


class Form:
    """A multipart form, of which only the part called `model` is looked at."""

    def __init__(self, body: bytes, boundary: bytes) -> None:
        self._between = b"--" + boundary
        self._parts = body.split(self._between)
        heads = [part.partition(b"\r\n\r\n")[0] for part in self._parts]
        self._index = next((index for index, head in enumerate(heads) if b'name="model"' in head), None)

    @property
    def model(self) -> str:
        """The model's name; empty if there is none."""
        if self._index is None:
            return ""
        return self._parts[self._index].partition(b"\r\n\r\n")[2].strip().decode(errors="replace")

    def render(self, model: str) -> bytes:
        """Return the form with another name for the model."""
        parts = list(self._parts)
        if self._index is not None:
            head = parts[self._index].partition(b"\r\n\r\n")[0]
            parts[self._index] = head + b"\r\n\r\n" + model.encode() + b"\r\n"
        return self._between.join(parts)
