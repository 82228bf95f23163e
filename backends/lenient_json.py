"""Reads an engine's JSON as the SDKs read it, where msgspec refuses it. Pure.

The SDKs decode with the `json` of their languages: a lone surrogate, a control character in a text, a byte order mark
or NaN is no error there. Each reader tries msgspec first; what is here costs only those who send such things.
"""

import json
from typing import Any

import msgspec

from backends.surrogates import replaced

TEXTS = ("content", "text", "reasoning", "reasoning_content", "refusal")  # what comes in pieces
HIGH = ("\ud800", "\udbff")  # the first half of a pair is between these two


def read_json(data: bytes) -> Any:
    """Return decoded JSON, with U+FFFD for each lone surrogate. Raises one of `problem.UNREADABLE`."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return replaced(_decode(data))


def _decode(data: bytes) -> Any:
    """Return decoded JSON, lone surrogates included; NaN and infinity become None. Raises likewise."""
    text = data.decode("utf-8-sig", "surrogatepass")
    try:
        return json.loads(text, strict=False, parse_constant=lambda name: None)
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


class EventJSON:
    """Reads the JSON of one stream's events.

    An engine that cuts its text between two UTF-16 units sends the first half of a pair at the end of one event and the
    second at the start of the next. The first is held until then, for each choice and field.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], str] = {}

    @property
    def waits(self) -> bool:
        """Whether the next event has to be read here, because a half is held."""
        return bool(self._held)

    def read(self, payload: bytes) -> Any:
        """Return an event's decoded JSON. Raises one of `problem.UNREADABLE`."""
        if not self._held:
            try:
                return msgspec.json.decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError):
                pass
        event = _decode(payload)
        choices = event.get("choices") if isinstance(event, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._join(choice)
        return replaced(event)

    def _join(self, choice: dict[str, Any]) -> None:
        """Put what is held in front of a choice's texts; hold back a half at their end, unless it is the last piece."""
        said = choice if "text" in choice else choice.get("delta") or choice.get("message")
        if not isinstance(said, dict):
            if not self._held:
                return
            said = choice["delta"] = {}
        for name in TEXTS:
            given = said.get(name)
            if given is not None and not isinstance(given, str):
                continue
            key = str(choice.get("index", 0)), name
            text = self._held.pop(key, "") + (given or "")
            if HIGH[0] <= text[-1:] <= HIGH[1] and not choice.get("finish_reason"):
                self._held[key] = text[-1]
                text = text[:-1]
            if text != (given or ""):
                said[name] = text
