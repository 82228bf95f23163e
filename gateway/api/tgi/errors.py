"""How TGI tells of errors (CONTRACT.md 4.4, 5): each error class says its form there (`http.errors.TgiForm`).

What its router says before it has read a request is plain text, the rest `{"error", "error_type"}`, which in a stream
is an event behind a status of 200.
"""

from dataclasses import dataclass

from backends.inbound.tgi import serde
from backends.inbound.tgi import translate as inbound
from backends.sse import event
from gateway.http.body import JSON
from gateway.http.errors import InvalidRequest, PointsmanError, TgiForm

TEXT = b"text/plain; charset=utf-8"
OWN_STATUSES = frozenset({400, 413, 415, 422, 424, 429, 500})  # by which TGI itself says what is wrong


class Misread(InvalidRequest):
    """A body that TGI's router does not read: its words, in plain text."""

    def __init__(self, rejected: serde.Rejected) -> None:
        super().__init__(rejected.text)
        self.tgi = TgiForm(rejected.status, plain=True)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An error as TGI tells it; `event` is the same in a stream, where there can be one."""

    status: int
    body: bytes
    kind: bytes
    event: bytes = b""


def render(error: PointsmanError) -> Rendered:
    """Return how TGI tells an error."""
    form = error.tgi
    status, words = form.status or error.status, form.words.replace("{}", error.message)
    if form.plain:
        return Rendered(status, words.encode(), TEXT)
    body = inbound.error(words, form.error_type or error.type)
    return Rendered(status, body, JSON, event(body))
