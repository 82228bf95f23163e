"""The client's own answer, kept aside while it is sent."""

from collections.abc import Sequence
from typing import Any

import msgspec

from backends.base import Event
from gateway.experiments.answers import SaidAnswer, Transcript
from gateway.proxy.sources import Source, Through

MOST_EVENTS = 8192  # of an answer; a longer one is not compared


class HeardAnswer(Through):
    """A source, whose events are kept as they pass."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._events: list[Event] = []
        self.too_long = False

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        events = await super().read()
        if len(self._events) + len(events) > MOST_EVENTS:
            self.too_long, self._events = True, []
        elif not self.too_long:
            self._events += events
        return events

    def answer(self) -> SaidAnswer:
        """Return what was said."""
        return said(self._events, self.usage)


def said(events: Sequence[Event], usage: Any) -> SaidAnswer:
    """Return the first choice of what some events say, with the engine's own count of tokens."""
    transcript = Transcript()
    for event in events:
        transcript.take(msgspec.to_builtins(event))
    if usage is not None:
        transcript.take({"usage": msgspec.to_builtins(usage)})
    return transcript.answer()
