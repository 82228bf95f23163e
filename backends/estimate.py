"""How many tokens an engine has worked where it has not said so: an estimate, so that its work is not free. Pure.

One rule for prompts and answers, simple enough to check by hand: four bytes of UTF-8 are a token, rounded up. That is
about right for English, too much for digits, too little for code. Of a prompt the names and texts of its JSON count (a
chat template writes roles and tools down, too), a token's id as one token; images, audio and files count nothing. Of an
answer that comes in pieces, each piece with text is a token at least.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from backends.base import Event
from backends.schema import AnswerMessage, ChatChoice, ChunkChoice, Delta, TextChoice, Usage

BYTES_PER_TOKEN = 4

# What of a body an engine reads as the prompt, on any path.
PROMPT = frozenset(
    {
        *("messages", "prompt", "suffix", "tools", "documents"),  # chat completions and completions
        "inputs",  # TGI's own paths
        *("input", "instructions", "system"),  # responses, messages, embeddings
        *("query", "queries", "text_1", "text_2"),  # rerank, score
    }
)
MEDIA = frozenset({"image_url", "image", "input_audio", "audio_url", "audio", "video_url", "file", "source"})

_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_read = msgspec.json.Decoder().decode


class Estimate(Usage, kw_only=True):
    """Token counts that the engine has not all said itself; -1 is one that nobody knows."""


def of_bytes(size: int) -> int:
    """Return the tokens of so many bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def of_fields(fields: Mapping[str, Raw]) -> int:
    """Return the tokens of the prompt that is in the fields of a request's body, on whichever path."""
    return of_bytes(sum(_raw_size(fields[name]) for name in PROMPT & fields.keys()))


def of_body(body: bytes) -> int:
    """Return the tokens of the prompt that is in a request's body; of one that is no JSON object, of all of it."""
    try:
        return of_fields(_fields(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return of_bytes(len(body))


def _raw_size(value: Raw) -> int:
    try:
        return _size(_read(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return len(bytes(value))


def _size(value: Any) -> int:
    if isinstance(value, str):
        return text_size(value)
    if isinstance(value, list):
        return sum(_size(item) for item in value)
    if isinstance(value, dict):
        return sum(text_size(name) + _size(inner) for name, inner in value.items() if name not in MEDIA)
    return BYTES_PER_TOKEN if type(value) is int else 0


def text_size(text: str) -> int:
    """Return the bytes of a text."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


class Written:
    """Counts what of an answer has come: its pieces, and the bytes of its texts."""

    def __init__(self, answers: Iterable[Event] = ()) -> None:
        self._pieces = 0
        self._size = 0
        self.add(answers)

    def note(self, texts: list[bytes]) -> None:
        """Take pieces of text, in UTF-8."""
        self._pieces += len(texts)
        self._size += sum(map(len, texts))

    def add(self, answers: Iterable[Event | bytes]) -> None:
        """Take chunks, or whole answers. What was copied has been noted (`backends.splice`)."""
        for answer in answers:
            if isinstance(answer, bytes):
                continue
            for choice in answer["choices"] if isinstance(answer, dict) else answer.choices:
                if size := _size_of[type(choice)](choice):
                    self._pieces += 1
                    self._size += size

    @property
    def tokens(self) -> int:
        """The tokens of all of it."""
        return max(self._pieces, of_bytes(self._size))


def _said_size(said: Delta | AnswerMessage) -> int:
    """Return the bytes of the texts in a message, or in a piece of one."""
    size = text_size(said.content) if said.content else 0
    if thought := said.reasoning or said.reasoning_content:
        size += text_size(thought)
    if said.refusal:
        size += text_size(said.refusal)
    if said.tool_calls or said.function_call:
        size += _calls_size(msgspec.to_builtins(said))
    return size


def _plain_size(choice: dict[str, Any]) -> int:
    said = choice.get("delta") or choice.get("message") or choice
    thought = said.get("reasoning") or said.get("reasoning_content")
    texts = (said.get("content"), said.get("text"), said.get("refusal"), thought)
    return sum(text_size(text) for text in texts if isinstance(text, str)) + _calls_size(said)


def _calls_size(said: dict[str, Any]) -> int:
    functions = [said.get("function_call"), *(tool.get("function") for tool in said.get("tool_calls") or ())]
    return sum(_size(list(function.values())) for function in functions if function)


# By the type of a choice; a plain one has fields of which no type knows.
_size_of: dict[type, Callable[[Any], int]] = {
    ChunkChoice: lambda choice: _said_size(choice.delta),
    ChatChoice: lambda choice: _said_size(choice.message),
    TextChoice: lambda choice: text_size(choice.text),
    dict: _plain_size,
}


def so_far(said: Usage | None, written: int, read: int = -1) -> Usage:
    """Return what was worked of an answer that is not over: as the engine has said so far, at least what has come.

    `written` are the tokens of what has come. `read` are the prompt's, -1 if the engine has not told of them otherwise.
    """
    if said is None or not total(said):
        return Estimate(prompt_tokens=read, completion_tokens=written, total_tokens=max(read, 0) + written)
    return said if said.completion_tokens >= written else _with_written(said, written)


def whole(said: Usage | None, written: int) -> Usage:
    """Return what was worked of an answer that is over: the engine's figures, or else what has come."""
    if said is None or not total(said):
        return so_far(None, written)
    return said if is_told(said) else _with_written(said, written)


def is_told(said: Usage | None) -> bool:
    """Whether the engine has said what it wrote, so that nothing has to be estimated."""
    return said is not None and total(said) > 0 and said.completion_tokens >= 0


def _with_written(said: Usage, written: int) -> Usage:
    """Return the engine's figures but for the answer's tokens."""
    known = {name: getattr(said, name) for name in ("prompt_tokens", "prompt_tokens_details")}
    return Estimate(**known, completion_tokens=written, total_tokens=max(said.prompt_tokens, 0) + written)


def with_prompt(usage: Usage, estimated: Callable[[], int]) -> Usage:
    """Return the usage with the prompt's tokens, estimated where they are not known: none has 0, if it has a text."""
    if usage.prompt_tokens > 0:
        return usage
    read, written = estimated(), max(usage.completion_tokens, 0)
    if read == usage.prompt_tokens:
        return usage
    return Estimate(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def total(usage: Usage) -> int:
    """Return all tokens that are known to have been worked."""
    return max(usage.total_tokens, max(usage.prompt_tokens, 0) + max(usage.completion_tokens, 0))
