"""Finds stop strings in text that arrives in pieces (OpenAI API reference, `stop`).

An engine may detect a stop string late, or leave it in the answer; the client must not see it. So text is held back
as long as it may be the beginning of a stop string.
"""

from collections.abc import Sequence


class StopScanner:
    """Returns text up to the first stop string. `held` is text held back: it may be the beginning of one."""

    def __init__(self, stops: Sequence[str], held: str = "") -> None:
        self._stops = stops
        self.held = held
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take a piece; return the text that is certainly before any stop string."""
        if self.stopped:
            return ""
        text = self.held + text
        found = _first(text, self._stops)
        begun = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        if found is not None and found <= begun:  # else an earlier stop string may still be completed
            self.stopped = True
            self.held = ""
            return text[:found]
        self.held = text[begun:]
        return text[:begun]

    def end(self) -> str:
        """End the text: return what was held back, up to the first stop string in it."""
        held, self.held = self.held, ""
        found = _first(held, self._stops)
        self.stopped = self.stopped or found is not None
        return held[:found]


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Return the index where the first stop string in the text begins, or None."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length :]):
            return length
    return 0


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop string, and whether there was one."""
    scanner = StopScanner(stops)
    before = scanner.feed(text) + scanner.end()
    return before, scanner.stopped
