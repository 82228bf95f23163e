"""Server-sent events (WHATWG HTML, section 9.2): bytes, split anywhere, to payloads, and payloads to bytes.

Only the field `data` is used; comments (the engines' keep-alives) are dropped. An event larger than LIMIT bytes is
refused, so that a faulty engine cannot fill the memory.
"""

from collections.abc import Iterable

DONE = b"[DONE]"
LIMIT = 64 * 2**20


class EventTooLarge(ValueError):
    """An event grew beyond LIMIT bytes without ending."""


class EventReader:
    """Splits a byte stream into the payloads of its events.

    `feed` takes the bytes of one read, which may end inside a line or a character, and returns the payloads that
    are complete by then, in order. Several `data` lines of one event are joined by line feeds.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of an incomplete event; joined only once it may be complete
        self._size = 0
        self._after_cr = False  # the last read ended in a CR: if the next begins with an LF, the two are one line end

    def feed(self, data: bytes) -> list[bytes]:
        """Take the bytes of one read; return the payloads of the events that they complete. Raises EventTooLarge."""
        if b"\r" in data or self._after_cr:
            data = self._fold(data)
        if not self._pieces and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads):  # only events of one line, the usual case
                return payloads
        if self._pieces:
            seam = self._pieces[-1][-1:] + data
            if b"\n\n" not in seam:
                self._keep(data)
                return []
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
            self._size = 0
        *events, rest = data.split(b"\n\n")
        if rest:
            self._keep(rest)
        return [payload for event in events if (payload := _payload(event)) is not None]

    @property
    def partial(self) -> bool:
        """Whether an event is incomplete; at the end of a stream: whether the stream was cut off."""
        return any(piece.strip() for piece in self._pieces)

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


def _payload(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [_value(line) for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value.startswith(b" ") else value


def event(payload: bytes) -> bytes:
    """Return one event as bytes."""
    return b"data: " + payload + b"\n\n"


def events(payloads: Iterable[bytes]) -> bytes:
    """Return several events as bytes."""
    return b"".join([event(payload) for payload in payloads])
