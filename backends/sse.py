"""Server-sent events (WHATWG HTML, section 9.2): bytes in any split to payloads, and payloads to bytes.

Of the protocol's fields only `data` matters to the engines' chat streams; comments (TGI's and vLLM's
keep-alives) are dropped. An event that never ends is refused, so that an engine gone mad cannot fill memory.
"""

from collections.abc import Iterable

DONE = b"[DONE]"
LIMIT = 64 * 2**20


class EventTooLarge(ValueError):
    """An event grew beyond LIMIT bytes without ending."""


class EventReader:
    """Splits a byte stream into the payloads of its events.

    `feed` takes the bytes of one read, however they cut the stream (inside a line, inside a character), and
    returns the payloads that are whole by then, in order. A payload of several `data` lines comes joined by
    line feeds.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of an event that has not ended; joined only when it may have
        self._size = 0
        self._after_cr = False  # the last read ended in a CR: if the next begins with an LF, the two are one line end

    def feed(self, data: bytes) -> list[bytes]:
        """Take one read; return the payloads of the events that it completed."""
        if b"\r" in data or self._after_cr:
            data = self._fold(data)
        if not self._pieces and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads):  # nothing but events of one line, as nearly always
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
        """Whether an event has begun and not ended: at the end of a stream, that it was cut."""
        return any(piece.strip() for piece in self._pieces)

    def _fold(self, data: bytes) -> bytes:
        """Make CRLF and CR line ends LF. No payload is hurt: JSON has none of them raw."""
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
    """Write one event."""
    return b"data: " + payload + b"\n\n"


def events(payloads: Iterable[bytes]) -> bytes:
    """Write several events as one piece."""
    return b"".join([event(payload) for payload in payloads])
