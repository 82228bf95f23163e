"""OpenAI's own dialect, as any compatible engine speaks it; vLLM's is this one with differences.

The client's body goes on as it came, but for the model's name, nulls, and the usage, which is always asked
for: the account needs it, and the client is shown it only if it asked. Answers are read into OpenAI's types
and written anew, with the gateway's own id, time and model name.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from backends import problem
from backends.base import (
    Again,
    BackendError,
    Call,
    Cause,
    Completion,
    Decoder,
    Event,
    Headers,
    Served,
    UpstreamRequest,
)
from backends.extras import Reader, lay
from backends.loads import LoadReader
from backends.schema import (
    Answer,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatRequest,
    ChunkChoice,
    TextAnswer,
    ToolCall,
    Usage,
)
from backends.sse import DONE, EventReader, EventTooLarge

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
NOT_THE_PROTOCOL = "The engine answered with something that is not its protocol."
FAILED = "The engine failed while it generated the answer."
CUT = "The engine closed the stream before the answer was complete."

NULL = Raw(b"null")
BROKEN = frozenset({"abort", "error"})  # reasons to finish that are failures

_encode = msgspec.json.Encoder().encode


def raw(value: Any) -> Raw:
    """Write a value as the piece of JSON that a Call's body is made of."""
    return Raw(_encode(value))


class ModelCard(msgspec.Struct):
    """One entry of `GET /v1/models`."""

    id: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    """The answer of `GET /v1/models`."""

    data: list[ModelCard]


class OpenAI:
    """The dialect of a server that speaks OpenAI's API."""

    name = "openai"
    label = "OpenAI-compatible engine"
    passes: frozenset[str] = frozenset({"/v1/embeddings", "/v1/responses"})
    facts_path = "/v1/models"
    health_path = ""
    load = LoadReader("", {})

    def served(self, body: bytes) -> list[Served]:
        """Read `GET /v1/models`."""
        try:
            cards = msgspec.json.decode(body, type=ModelList).data
        except problem.UNREADABLE as error:
            raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL) from error
        return [Served(card.id, card.id, card.max_model_len) for card in cards]

    def unsupported(self, call: Call, sees: bool = False) -> str | None:
        """Return None: what this dialect cannot do, its engine says itself."""
        return None

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return the client's body with the engine's name for the model; `n` greedy choices are asked for once."""
        view = call.view
        body = {name: value for name, value in call.body.items() if value != NULL}
        body["model"] = raw(model)
        adapted = self.adapt(call, body)
        shared = greedy_copies(call)
        if shared:
            del body["n"]
            adapted.append("n")
        if call.stream:
            asked = {"continuous_usage_stats": True} if call.continuous_usage else {}
            body["stream_options"] = raw({"include_usage": True} | asked)
        path = CHAT if isinstance(view, ChatRequest) else TEXT
        return [
            UpstreamRequest(path=path, body=_encode(body), stream=call.stream, choices=shared, adapted=tuple(adapted))
        ]

    def adapt(self, call: Call, body: dict[str, Raw]) -> list[str]:
        """Change what this engine takes differently; return the names of the parameters changed."""
        return []

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | Again:
        """Read a whole answer."""
        chat = isinstance(call.view, ChatRequest)
        try:
            answer, extra = (WHOLE_CHAT if chat else WHOLE_TEXT).read(body)
        except problem.UNREADABLE as error:
            raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL) from error
        if not answer.choices:
            raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
        dress(answer, call, "chat.completion" if chat else "text_completion")
        for choice in answer.choices:
            finish_choice(choice)
            if isinstance(choice, ChatChoice):
                finish_message(choice.message, call, choice.index)
                likeliest(choice, call)
        if answer.usage is not None:
            trim(answer.usage, call)
        if request.choices:
            n = call.view.n or 1
            answer.choices = [copy for choice in answer.choices for copy in copies(choice, n, call)]
            answer.usage = answer.usage and multiply(answer.usage, n)
            if "choices" in extra:
                extra["choices"] = [beside for beside in extra["choices"] for _ in range(n)]
        return Completion(answer, extra)

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a reader of chat or text chunks."""
        return StreamDecoder(call, request)

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | Again | Completion:
        """Read an answer whose status is not 200: none of these is an answer."""
        return classify(status, problem.read(body), call)


WHOLE_CHAT = Reader(ChatAnswer)
WHOLE_TEXT = Reader(TextAnswer)
CHAT_CHUNK = Reader(ChatChunk)


