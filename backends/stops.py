"""Stop strings, found in text that comes in pieces (OpenAI API reference, `stop`).

An engine may notice a stop late, or leave its text in the answer; the client must see neither. So text is
held back as long as it could be the beginning of a stop.
"""

from collections.abc import Sequence


class StopScanner:
    """Passes text on up to the first stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take a piece; return the text that is certain to be before any stop."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """No more text comes: return what was held back."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` with which `stop` begins."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length :]):
            return length
    return 0


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return the text before the first stop, and whether there was one."""
    scanner = StopScanner(stops)
    before = scanner.feed(text)
    return (before, True) if scanner.stopped else (text, False)
