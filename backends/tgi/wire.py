"""TGI's own wire types (CONTRACT.md 3, 4). Fields that are not named are ignored.

Required is only that by which an answer is told from an error, or an event from one that says nothing.
"""

from typing import Any

from msgspec import Struct, field

from backends.shapes import LenientDecoder


class TopToken(Struct):
    """One of the most likely tokens, and its natural log probability."""

    token: str
    logprob: float | None = None


class ChatToken(Struct):
    """A generated token, its log probability and its most likely alternatives."""

    token: str
    logprob: float | None = None
    top_logprobs: list[TopToken] = []


class ChatLogprobs(Struct):
    """`logprobs` of a chat choice."""

    content: list[ChatToken] = []


class TGIFunction(Struct):
    """The function of a tool call; the arguments were an object before v3.2."""

    name: str = ""
    arguments: Any = None


class TGIToolCall(Struct):
    """A tool call; its id is always "0"."""

    function: TGIFunction = field(default_factory=TGIFunction)


class TGIMessage(Struct):
    """The message of a complete answer, or the delta of a chunk."""

    content: str | None = None
    tool_calls: list[TGIToolCall] | None = None


class TGIChoice(Struct):
    """A choice of a complete chat answer."""

    message: TGIMessage
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None


class TGIUsage(Struct):
    """Token counts."""

    prompt_tokens: int = -1
    completion_tokens: int = -1
    total_tokens: int = -1


class TGIChat(Struct):
    """A complete chat answer."""

    choices: list[TGIChoice]
    usage: TGIUsage | None = None


class TGIChunkChoice(Struct):
    """A choice of a chat chunk."""

    delta: TGIMessage
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None


class TGIChunk(Struct):
    """One event of a chat stream."""

    choices: list[TGIChunkChoice]
    usage: TGIUsage | None = None


class Token(Struct):
    """A token of `/generate`."""

    text: str
    logprob: float | None = None
    special: bool = False


class Details(Struct):
    """The `details` of `/generate`. `input_length`, the number of prompt tokens, is sent only in streams."""

    finish_reason: str = "eos_token"
    generated_tokens: int = -1
    input_length: int = 0
    tokens: list[Token] = []
    top_tokens: list[list[Token]] = []


class Generated(Struct):
    """The answer of `/generate`."""

    generated_text: str
    details: Details = field(default_factory=Details)


class GenerateEvent(Struct):
    """One event of `/generate_stream`; the last has the complete text and the details."""

    token: Token | None
    top_tokens: list[Token] = []
    generated_text: str | None = None
    details: Details | None = None


chats = LenientDecoder(TGIChat)
chunks = LenientDecoder(TGIChunk)
generated = LenientDecoder(Generated)
generate_events = LenientDecoder(GenerateEvent)
