"""Stop strings, found in text that comes in pieces (OpenAI API reference, `stop`).

An engine may notice a stop late, or leave its text in the answer; the client must see neither. So text is
held back as long as it could be the beginning of a stop.
"""

from collections.abc import Sequence


class StopScanner:
    """Passes text on up to the first stop string. `held` is the text that may be the beginning of one."""

    def __init__(self, stops: Sequence[str], held: str = "") -> None:
        self._stops = stops
        self.held = held
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take a piece; return the text that is certain to be before any stop."""
        if self.stopped:
            return ""
        text = self.held + text
        found = _first(text, self._stops)
        begun = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        if found is not None and found <= begun:  # else an earlier stop may yet become whole
            self.stopped = True
            self.held = ""
            return text[:found]
        self.held = text[begun:]
        return text[:begun]

    def end(self) -> str:
        """No more text comes: return what was held back, up to a stop in it."""
        held, self.held = self.held, ""
        found = _first(held, self._stops)
        self.stopped = self.stopped or found is not None
        return held[:found]


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Return where the first stop in the text begins."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length :]):
            return length
    return 0


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop, and whether there was one."""
    scanner = StopScanner(stops)
    before = scanner.feed(text) + scanner.end()
    return before, scanner.stopped