class StreamDecoder:
    """Reads a stream of OpenAI's chunks, chat or text."""

    def __init__(self, call: Call, request: UpstreamRequest) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failure: BackendError | Again | Completion | None = None
        self._call = call
        self._copies = (call.view.n or 1) if request.choices else 0
        self._events = EventReader()
        self._chat = isinstance(call.view, ChatRequest)
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._head = call.id, kind, call.created, call.model
        self._reader: Reader[Any] = CHAT_CHUNK if self._chat else WHOLE_TEXT
        self._decode = self._reader.decode
        self._begun: set[int] = set()
        self._ended: set[int] = set()  # choices whose finish reason has come

    def feed(self, data: bytes) -> list[Event]:
        """Take one read; return the chunks that it completed."""
        events: list[Event] = []
        try:
            payloads = self._events.feed(data)
        except EventTooLarge:
            self.failure = BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
            return events
        for payload in payloads:
            try:
                chunk = self._decode(payload)
                self._take(chunk)
                if self._copies:
                    events += self._repeated(chunk, {})
                elif chunk.choices:
                    events.append(chunk)
            except problem.UNREADABLE:  # no chunk, or one with fields that no type names
                if payload == DONE:
                    self._done()
                    break
                if payload and not self._take_open(payload, events):
                    break
            except BackendError as failure:
                self.failure = failure
                break
        return events

    def end(self) -> None:
        """Say that the body has ended: without `[DONE]` it was cut."""
        if not self.finished and self.failure is None:
            self.failure = BackendError(Cause.FAILED, CUT)

    def _done(self) -> None:
        # An engine that dies can still say [DONE]; without a finish reason there was no answer.
        if self._ended and self._begun <= self._ended:
            self.finished = True
        else:
            self.failure = BackendError(Cause.FAILED, CUT)

    def _take_open(self, payload: bytes, events: list[Event]) -> bool:
        """Take an event with fields that no type names; return whether it was a chunk at all."""
        try:
            chunk, extra = self._reader.read(payload)
            self._take(chunk)
        except problem.UNREADABLE:
            self.failure = event_failure(payload, self._call)
            return False
        except BackendError as failure:
            self.failure = failure
            return False
        if chunk.usage is None:
            extra.pop("usage", None)
        if self._copies:
            events += self._repeated(chunk, extra)
        elif chunk.choices:
            events.append(lay(chunk, extra))
        return True

    def _take(self, chunk: Answer[Any]) -> None:
        """Note what the chunk says, and make it the gateway's."""
        chunk.id, chunk.object, chunk.created, chunk.model = self._head
        chunk.system_fingerprint = None
        if chunk.usage is not None:
            self._take_usage(chunk, chunk.usage)
        chat = self._chat
        for choice in chunk.choices:
            if chat and choice.finish_reason is None and choice.stop_reason is None:  # as nearly always
                self._begun.add(choice.index)
            else:
                finish_choice(choice)
                (self._begun if choice.finish_reason is None else self._ended).add(choice.index)
            if chat and (choice.delta.tool_calls or choice.logprobs):
                finish_tool_delta(choice, self._call)
                likeliest(choice, self._call)

    def _take_usage(self, chunk: Answer[Any], usage: Usage) -> None:
        trim(usage, self._call)
        self.usage = multiply(usage, self._copies) if self._copies else usage
        chunk.usage = self.usage if self._call.continuous_usage else None

    def _repeated(self, chunk: Answer[Any], extra: dict[str, Any]) -> Iterator[Event]:
        """Yield a greedy chunk once for each of the choices that share it, with the fields that no type names."""
        beside = extra.get("choices") or [None] * len(chunk.choices)
        for choice, more in zip(chunk.choices, beside, strict=True):
            for one in copies(choice, self._copies, self._call):
                repeated = msgspec.structs.replace(chunk, choices=[one])
                yield lay(repeated, extra | {"choices": [more]}) if extra else repeated


def event_failure(payload: bytes, call: Call) -> BackendError:
    """Read an event that is no chunk: an engine's error, or nonsense."""
    try:
        value = msgspec.json.decode(payload)
    except problem.UNREADABLE:
        return BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
    if not isinstance(value, dict) or "error" not in value:
        return BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL)
    error = value["error"]
    status = error.get("code") if isinstance(error, dict) else None
    return classify(status if isinstance(status, int) else 500, problem.read_value(value), call)


def classify(status: int, found: problem.Problem, call: Call | None) -> BackendError:
    """Turn a status and what the body says into the cause."""
    if status in (400, 413, 422):
        if problem.CONTEXT.search(found.message):
            return BackendError(Cause.CONTEXT, too_long(problem.context_length(found.message)), prompt_param(call))
        return BackendError(Cause.INVALID, found.message or "The engine refused the request.", found.param)
    if status in (401, 403):
        return BackendError(Cause.REFUSED, "The engine refused the gateway's credentials.")
    if status in (404, 405):
        return BackendError(Cause.MISSING, "The engine does not serve this model here.")
    if status == 429:
        return BackendError(Cause.LIMITED, found.message or "The engine's rate limit is reached.")
    if status == 503:
        return BackendError(Cause.OVERLOADED, "The engine is busy and takes no new requests now.")
    return BackendError(Cause.FAILED, FAILED)


def too_long(context: int | None) -> str:
    """Return what a client is told of a prompt that does not fit, whichever engine found it out.

    The words are those that clients look for: "maximum context length", "prompt is too long".
    """
    length = "" if context is None else f" is {context} tokens"
    return f"This model's maximum context length{length or ' is exceeded'}: the prompt is too long."


