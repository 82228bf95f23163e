"""One choice of an answer as it was said, put together from the chunks of a stream or from a whole answer.

Read is OpenAI's form of either surface, with vLLM's `token_ids` and the reasoning where they are there, as the gateway
writes it. What is missing is left empty: a comparison uses what both answers have.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

Fields = Mapping[str, Any]


class SaidToken(Struct, frozen=True):
    """A token with its log probability, and those of the likeliest in its place, by their texts. In nats."""

    text: str
    logprob: float
    likeliest: dict[str, float] = {}


class CalledTool(Struct, frozen=True):
    """A tool call: the function's name, and its arguments as they were written."""

    name: str
    arguments: str


class SaidAnswer(Struct, frozen=True, kw_only=True):
    """One choice. `text` is the reasoning and the content; counts are -1 where the engine gave none."""

    text: str = ""
    tokens: tuple[SaidToken, ...] = ()
    ids: tuple[int, ...] = ()
    calls: tuple[CalledTool, ...] = ()
    finish: str = ""
    prompt_tokens: int = -1
    completion_tokens: int = -1


class Transcript:
    """Takes the chunks of an answer, as decoded JSON; gives one choice of it."""

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._thoughts: list[str] = []
        self._texts: list[str] = []
        self._tokens: list[SaidToken] = []
        self._ids: list[int] = []
        self._calls: dict[int, list[str]] = {}
        self._finish = ""
        self._usage: Fields = {}

    def take(self, chunk: Fields) -> bool:
        """Add a chunk, or a whole answer; return whether it holds anything that a model wrote, or its end."""
        self._usage = chunk.get("usage") or self._usage
        choices = [choice for choice in chunk.get("choices") or () if choice.get("index", 0) == self._index]
        return any(self._choice(choice) for choice in choices)

    def answer(self) -> SaidAnswer:
        """Return what has been said so far."""
        return SaidAnswer(
            text="".join((*self._thoughts, *self._texts)),
            tokens=tuple(self._tokens),
            ids=tuple(self._ids),
            calls=tuple(CalledTool(name, arguments) for _, (name, arguments) in sorted(self._calls.items())),
            finish=self._finish,
            prompt_tokens=_count(self._usage, "prompt_tokens"),
            completion_tokens=_count(self._usage, "completion_tokens"),
        )

    def _choice(self, choice: Fields) -> bool:
        said = choice.get("delta") or choice.get("message") or {}
        thought = said.get("reasoning") or said.get("reasoning_content") or ""
        text = said.get("content") or choice.get("text") or ""
        calls, logprobs = said.get("tool_calls") or (), choice.get("logprobs") or {}
        tokens = _chat_tokens(logprobs) if "content" in logprobs else _text_tokens(logprobs)
        self._thoughts.append(thought)
        self._texts.append(text)
        self._tokens += tokens
        self._ids += choice.get("token_ids") or ()
        self._finish = choice.get("finish_reason") or self._finish
        for place, call in enumerate(calls):
            self._call(call, place)
        return bool(thought or text or calls or tokens or choice.get("finish_reason"))

    def _call(self, call: Fields, place: int) -> None:
        index, function = call.get("index"), call.get("function") or {}
        known = self._calls.setdefault(place if index is None else index, ["", ""])
        known[0] += function.get("name") or ""
        known[1] += function.get("arguments") or ""


def _count(usage: Fields, name: str) -> int:
    found = usage.get(name)
    return found if isinstance(found, int) else -1


def _chat_tokens(logprobs: Fields) -> list[SaidToken]:
    """Read the `logprobs` of a chat."""
    return [
        SaidToken(one["token"], one["logprob"], {top["token"]: top["logprob"] for top in one.get("top_logprobs") or ()})
        for one in logprobs["content"] or ()
    ]


def _text_tokens(logprobs: Fields) -> list[SaidToken]:
    """Read the legacy `logprobs` of a completion; an echoed prompt's first token has no value."""
    texts, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    tops = logprobs.get("top_logprobs") or [None] * len(texts)
    return [SaidToken(text, value or 0.0, top or {}) for text, value, top in zip(texts, values, tops, strict=False)]
