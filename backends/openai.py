"""OpenAI's dialect, for any compatible engine; vLLM's dialect is derived from it.

The client's body is forwarded with four changes: the model's name, nulls are removed, tools are left out where there
are none, and the usage is always requested, as the gateway counts tokens (a client that did not ask for it does not get
it). Answers are read into
OpenAI's types and written with the gateway's own id, time and model name.
"""

from functools import partial
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
    FollowUp,
    Headers,
    ServedModel,
    UpstreamRequest,
)
from backends.convert import collected
from backends.extras import WHOLE_CHAT, WHOLE_TEXT
from backends.failures import NOT_THE_PROTOCOL, refusal
from backends.finishing import (
    copies,
    greedy_copies,
    multiply,
    normalize_choice,
    normalize_logprobs,
    normalize_message,
    set_envelope,
    settled,
)
from backends.loads import LoadReader
from backends.odd_events import NO_CHOICES, is_stream, no_answer
from backends.openai_stream import AnyStreamDecoder
from backends.schema import ChatChoice, ChatRequest

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"

NULL = Raw(b"null")

_encode = msgspec.json.Encoder().encode


def raw(value: Any) -> Raw:
    """Return a value as the raw JSON that a Call's body consists of."""
    return Raw(_encode(value))


def without_tools(body: dict[str, Raw]) -> list[str]:
    """Remove what is about tools; return its name."""
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        body.pop(name, None)
    return ["tools"]


class ModelCard(msgspec.Struct):
    """One entry of `GET /v1/models`."""

    id: str
    max_model_len: int | None = None
    root: str | None = None
    parent: str | None = None
    owned_by: str | None = None


def _identity(card: ModelCard) -> tuple[str, ...]:
    return tuple(text or "" for text in (card.root, card.parent, card.owned_by))


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
        return [ServedModel(card.id, card.id, card.max_model_len, identity=_identity(card)) for card in cards]

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
        else:
            body.pop("stream_options", None)  # which ask for nothing, and are refused all the same
        path = CHAT if isinstance(view, ChatRequest) else TEXT
        return [
            UpstreamRequest(path=path, body=_encode(body), stream=call.stream, choices=shared, adapted=tuple(adapted))
        ]

    def adapt(self, call: Call, body: dict[str, Raw]) -> list[str]:
        """Change the parameters that this engine takes differently, in place; return their names."""
        view = call.view
        if isinstance(view, ChatRequest) and not view.tools and body.keys() & {"tools", "tool_choice"}:
            return without_tools(body)
        return []

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | FollowUp:
        """Read a complete answer, or a stream that came in its place. Raises BackendError."""
        chat = isinstance(call.view, ChatRequest)
        try:
            answer, extra = (WHOLE_CHAT if chat else WHOLE_TEXT).read(body)
        except problem.UNREADABLE as error:
            if is_stream(body):
                return collected(call, self.decoder(call, request), body)
            raise no_answer(body, call, error) from error
        if not answer.choices:
            raise no_answer(body, call, NO_CHOICES)
        set_envelope(answer, call, "chat.completion" if chat else "text_completion")
        if len(answer.choices) > 1:
            _number(answer.choices)
        for choice in answer.choices:
            normalize_choice(choice)
            if isinstance(choice, ChatChoice):
                normalize_message(choice, call)
                normalize_logprobs(choice, call)
        answer.usage = answer.usage and settled(answer.usage, call)
        if request.choices:
            n = call.view.n or 1
            answer.choices = [copy for choice in answer.choices for copy in copies(choice, n, call)]
            answer.usage = answer.usage and multiply(answer.usage, n)
            if "choices" in extra:
                extra["choices"] = [beside for beside in extra["choices"] for _ in range(n)]
        return Completion(answer, extra)

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a decoder of chat or text chunks."""
        return AnyStreamDecoder(call, request, partial(self.decode, call, request, {}))

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | FollowUp | Completion:
        """Return the failure for a response whose status is not 200."""
        return refusal(status, headers, body, call)


def _number(choices: list[Any]) -> None:
    """Number the choices by their places, if the engine has not given each a number of its own."""
    if len({choice.index for choice in choices}) < len(choices):
        for place, choice in enumerate(choices):
            choice.index = place
