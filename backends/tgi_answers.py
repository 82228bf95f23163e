"""What TGI answers, read into OpenAI's types (contract sections 3 and 4).

Three forms: the whole chat, the chat stream, and `/generate` with its stream. A stop string's text, which TGI
leaves in, is cut; its reasons for finishing get OpenAI's names; its logprobs get the bytes that OpenAI's have.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from backends import problem
from backends.base import Again, BackendError, Call, Cause, Completion, Event, Headers, UpstreamRequest
from backends.openai import CUT, FAILED, FINISH, NOT_THE_PROTOCOL, dress, finish_tool, multiply, repeat
from backends.schema import (
    Answer,
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChatRequest,
    ChunkChoice,
    CompletionRequest,
    Delta,
    NamedTool,
    TextChoice,
    ToolCall,
    Usage,
)
from backends.sse import DONE, EventReader, EventTooLarge
from backends.stops import StopScanner, cut

Failed = Callable[[Call, UpstreamRequest, problem.Problem], BackendError | Again | Completion]
SORTED = ("Input validation error", "Model is overloaded", "Template error", "Tool error")  # the rest are failures
Failure = BackendError | Again | Completion | None


# --- TGI's own types: unknown fields are ignored --------------------------------------------------------------


class TopToken(Struct):
    """A likely token and its log probability (natural)."""

    token: str
    logprob: float | None


class ChatToken(Struct):
    """A generated token, its log probability and the likeliest ones."""

    token: str
    logprob: float | None
    top_logprobs: list[TopToken] = []


class ChatLogprobs(Struct):
    """`logprobs` of a chat choice."""

    content: list[ChatToken] = []


class TGIFunction(Struct):
    """The function of a tool call; the arguments were an object before v3.2."""

    name: str
    arguments: Any = None


class TGIToolCall(Struct):
    """A tool call; its id is always "0"."""

    function: TGIFunction


class TGIMessage(Struct):
    """The message of a whole answer, or the delta of a chunk."""

    content: str | None = None
    tool_calls: list[TGIToolCall] | None = None


class TGIChoice(Struct):
    """A choice of a whole chat answer."""

    message: TGIMessage
    finish_reason: str | None
    logprobs: ChatLogprobs | None = None


class TGIChat(Struct):
    """A whole chat answer."""

    choices: list[TGIChoice]
    usage: Usage


class TGIChunkChoice(Struct):
    """A choice of a chat chunk."""

    delta: TGIMessage
    finish_reason: str | None = None
    logprobs: ChatLogprobs | None = None


class TGIChunk(Struct):
    """One event of a chat stream."""

    choices: list[TGIChunkChoice]
    usage: Usage | None = None


class Token(Struct):
    """A token of `/generate`."""

    text: str
    logprob: float | None
    special: bool


class Details(Struct):
    """How `/generate` came to its end. `input_length` is given in streams alone."""

    finish_reason: str
    generated_tokens: int
    input_length: int = 0
    tokens: list[Token] = []
    top_tokens: list[list[Token]] = []


class Generated(Struct):
    """The answer of `/generate`."""

    generated_text: str
    details: Details


class GenerateEvent(Struct):
    """One event of `/generate_stream`; the last has the text and the details."""

    token: Token
    top_tokens: list[Token] = []
    generated_text: str | None = None
    details: Details | None = None


_chat = msgspec.json.Decoder(TGIChat).decode
_chunk = msgspec.json.Decoder(TGIChunk).decode
_generated = msgspec.json.Decoder(Generated).decode
_generate_event = msgspec.json.Decoder(GenerateEvent).decode


# --- whole ----------------------------------------------------------------------------------------------------


def chat_completion(
    call: Call, view: ChatRequest, request: UpstreamRequest, headers: Headers, body: bytes
) -> Completion:
    """Read a whole chat answer. Raises msgspec.DecodeError and IndexError if it is none."""
    answer = _chat(body)
    given = answer.choices[0]
    usage = answer.usage
    finish = FINISH.get(given.finish_reason or "", given.finish_reason)
    message = AnswerMessage(role="assistant", content=given.message.content, refusal=None)
    logprobs = _chat_logprobs(given.logprobs, view) if given.logprobs else None
    if given.message.tool_calls:
        message.content = None
        message.tool_calls = [_tool_call(tool) for tool in given.message.tool_calls]
        finish = "stop" if isinstance(view.tool_choice, NamedTool) else "tool_calls"
    elif view.offers_tools:
        # `no_tool`: the text is of a second generation, the counts beside it of the first. The header is right.
        usage, finish = _second_generation(view, usage, headers)
        logprobs = None
    text, stopped = cut(message.content or "", view.stops)
    if stopped:
        message.content, finish = text, "stop"
    return _completed(call, request, "chat.completion", _chat_choices(call, request, message, finish, logprobs), usage)


def _second_generation(view: ChatRequest, usage: Usage, headers: Headers) -> tuple[Usage, str]:
    written = int(headers.get("x-generated-tokens", usage.completion_tokens))
    cut_short = view.limit is not None and written >= view.limit
    return _usage(usage.prompt_tokens, written), "length" if cut_short else "stop"


def _chat_choices(
    call: Call, request: UpstreamRequest, message: AnswerMessage, finish: str | None, logprobs: Any
) -> list[ChatChoice]:
    choices = []
    for index in request.choices:
        one = msgspec.structs.replace(message)
        if message.tool_calls:
            one.tool_calls = [msgspec.structs.replace(tool) for tool in message.tool_calls]
            for place, tool in enumerate(one.tool_calls):
                finish_tool(tool, call, index, place)
        choices.append(ChatChoice(index=index, message=one, logprobs=logprobs, finish_reason=finish))
    return choices


def _tool_call(tool: TGIToolCall) -> ToolCall:
    arguments = tool.function.arguments
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments or {}).decode()
    return ToolCall(function=CalledFunction(name=tool.function.name, arguments=arguments))


def cut_tool_call(call: Call, request: UpstreamRequest) -> Completion:
    """Return the answer to a tool call that `max_tokens` cut: the partial call is not shown, nor is it counted."""
    message = AnswerMessage(role="assistant", content=None, refusal=None)
    answer = Answer(choices=_chat_choices(call, request, message, "length", None))
    dress(answer, call, "chat.completion")
    return Completion(answer)


def text_completion(
    call: Call, view: CompletionRequest, request: UpstreamRequest, headers: Headers, body: bytes
) -> Completion:
    """Read `/generate`'s answer. Raises msgspec.DecodeError if it is none."""
    given = _generated(body)
    finish = FINISH.get(given.details.finish_reason, given.details.finish_reason)
    text, stopped = cut(given.generated_text, view.stops)
    logprobs = None
    if view.logprobs is not None:
        logprobs = TextLogprobs(view.logprobs)
        for place, token in enumerate(given.details.tokens):
            tops = given.details.top_tokens
            logprobs.add(token, tops[place] if place < len(tops) else [])
    prompt = _prompt(view, request) if view.echo else ""
    usage = _usage(int(headers.get("x-prompt-tokens", 0)), given.details.generated_tokens)
    choice = TextChoice(
        index=request.choices[0],
        text=prompt + text,
        logprobs=logprobs and logprobs.written(),
        finish_reason="stop" if stopped else finish,
    )
    return _completed(call, request, "text_completion", repeat(choice, request.choices), usage)


