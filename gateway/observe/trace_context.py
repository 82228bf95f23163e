"""Where a request stands in a trace: what its client says of it, and what the engine is told (W3C Trace Context, 1).

    traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
                 version, trace id, id of the caller's span, flags (1: sampled)

What is not valid is as good as absent, and its `tracestate` with it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.observe.trace_notes import Notes

TRACEPARENT = b"traceparent"
TRACESTATE = b"tracestate"
MAX_STATE = 512  # characters; more need not be passed on (3.3.1.5)
NO_TRACE, NO_SPAN, NO_VERSION = b"0" * 32, b"0" * 16, b"ff"

_parent = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_member = rb"[ \t]*([a-z0-9][a-z0-9_\-*/@]{0,255}=[ -+\--<>-~]{1,256})?"
_state = re.compile(_member + rb"(," + _member + rb"){0,31}")


@dataclass(slots=True, eq=False)
class Trace:
    """The trace of one request, which is `sampled` or not. Ids are numbers; a `parent` of 0 is none.

    `span` is the request's own. The span of its first try is the number after it, and so on: a try's id follows
    from its number, and needs no room. `notes` are what its spans will say, and None once they are made.
    """

    id: int = 0
    parent: int = 0
    span: int = 0
    sampled: bool = False
    state: str = ""
    notes: Notes | None = None

    @property
    def hex(self) -> str:
        """The trace's id as people read it; empty if the request has none."""
        return f"{self.id:032x}" if self.id else ""

    def try_span(self, number: int) -> int:
        """Return the id of the span of an attempt; the first has number 0."""
        return self.span + 1 + number

    def headers(self, number: int, engine: str) -> dict[str, str]:
        """Return what the engine is told in its try: that the try's span is the parent of its own.

        A TGI exports its spans whatever the flag says, and begins no trace without the header: where this trace is
        not sampled, it is not told of it.
        """
        if engine == "tgi" and not self.sampled:
            return {}
        parent = f"00-{self.id:032x}-{self.try_span(number):016x}-{self.sampled:02x}"
        return {"traceparent": parent, "tracestate": self.state} if self.state else {"traceparent": parent}


@dataclass(slots=True, eq=False)
class PropagatedTrace(Trace):
    """A trace that the gateway has no part in: the engine hears of it what the client said, word for word."""

    said: str = ""

    def headers(self, number: int, engine: str) -> dict[str, str]:
        """Return the client's own headers, those that are valid."""
        if not self.said or (engine == "tgi" and not self.sampled):
            return {}
        return {"traceparent": self.said, "tracestate": self.state} if self.state else {"traceparent": self.said}


UNTRACED = PropagatedTrace()


def client_trace(headers: Mapping[bytes, bytes]) -> tuple[int, int, bool, str] | None:
    """Return the trace's id, the caller's span, its flag and its `tracestate`, or None without a valid `traceparent`.

    A later version may have more at its end; version 00 may not (W3C Trace Context, 3.2.2 and 4.3).
    """
    given = headers.get(TRACEPARENT)
    match = given and _parent.fullmatch(given.strip())
    if not match:
        return None
    version, trace, span, flags, more = match.groups()
    if version == NO_VERSION or trace == NO_TRACE or span == NO_SPAN or (version == b"00" and more):
        return None
    return int(trace, 16), int(span, 16), bool(int(flags, 16) & 1), _tracestate(headers)


def _tracestate(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(TRACESTATE, b"")
    good = given and len(given) <= MAX_STATE and _state.fullmatch(given)
    return given.decode("ascii") if good else ""
