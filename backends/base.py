"""What the gateway and a dialect say to each other.

A dialect (`backends.vllm`, `backends.tgi`, `backends.openai`) is pure: a Call becomes the bytes of one or
several upstream requests, and an engine's bytes become OpenAI's answers or a BackendError. It never waits,
reads no clock and draws nothing at random: ids and times come with the Call.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, Protocol

from msgspec import Raw, Struct

from backends.loads import LoadReader
from backends.schema import Answer, ChatRequest, CompletionRequest, Usage

Headers = Mapping[str, str]


class Call(Struct, frozen=True, kw_only=True):
    """One request of a client's, read and checked.

    `body` holds every field as the client wrote it, those that `view` does not name too. Every answer carries `id`,
    `created` (Unix seconds) and `model` (the client's name for it). `legacy_functions`: the client used `functions`
    in place of `tools`. `with_tgi_peer`: a TGI serves the same model; a TGI always continues a last message of role
    `assistant`, so the other engines have to do so too.
    """

    view: ChatRequest | CompletionRequest
    body: dict[str, Raw]
    id: str
    created: int
    model: str
    request_id: str
    legacy_functions: bool = False
    with_tgi_peer: bool = False

    @property
    def stream(self) -> bool:
        """Whether the client wants events."""
        return self.view.stream is True

    @property
    def include_usage(self) -> bool:
        """Whether the client wants a last chunk with the usage."""
        options = self.view.stream_options
        return options is not None and options.include_usage is True

    @property
    def continuous_usage(self) -> bool:
        """Whether the client wants the usage so far on every chunk (vLLM's `continuous_usage_stats`)."""
        options = self.view.stream_options
        return options is not None and options.continuous_usage_stats is True


class Continuation(Struct, frozen=True, kw_only=True):
    """What earlier requests for the same answer have come to: an answer may take several.

    `held` is the end of the text that may be the beginning of a stop string. Once `ended`, only the prompt's tokens
    are still to be counted, of an answer or, if `cut`, of a tool call without an end. `attempt` counts what was tried
    again.
    """

    text: str = ""
    held: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    ended: bool = False
    cut: bool = False
    attempt: int = 0


class UpstreamRequest(Struct, frozen=True, kw_only=True):
    """One HTTP POST to an engine.

    `choices` are the indexes of the client's choices that the answer stands for; empty where the engine
    numbers them itself. `prompt` is the place of the prompt it answers, where the client sent several.
    `adapted` names the parameters that were mapped or emulated on the way.
    """

    path: str
    body: bytes
    stream: bool
    choices: tuple[int, ...] = ()
    prompt: int = 0
    adapted: tuple[str, ...] = ()
    continuation: Continuation = Continuation()


class Cause(Enum):
    """Why an engine did not answer as asked. The gateway turns it into a status (`gateway.http.errors`)."""

    INVALID = auto()  # the client asked for what cannot be
    CONTEXT = auto()  # the prompt does not fit the model's context
    NOT_SERVED = auto()  # the engine does not serve that model or path
    OVERLOADED = auto()  # the engine has no room now
    LIMITED = auto()  # an upstream's own rate limit
    FAILED = auto()  # the engine tried and failed
    MODEL_OUTPUT_INVALID = auto()  # the engine is well, and what its model wrote is not what was asked for
    UPSTREAM_AUTH = auto()  # the engine does not accept the gateway's credentials
    PROTOCOL_ERROR = auto()  # what came is not this engine's protocol


class BackendError(Exception):
    """An engine's failure, in words that a client may read. `param` names the field of the request at fault."""

    def __init__(self, cause: Cause, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.param = param


class FollowUp(Struct, frozen=True):
    """The engine's answer is no answer yet: send this request, too, and take its answer instead."""

    request: UpstreamRequest


class ServedModel(Struct, frozen=True):
    """A model that an engine says it serves.

    Its name for people, what a request must call it, the context length in tokens, and whether it takes images.
    """

    name: str
    model: str
    max_model_len: int | None = None
    supports_vision: bool = False


class Completion(Struct):
    """A whole answer, chat or legacy, and the engine's fields that no type names."""

    answer: Answer[Any]
    extra: dict[str, Any] = {}


Event = Answer[Any] | dict[str, Any]
"""A chunk for the client, complete with its head; a dict where the engine sent fields that no type names."""


class Decoder(Protocol):
    """Reads one engine's stream for one request. After each `feed`, look at the attributes.

    The usage never comes as an event, but for what `continuous_usage_stats` asks for: whoever writes the
    client's stream ends it with the usage, as several engine streams may make one.
    """

    usage: Usage | None
    finished: bool  # the stream has said all it had to, and said so
    failure: BackendError | FollowUp | Completion | None  # nothing that follows is of use

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take one read of the engine's body, cut anywhere; return the chunks for the client."""
        ...

    def end(self) -> None:
        """The engine's body has ended: if it had not finished, set `failure`."""
        ...


class Backend(Protocol):
    """An engine's dialect."""

    name: str
    label: str  # what people call the engine
    passthrough_paths: frozenset[str]  # paths that it takes as they are, beside OpenAI's chat and completions
    facts_path: str
    health_path: str  # the engine's own check; empty if it has none
    load: LoadReader

    def served(self, body: bytes) -> list[ServedModel]:
        """Read the answer of `facts_path`. Raises BackendError (PROTOCOL_ERROR)."""
        ...

    def unsupported(self, call: Call, supports_vision: bool = False) -> str | None:
        """Return the first parameter of the call that this engine has no way to honour, or None.

        `supports_vision` is whether the model takes images, where the engine does not say so itself.
        """
        ...

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return what to send, for the engine's own name of the model. Raises BackendError (INVALID)."""
        ...

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | FollowUp:
        """Read a whole answer of status 200. Raises BackendError."""
        ...

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a reader for the stream that answers the request."""
        ...

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | FollowUp | Completion:
        """Read an answer whose status is not 200. Some are answers all the same."""
        ...
