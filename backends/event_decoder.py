"""What the decoders of all dialects have in common: a stream's events, its end, and what is no chunk. Pure.

The fast decoding of an event comes first; what it refuses is read as the SDKs read it, or skipped, or an error.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from backends import problem
from backends.base import BackendError, Call, Completion, Event, FollowUp
from backends.convert import as_chunks
from backends.lenient_json import EventJSON, read_json
from backends.odd_events import cut, is_done, is_error, read_event, unreadable
from backends.schema import Usage
from backends.splice import END, Copied, Splicer
from backends.sse import EventReader, EventTooLarge

Decode = Callable[[bytes], Any]
ReadWhole = Callable[[bytes], Completion | FollowUp]


class EventDecoder(ABC):
    """Reads one engine's stream; see `backends.base.Decoder`.

    `decode` reads an event in the fast way; `read_whole` reads a complete answer, which an engine that takes no notice
    of `stream` sends in the place of one.
    """

    def __init__(self, call: Call, decode: Decode, read_whole: ReadWhole) -> None:
        self.usage: Usage | None = None
        self.answered = False
        self.finished = False
        self.failure: BackendError | FollowUp | Completion | None = None
        self._call = call
        self._fast_decode = self._decode = decode
        self._read_whole = read_whole
        self._events = EventReader()
        self._json = EventJSON()
        self._skipped = b""  # the last event that was nothing
        self._splicer: Splicer | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Take the bytes of one read; return the chunks that they complete."""
        try:
            if self._splicer is not None:
                return self._copy_and_read(data, self._splicer)
            return self._read(self._events.feed(data))
        except EventTooLarge as error:
            self.failure = unreadable(self._events.remains, error)
            return []

    def end(self) -> list[Event]:
        """Note the end of the body; return what came last without its blank line, or in the place of a stream."""
        if self.finished or self.failure is not None:
            return []
        document, rest = self._events.document, self._events.rest
        if document is not None:
            return self._take_whole(document)
        events = self._read([rest]) if rest is not None and _is_entire(rest) else []
        if self.failure is None and not self.finished:
            self.finished = self.answered
            self.failure = None if self.answered else cut(self._skipped or self._events.remains)
        return events

    @abstractmethod
    def _take(self, chunk: Any, events: list[Event]) -> bool:
        """Take a decoded event; add the client's chunks to the events. Raises BackendError.

        Returns whether the stream is over: `finished` or `failure` is set then.
        """

    @abstractmethod
    def _take_open(self, value: dict[str, Any], events: list[Event]) -> None:
        """Take likewise the decoded JSON of an event that the fast way refused. Raises msgspec.ValidationError."""

    @abstractmethod
    def _take_done(self, events: list[Event]) -> None:
        """Take `[DONE]`."""

    @abstractmethod
    def _failure(self, value: dict[str, Any]) -> BackendError | FollowUp | Completion:
        """Return what an engine's error means."""

    @abstractmethod
    def copy_alike(self, copied: Copied) -> None:
        """Copy events that differ in their text alone, if nothing of this stream has to look at each."""

    def _copy_and_read(self, data: bytes, splicer: Splicer) -> list[Event]:
        """Read event by event those that cannot be copied."""
        events: list[Any] = []
        while data:
            if not self._events.holds and not self.answered and self._decode is self._fast_decode:
                copied, data = splicer.take(data)
                if copied:
                    events.append(copied)
                    continue
            event, end, data = data.partition(END)
            made = self._read(self._events.feed(event + end))
            events += made
            if self.finished or self.failure is not None:
                break
            splicer.learn(event, made)
        self._splicer = None if splicer.has_given_up else splicer
        return events

    def _read(self, payloads: Iterable[bytes]) -> list[Event]:
        events: list[Event] = []
        for payload in payloads:
            try:
                over = self._take(self._decode(payload), events)
            except problem.UNREADABLE:  # no chunk, or not just as its type says
                over = self._take_odd(payload, events)
            except BackendError as failure:
                self.failure, over = failure, True
            if over:
                break
        return events

    def _take_odd(self, payload: bytes, events: list[Event]) -> bool:
        try:
            if is_done(payload):
                self._take_done(events)
                return True
            value = read_event(payload, self._json)
            self._decode = _refuse if self._json.waits else self._fast_decode
            if value is None:
                self._skipped = payload
            elif is_error(value):
                self.failure = self._failure(value)
            else:
                self._skipped = b"" if value.get("choices") else payload
                _with_deltas(value)
                self._take_open(value, events)
        except BackendError as failure:
            self.failure = failure
        except problem.UNREADABLE as error:
            self.failure = unreadable(payload, error)
        return self.finished or self.failure is not None

    def _take_whole(self, document: bytes) -> list[Event]:
        try:
            answer = self._read_whole(document)
        except BackendError as failure:
            self.failure = failure
            return []
        if isinstance(answer, FollowUp):
            self.failure = answer
            return []
        self.usage = answer.answer.usage
        self.finished = True
        return as_chunks(answer)


def _refuse(payload: bytes) -> Any:
    """Refuse an event, as the fast way does: half of a character is held, and the slow way puts it together."""
    raise msgspec.ValidationError


def _is_entire(payload: bytes) -> bool:
    """Whether the last event of a stream, which lacks its blank line, has come to its end."""
    try:
        read_json(payload)
    except problem.UNREADABLE:
        return is_done(payload)
    return True


def _with_deltas(value: dict[str, Any]) -> None:
    """Say as a delta what a choice has as a whole message: some engines send a stream of one event."""
    choices = value.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("delta") is None and isinstance(choice.get("message"), dict):
            choice["delta"] = choice.pop("message")