def _completed(call: Call, request: UpstreamRequest, kind: str, choices: list[Any], usage: Usage) -> Completion:
    answer: Answer[Any] = Answer(choices=choices, usage=multiply(usage, len(request.choices)))
    dress(answer, call, kind)
    return Completion(answer)


# --- streams --------------------------------------------------------------------------------------------------


class _Stream:
    """What the two kinds of stream have in common: events, the end, errors, copies of a greedy choice."""

    def __init__(self, call: Call, request: UpstreamRequest, failed: Failed, stops: list[str], kind: str) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failure: Failure = None
        self._call = call
        self._request = request
        self._failed = failed
        self._events = EventReader()
        self._scanner = StopScanner(stops) if stops else None
        self._kind = kind
        self._tokens = 0
        self._ended = False  # the client has its finish reason

    def feed(self, data: bytes) -> list[Event]:
        """Take one read; return the chunks that it completed."""
        events: list[Event] = []
        try:
            for payload in self._events.feed(data):
                self._take(payload, events)
                if self.failure is not None:
                    break
        except EventTooLarge:
            self.failure = BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
        except problem.UNREADABLE:
            self.failure = self._no_chunk(payload)
        return events

    def end(self) -> None:
        """Say that the body has ended."""
        if not self.finished and self.failure is None:
            self.failure = BackendError(Cause.FAILED, CUT)

    def _take(self, payload: bytes, events: list[Event]) -> None:
        raise NotImplementedError

    def _no_chunk(self, payload: bytes) -> Failure:
        try:
            found = problem.read_value(msgspec.json.decode(payload))
        except problem.UNREADABLE:
            found = problem.Problem()
        if not found.message:
            return BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
        if not found.message.startswith(SORTED):
            return BackendError(Cause.FAILED, FAILED)
        return self._failed(self._call, self._request, found)

    def _scan(self, text: str, finish: str | None) -> tuple[str, str | None]:
        """Return the text before any stop, and the finish reason if this is where the answer ends."""
        if self._scanner is None:
            return text, finish
        text = self._scanner.feed(text)
        if finish:
            text += self._scanner.end()
        return text, "stop" if self._scanner.stopped else finish

    def _emit(self, choice: Any, events: list[Event]) -> None:
        call = self._call
        several = len(self._request.choices) > 1
        for one in repeat(choice, self._request.choices) if several else (choice,):
            events.append(Answer(id=call.id, object=self._kind, created=call.created, model=call.model, choices=[one]))


