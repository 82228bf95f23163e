"""OpenAI's dialect, for any compatible engine; vLLM's dialect is derived from it.

The client's body is forwarded with three changes: the model's name, nulls are removed, and the usage is always
requested, as the gateway counts tokens (a client that did not ask for it does not get it). Answers are read into
OpenAI's types and written with the gateway's own id, time and model name.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

from backends import problem
from backends.base import (
    BackendError,
    Call,
    Cause,
    Completion,
    Decoder,
    Event,
    FollowUp,
    Headers,
    ServedModel,
    UpstreamRequest,
)
from backends.extras import ExtrasReader, merge_extra
from backends.failures import CUT, NOT_THE_PROTOCOL, classify, event_failure
from backends.finishing import (
    copies,
    greedy_copies,
    multiply,
    normalize_choice,
    normalize_message,
    normalize_tool_delta,
    set_envelope,
    sort_top_logprobs,
    trim,
)
from backends.loads import LoadReader
from backends.schema import (
    Answer,
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatRequest,
    TextAnswer,
    Usage,
)
from backends.sse import DONE, EventReader, EventTooLarge

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

NULL = Raw(b"null")

_encode = msgspec.json.Encoder().encode


def raw(value: Any) -> Raw:
    """Return a value as the raw JSON that a Call's body consists of."""
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
    passthrough_paths: frozenset[str] = frozenset(
        {
            "/v1/audio/transcriptions",
            "/v1/audio/translations",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/responses/input_tokens",
        }
    )
    facts_path = "/v1/models"
    health_path = ""
    load = LoadReader("", {})

    def served(self, body: bytes) -> list[ServedModel]:
        """Read `GET /v1/models`."""
        try:
            cards = msgspec.json.decode(body, type=ModelList).data
        except problem.UNREADABLE as error:
            raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL) from error
        return [ServedModel(card.id, card.id, card.max_model_len) for card in cards]

    def unsupported(self, call: Call, supports_vision: bool = False) -> str | None:
        """Return None: the engine itself refuses what it does not support."""
        return None

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return one request: the client's body with the engine's model name; of greedy choices, one is requested."""
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
        """Change the parameters that this engine takes differently, in place; return their names."""
        return []

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | FollowUp:
        """Read a complete answer. Raises BackendError."""
        chat = isinstance(call.view, ChatRequest)
        try:
            answer, extra = (WHOLE_CHAT if chat else WHOLE_TEXT).read(body)
        except problem.UNREADABLE as error:
            raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL) from error
        if not answer.choices:
            raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
        set_envelope(answer, call, "chat.completion" if chat else "text_completion")
        for choice in answer.choices:
            normalize_choice(choice)
            if isinstance(choice, ChatChoice):
                normalize_message(choice.message, call, choice.index)
                sort_top_logprobs(choice, call)
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
        """Return a decoder of chat or text chunks."""
        return StreamDecoder(call, request)

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | FollowUp | Completion:
        """Return the failure for a response whose status is not 200."""
        return classify(status, problem.read(body), call)


WHOLE_CHAT = ExtrasReader(ChatAnswer)
WHOLE_TEXT = ExtrasReader(TextAnswer)
CHAT_CHUNK = ExtrasReader(ChatChunk)


class StreamDecoder:
    """Reads a stream of OpenAI chunks, chat or text; see `backends.base.Decoder`."""

    def __init__(self, call: Call, request: UpstreamRequest) -> None:
        self.usage: Usage | None = None
        self.finished = False
        self.failure: BackendError | FollowUp | Completion | None = None
        self._call = call
        self._copies = (call.view.n or 1) if request.choices else 0
        self._events = EventReader()
        self._chat = isinstance(call.view, ChatRequest)
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        self._head = call.id, kind, call.created, call.model
        self._reader: ExtrasReader[Any] = CHAT_CHUNK if self._chat else WHOLE_TEXT
        self._decode = self._reader.decode
        self._begun: set[int] = set()
        self._ended: set[int] = set()  # choices whose finish reason has come

    def feed(self, data: bytes) -> list[Event]:
        """Take the bytes of one read; return the chunks that they complete."""
        events: list[Event] = []
        try:
            payloads = self._events.feed(data)
        except EventTooLarge:
            self.failure = BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL)
            return events
        for payload in payloads:
            try:
                chunk = self._decode(payload)
                self._take(chunk)
                if self._copies:
                    events += self._repeated(chunk, {})
                elif chunk.choices:
                    events.append(chunk)
            except problem.UNREADABLE:  # not a chunk, or one with fields that no type names
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
        """Note the end of the body: sets `failure` if `[DONE]` was missing."""
        if not self.finished and self.failure is None:
            self.failure = BackendError(Cause.FAILED, CUT)

    def _done(self) -> None:
        # A failing engine may still send [DONE]: without a finish reason the answer is not complete.
        if self._ended and self._begun <= self._ended:
            self.finished = True
        else:
            self.failure = BackendError(Cause.FAILED, CUT)

    def _take_open(self, payload: bytes, events: list[Event]) -> bool:
        """Take an event with fields that no type names; return False, with `failure` set, if it is not a chunk."""
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
            events.append(merge_extra(chunk, extra))
        return True

    def _take(self, chunk: Answer[Any]) -> None:
        """Note the chunk's usage and finish reasons, and normalize it."""
        chunk.id, chunk.object, chunk.created, chunk.model = self._head
        chunk.system_fingerprint = None
        if chunk.usage is not None:
            self._take_usage(chunk, chunk.usage)
        chat = self._chat
        for choice in chunk.choices:
            if chat and choice.finish_reason is None and choice.stop_reason is None:  # as nearly always
                self._begun.add(choice.index)
            else:
                normalize_choice(choice)
                (self._begun if choice.finish_reason is None else self._ended).add(choice.index)
            if chat and (choice.delta.tool_calls or choice.logprobs):
                normalize_tool_delta(choice, self._call)
                sort_top_logprobs(choice, self._call)

    def _take_usage(self, chunk: Answer[Any], usage: Usage) -> None:
        trim(usage, self._call)
        self.usage = multiply(usage, self._copies) if self._copies else usage
        chunk.usage = self.usage if self._call.continuous_usage else None

    def _repeated(self, chunk: Answer[Any], extra: dict[str, Any]) -> Iterator[Event]:
        """Yield a copy of a greedy chunk for each of the choices, with the extra fields."""
        beside = extra.get("choices") or [None] * len(chunk.choices)
        for choice, more in zip(chunk.choices, beside, strict=True):
            for one in copies(choice, self._copies, self._call):
                repeated = msgspec.structs.replace(chunk, choices=[one])
                yield merge_extra(repeated, extra | {"choices": [more]}) if extra else repeated
