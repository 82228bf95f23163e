"""What was said, for those who ask for it (`[telemetry] content = true`): redacted, cut to a size, in parts.

The form is that of the attributes `gen_ai.input.messages` and `gen_ai.output.messages`: JSON, as not every collector
takes structured attributes of a span (OpenTelemetry GenAI semantic conventions, "Recording content on attributes").
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from backends.base import Event
from backends.schema import ChatRequest, Message
from gateway.observe.trace_notes import Notes

REDACTED = "[redacted]"
MAX_SIZE = 16_384  # characters of text for one attribute: spans wait in memory until they are sent


class Redaction:
    """Takes out of texts what matches one of the patterns."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [re.compile(pattern) for pattern in patterns]

    def __call__(self, text: str) -> str:
        """Return the text with every match replaced."""
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return text


class ContentBudget:
    """Texts as one attribute may hold them: redacted, and all of them together no longer than `MAX_SIZE`."""

    def __init__(self, redact: Redaction) -> None:
        self._redact = redact
        self._left = MAX_SIZE

    def part(self, text: str, kind: str = "text") -> dict[str, Any]:
        """Return a part of a message."""
        return {"type": kind, "content": self.cut(text)}

    def call(self, function: dict[str, Any], call_id: str | None) -> dict[str, Any]:
        """Return the part that is a tool call; its arguments are a text here, which may not be whole JSON."""
        arguments = self.cut(function.get("arguments") or "")
        return {"type": "tool_call", "id": call_id, "name": function.get("name") or "", "arguments": arguments}

    def cut(self, text: str) -> str:
        """Return what may be shown of a text."""
        shown = self._redact(text)
        kept, self._left = shown[: self._left], max(0, self._left - len(shown))
        return kept if len(kept) == len(shown) else kept + "…"


class ContentNotes(Notes):
    """Notes with all that was said."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__()
        self._redact = redact
        self._spoken: dict[int, Spoken] = {}

    def hear(self, answers: Sequence[Event]) -> None:
        """Note the texts, too."""
        super().hear(answers)
        for answer in answers:
            for choice in (answer if isinstance(answer, dict) else msgspec.to_builtins(answer))["choices"]:
                self._spoken.setdefault(choice.get("index", 0), Spoken()).take(choice)

    def content(self) -> dict[str, str]:
        """Return the attributes that hold what was said."""
        said = {}
        if self.call is not None:
            said["gen_ai.input.messages"] = _json(asked(self.call.view, ContentBudget(self._redact)))
        if self._spoken:
            words = ContentBudget(self._redact)
            choices = sorted(self._spoken.items())
            answers = [spoken.message(words, self.reasons.get(index, "error")) for index, spoken in choices]
            said["gen_ai.output.messages"] = _json(answers)
        return said


class Spoken:
    """One choice of an answer, put together from its pieces."""

    def __init__(self) -> None:
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def take(self, choice: dict[str, Any]) -> None:
        """Add what a chunk, or a whole answer, says of the choice."""
        said = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
        self._texts.append(said.get("content") or "")
        self._thoughts.append(said.get("reasoning") or said.get("reasoning_content") or "")
        for place, call in enumerate(said.get("tool_calls") or ()):
            index = call.get("index")
            known = self._calls.setdefault(place if index is None else index, {"name": "", "arguments": ""})
            known["id"] = known.get("id") or call.get("id")
            for key in ("name", "arguments"):
                known[key] += call["function"].get(key) or ""

    def message(self, words: ContentBudget, reason: str) -> dict[str, Any]:
        """Return the choice as a message."""
        thought, text = "".join(self._thoughts), "".join(self._texts)
        parts = [words.part(thought, "reasoning")] if thought else []
        parts += [words.part(text)] if text else []
        parts += [words.call(call, call["id"]) for call in self._calls.values()]
        return {"role": "assistant", "parts": parts, "finish_reason": reason}


def asked(view: Any, words: ContentBudget) -> list[dict[str, Any]]:
    """Return the messages of a request; of prompts that are token ids, nothing."""
    if isinstance(view, ChatRequest):
        return [{"role": message.role, "parts": list(_parts(message, words))} for message in view.messages]
    texts = [prompt for prompt in view.prompts if isinstance(prompt, str)]
    return [{"role": "user", "parts": [words.part(text)]} for text in texts]


def _parts(message: Message, words: ContentBudget) -> Iterable[dict[str, Any]]:
    if message.role == "tool":
        yield {"type": "tool_call_response", "id": None, "response": words.cut(message.text)}
        return
    parts = message.content if isinstance(message.content, list) else []
    if isinstance(message.content, str):
        yield words.part(message.content)
    for part in parts:
        yield {"type": part.type} if part.text is None else words.part(part.text)
    for call in message.tool_calls or ():
        yield words.call({"name": call.function.name, "arguments": call.function.arguments}, call.id)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
