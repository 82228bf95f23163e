"""Server-sent events (WHATWG HTML, section 9.2): bytes, split anywhere, to payloads, and payloads to bytes.

Of an event its data is used, and whether its name is `error`; comments (the engines' keep-alives) are dropped, and a
byte order mark before the first event. An event larger than LIMIT bytes is refused, so that a faulty engine cannot
fill the memory.

A body that begins as a JSON object does is no event stream, whatever its content type: so answers an engine that
ignores `stream`. It is kept whole, as `document`.
"""

from collections.abc import Iterable

DONE = b"[DONE]"
LIMIT = 64 * 2**20
BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event grew beyond LIMIT bytes without ending."""


class ErrorPayload(bytes):
    """The payload of an event whose name is `error`."""


class EventReader:
    """Splits a byte stream into the payloads of its events.

    `feed` takes the bytes of one read, which may end inside a line or a character, and returns the payloads that
    are complete by then, in order. Several `data` lines of one event are joined by line feeds.
    """

    def __init__(self) -> None:
        self._begun = False  # whether it is settled that this is an event stream
        self._is_document = False
        self._pieces: list[bytes] = []  # of an incomplete event; joined only once it may be complete
        self._size = 0
        self._after_cr = False  # the last read ended in a CR: if the next begins with an LF, the two are one line end

    def feed(self, data: bytes) -> list[bytes]:
        """Take the bytes of one read; return the payloads of the events that they complete. Raises EventTooLarge."""
        if not self._begun:
            data = self._begin(data)
        if b"\r" in data or self._after_cr:
            data = self._fold(data)
        if not self._pieces and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads):  # only events of one line, the usual case
                return payloads
        if not data:
            return []
        if self._pieces:
            seam = self._pieces[-1][-1:] + data
            if b"\n\n" not in seam:
                self._keep(data)
                return []
            data = b"".join([*self._pieces, data])
            self._clear()
        *events, rest = data.split(b"\n\n")
        if rest:
            self._keep(rest)
        return [payload for event in events if (payload := _payload(event)) is not None]

    @property
    def holds(self) -> bool:
        """Whether it holds bytes for which the next ones matter."""
        return bool(self._pieces) or not self._begun

    @property
    def partial(self) -> bool:
        """Whether an event is incomplete; at the end of a stream: whether the stream was cut off."""
        return any(piece.strip() for piece in self._pieces)

    @property
    def rest(self) -> bytes | None:
        """The payload of an event that lacks its blank line, for the end of a stream; None if there is none."""
        return None if self._is_document else _payload(b"".join(self._pieces).strip(b"\n"))

    @property
    def remains(self) -> bytes:
        """The bytes that no event has been made of."""
        return b"".join(self._pieces)

    @property
    def document(self) -> bytes | None:
        """The body so far, if it is a JSON object; None if it is an event stream."""
        return b"".join(self._pieces) if self._is_document else None

    def _begin(self, data: bytes) -> bytes:
        """Find out what the body is, by its first character; return what is to be read as events."""
        self._keep(data)
        if self._is_document:
            return b""
        head = b"".join(self._pieces)
        if len(head) < len(BOM) and BOM.startswith(head):
            return b""
        head = head.removeprefix(BOM)
        self._is_document = head.lstrip().startswith(b"{")
        if self._is_document or not head.strip():
            return b""
        self._begun = True
        self._clear()
        return head

    def _fold(self, data: bytes) -> bytes:
        """Return the data with CRLF and CR replaced by LF. Payloads are not changed: JSON has no raw CR."""
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._size += len(data)
        if self._size > LIMIT:
            raise EventTooLarge(f"an event of more than {LIMIT} bytes")
        self._pieces.append(data)

    def _clear(self) -> None:
        self._pieces.clear()
        self._size = 0


def _payload(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = event.split(b"\n")
    values = [_value(line) for line in lines if line.startswith(b"data:")]
    if not values:
        return None
    named = [_value(line) for line in lines if line.startswith(b"event:")]
    payload = b"\n".join(values)
    return ErrorPayload(payload) if named[-1:] == [b"error"] else payload


def _value(line: bytes) -> bytes:
    value = line.partition(b":")[2]
    return value[1:] if value.startswith(b" ") else value


def event(payload: bytes) -> bytes:
    """Return one event as bytes."""
    return b"data: " + payload + b"\n\n"


def events(payloads: Iterable[bytes]) -> bytes:
    """Return several events as bytes."""
    return b"".join([event(payload) for payload in payloads])