def prompt_param(call: Call | None) -> str:
    """Return the name of the field that holds the prompt."""
    return "messages" if call is None or isinstance(call.view, ChatRequest) else "prompt"


def greedy_copies(call: Call) -> tuple[int, ...]:
    """Return the indexes of all choices if the `n` of each prompt are one answer repeated; else nothing."""
    view = call.view
    n = view.n or 1
    prompts = 1 if isinstance(view, ChatRequest) else len(view.prompts)
    return tuple(range(n * prompts)) if n > 1 and view.greedy else ()


def copies(choice: Any, n: int, call: Call) -> list[Any]:
    """Return a prompt's only choice as the `n` that were asked for; their tool calls have ids of their own."""
    repeated = repeat(choice, tuple(range(choice.index * n, choice.index * n + n)))
    name = "message" if isinstance(choice, ChatChoice) else "delta"
    said: Any = getattr(choice, name, None)
    for one in repeated if said and said.tool_calls else ():
        tools = [_own(tool, call, one.index, place) for place, tool in enumerate(said.tool_calls)]
        setattr(one, name, msgspec.structs.replace(said, tool_calls=tools))
    return repeated


def _own(tool: ToolCall, call: Call, index: int, place: int) -> ToolCall:
    place = place if tool.index is None else tool.index
    return msgspec.structs.replace(tool, id=tool.id and tool_id(call, index, place))


def dress(answer: Answer[Any], call: Call, kind: str) -> None:
    """Give an answer the gateway's head, and take out what names the engine."""
    answer.id = call.id
    answer.object = kind
    answer.created = call.created
    answer.model = call.model
    answer.system_fingerprint = None


FINISH = {"repetition": "stop", "": None, "eos_token": "stop", "stop_sequence": "stop"}


def finish_choice(choice: Any) -> None:
    """Bring a choice's end into OpenAI's words. Raises BackendError if the engine gave up."""
    if choice.finish_reason in BROKEN:
        raise BackendError(Cause.FAILED, FAILED)
    reason: str | None = choice.finish_reason or None
    choice.finish_reason = reason and FINISH.get(reason, reason)
    choice.stop_reason = None
    if not isinstance(choice, ChunkChoice):
        choice.routed_experts = None


def likeliest(choice: Any, call: Call) -> None:
    """Order each token's likeliest ones, and leave as many as were asked for."""
    most = getattr(call.view, "top_logprobs", None)
    if not most or not isinstance(choice.logprobs, dict):
        return
    content = choice.logprobs.get("content")
    for token in content if isinstance(content, list) else ():
        likely = token.get("top_logprobs") if isinstance(token, dict) else None
        if isinstance(likely, list):
            token["top_logprobs"] = sorted(likely, key=_logprob, reverse=True)[:most]


def _logprob(token: Any) -> float:
    """Return a token's log probability; one without any is the least likely."""
    value: Any = token.get("logprob") if isinstance(token, dict) else None
    return value if isinstance(value, int | float) else float("-inf")


def finish_message(message: Any, call: Call, index: int) -> None:
    """Write `refusal` out, and give tool calls ids of the gateway's."""
    if message.refusal is UNSET:
        message.refusal = None
    if message.tool_calls or message.content is UNSET:
        message.content = message.content or None
    elif isinstance(call.view, ChatRequest) and call.view.must_call:
        message.content = None  # a call that was cut, which vLLM shows as text where it does not stream
    if message.tool_calls:
        for place, tool in enumerate(message.tool_calls):
            finish_tool(tool, call, index, place)
            tool.index = None


def finish_tool_delta(choice: ChunkChoice, call: Call) -> None:
    """The first piece of a call has id, type, name and empty arguments; later ones arguments alone."""
    for tool in choice.delta.tool_calls or ():
        if tool.id is not None:
            finish_tool(tool, call, choice.index, tool.index or 0)
            tool.function.arguments = tool.function.arguments or ""


def finish_tool(tool: ToolCall, call: Call, index: int, place: int) -> None:
    """Give a tool call its id, which is the same whether it is streamed or whole."""
    tool.id = tool_id(call, index, place)
    tool.type = "function"


def tool_id(call: Call, index: int, place: int) -> str:
    """Return `call_` and 24 characters that only this call of this answer has."""
    return "call_" + hashlib.blake2b(f"{call.id}/{index}/{place}".encode(), digest_size=12).hexdigest()


def repeat(choice: Any, indexes: tuple[int, ...]) -> list[Any]:
    """Return the same choice under each of the indexes."""
    return [msgspec.structs.replace(choice, index=index) for index in indexes]


def trim(usage: Usage, call: Call) -> None:
    """Leave out of the usage's details what the engine does not know; an echo alone has generated nothing."""
    if call.view.limit == 0:
        usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        if details := getattr(usage, name):
            setattr(usage, name, {detail: count for detail, count in details.items() if count is not None})


def multiply(usage: Usage, times: int) -> Usage:
    """Return the usage of one prompt answered several times over."""
    written = usage.completion_tokens * times
    return msgspec.structs.replace(usage, completion_tokens=written, total_tokens=usage.prompt_tokens + written)