class ChatDecoder(_Stream):
    """Reads a chat stream."""

    def __init__(self, call: Call, view: ChatRequest, request: UpstreamRequest, failed: Failed) -> None:
        super().__init__(call, request, failed, view.stops, "chat.completion.chunk")
        self._view = view
        self._index = request.choices[0]

    def _take(self, payload: bytes, events: list[Event]) -> None:
        if payload == DONE:
            self.finished = self._ended
            self.end()
            return
        chunk = _chunk(payload)
        if chunk.usage is not None:
            self._count(chunk.usage)
        if not chunk.choices or self._ended:
            return
        given = chunk.choices[0]
        if self._tokens == 0:
            self._emit(self._choice(Delta(role="assistant", content=""), None), events)
        self._tokens += 1
        finish = given.finish_reason
        if finish is not None:
            finish = FINISH.get(finish, finish)
        text, finish = self._scan(given.delta.content or "", finish)
        self._ended = finish is not None
        choice = self._choice(Delta(content=text), finish)
        if given.logprobs is not None:
            choice.logprobs = _chat_logprobs(given.logprobs, self._view)
        if text or finish or choice.logprobs:
            self._emit(choice, events)

    def _choice(self, delta: Delta, finish: str | None) -> ChunkChoice:
        return ChunkChoice(index=self._index, delta=delta, logprobs=None, finish_reason=finish)

    def _count(self, usage: Usage) -> None:
        written = usage.completion_tokens
        if self._scanner is not None and self._scanner.stopped:
            written = min(written, self._tokens)  # what came after the stop was not for the client
        self.usage = multiply(_usage(usage.prompt_tokens, written), len(self._request.choices))


class GenerateDecoder(_Stream):
    """Reads `/generate_stream`. It has no `[DONE]`: the event with the whole text is the last."""

    def __init__(self, call: Call, view: CompletionRequest, request: UpstreamRequest, failed: Failed) -> None:
        super().__init__(call, request, failed, view.stops, "text_completion")
        self._index = request.choices[0]
        self._echo = _prompt(view, request) if view.echo else ""
        self._logprobs = None if view.logprobs is None else TextLogprobs(view.logprobs)

    def _take(self, payload: bytes, events: list[Event]) -> None:
        event = _generate_event(payload)
        details = event.details
        if not self._ended:
            self._token(event, events)
        if details is not None:
            written = self._tokens if self._scanner and self._scanner.stopped else details.generated_tokens
            self.usage = multiply(_usage(details.input_length, written), len(self._request.choices))
            self.finished = True

    def _token(self, event: GenerateEvent, events: list[Event]) -> None:
        self._tokens += 1
        finish = FINISH.get(event.details.finish_reason, event.details.finish_reason) if event.details else None
        text, finish = self._scan("" if event.token.special else event.token.text, finish)
        self._ended = finish is not None
        logprobs = None
        if self._logprobs is not None:
            self._logprobs.add(event.token, event.top_tokens)
            logprobs = self._logprobs.written()
            self._logprobs.clear()
        text, self._echo = self._echo + text, ""
        if text or finish or logprobs:
            choice = TextChoice(index=self._index, text=text, logprobs=logprobs, finish_reason=finish)
            self._emit(choice, events)


# --- logprobs and usage ---------------------------------------------------------------------------------------


def _chat_logprobs(given: ChatLogprobs, view: ChatRequest) -> dict[str, Any]:
    """Add the bytes, and cut the likeliest to as many as were asked for: on ties TGI sends more."""
    most = view.top_logprobs or 0
    return {
        "content": [
            {
                "token": token.token,
                "logprob": token.logprob,
                "bytes": list(token.token.encode()),
                "top_logprobs": [
                    {"token": top.token, "logprob": top.logprob, "bytes": list(top.token.encode())}
                    for top in token.top_logprobs[:most]
                ],
            }
            for token in given.content
        ]
    }


class TextLogprobs:
    """Builds the legacy `logprobs` object; offsets count the characters of the text so far."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._offset = 0
        self.clear()

    def clear(self) -> None:
        """Begin the next chunk's object."""
        self._tokens: list[str] = []
        self._values: list[float | None] = []
        self._tops: list[dict[str, float | None]] = []
        self._offsets: list[int] = []

    def add(self, token: Token, tops: list[Token]) -> None:
        """Add one generated token and the likeliest ones beside it; the token itself is always among them."""
        self._tokens.append(token.text)
        self._values.append(token.logprob)
        likely = {top.text: top.logprob for top in tops[: self._most]}
        likely.setdefault(token.text, token.logprob)
        self._tops.append(likely)
        self._offsets.append(self._offset)
        self._offset += len(token.text)

    def written(self) -> dict[str, Any]:
        """Return the object."""
        return {
            "text_offset": self._offsets,
            "token_logprobs": self._values,
            "tokens": self._tokens,
            "top_logprobs": self._tops,
        }


def _usage(read: int, written: int) -> Usage:
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def _prompt(view: CompletionRequest, request: UpstreamRequest) -> str:
    return str(view.prompts[request.prompt])
