"""The interface between the gateway and a dialect.

A dialect (`backends.vllm`, `backends.tgi`, `backends.openai`) is pure: a Call becomes the bytes of one or
several upstream requests, and an engine's bytes become OpenAI's answers or a BackendError. It does no I/O and uses
neither a clock nor random numbers: ids and times come with the Call.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, Literal, Protocol

from msgspec import Raw, Struct

from backends.loads import LoadReader
from backends.schema import Answer, ChatRequest, CompletionRequest, Usage
from backends.splice import Copied

Headers = Mapping[str, str]
ReasoningField = Literal["both", "reasoning", "reasoning_content"]


class Call(Struct, frozen=True, kw_only=True):
    """One client request, parsed and validated.

    `body` holds every field as the client wrote it, those that `view` does not name too. Every answer carries `id`,
    `created` (Unix seconds) and `model` (the client's name for it). `legacy_functions`: the client used `functions`
    in place of `tools`. `with_tgi_peer`: a TGI serves the same model; a TGI always continues a last message of role
    `assistant`, so the other engines have to do so too. `system_fingerprint` is the gateway's own, of the engine that
    is asked (OpenAI API reference, "The chat completion object"). `reasoning_field`: where its clients look for what
    the model thought. `tools_in_prompt`: where the model's chat template knows no tools, they
    go into the prompt (`backends.tools_prompt`); an engine is told whether its template does.
    """

    view: ChatRequest | CompletionRequest
    body: dict[str, Raw]
    id: str
    created: int
    model: str
    request_id: str
    legacy_functions: bool = False
    with_tgi_peer: bool = False
    system_fingerprint: str | None = None
    reasoning_field: ReasoningField = "both"
    tools_in_prompt: bool = False

    @property
    def stream(self) -> bool:
        """Whether the client asked for a stream."""
        return self.view.stream is True

    @property
    def include_usage(self) -> bool:
        """Whether the client asked for a last chunk with the usage."""
        options = self.view.stream_options
        return options is not None and options.include_usage is True

    @property
    def continuous_usage(self) -> bool:
        """Whether the client asked for the usage so far in every chunk (vLLM's `continuous_usage_stats`).

        It is said beside `include_usage`, without which vLLM ignores it.
        """
        options = self.view.stream_options
        return self.include_usage and options is not None and options.continuous_usage_stats is True


class Continuation(Struct, frozen=True, kw_only=True):
    """The state after earlier upstream requests for the same answer; one answer may take several requests.

    `text` and `tokens` were generated so far; `held` is the end of the text, which may be the beginning of a stop
    string. If `ended`, the answer is complete and the request only counts the prompt's tokens; if also `cut`, the
    answer is a tool call that the token limit cut off. `attempt` is the number of retries so far.
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

    `choices` are the indexes of the client's choices that the answer is for; empty if the engine numbers them
    itself. `prompt` is the index of the prompt it answers. `adapted` names the parameters that were mapped or
    emulated. `continuation` is what earlier requests for the same answer returned. `calls_tool`: the answer's text is
    the JSON of a tool call (`backends.tools_prompt`).
    """

    path: str
    body: bytes
    stream: bool
    choices: tuple[int, ...] = ()
    prompt: int = 0
    adapted: tuple[str, ...] = ()
    continuation: Continuation = Continuation()
    calls_tool: bool = False


class Cause(Enum):
    """Why an engine did not answer as asked. The gateway turns it into a status (`gateway.http.errors`)."""

    INVALID = auto()  # the request is invalid
    CONTEXT = auto()  # the prompt does not fit the model's context
    PAYMENT_REQUIRED = auto()  # the account at the engine has no credit left
    NOT_SERVED = auto()  # the engine does not serve that path
    MODEL_NOT_FOUND = auto()  # the engine does not serve that model, such as an adapter that it has unloaded
    NOT_FOUND = auto()  # something else that the request names does not exist
    CONFLICT = auto()  # the request conflicts with the state of the engine
    TOO_LARGE = auto()  # the body is larger than the engine takes
    MEDIA_TYPE = auto()  # the body is in a form that the engine does not take
    NOT_IMPLEMENTED = auto()  # the engine cannot do what is asked
    OVERLOADED = auto()  # the engine takes no more requests now
    LIMITED = auto()  # an upstream's own rate limit
    FAILED = auto()  # the engine failed while it worked on the request
    MODEL_OUTPUT_INVALID = auto()  # the engine is healthy, but its model's output is not usable
    UPSTREAM_AUTH = auto()  # the engine does not accept the gateway's credentials
    PROTOCOL_ERROR = auto()  # the answer does not follow this engine's protocol


class BackendError(Exception):
    """An engine's failure. `message` may be shown to clients; `param` names the request field at fault.

    `retry_after` is the engine's header of that name, as it came (RFC 9110, 10.2.3); empty if there was none.
    """

    def __init__(self, cause: Cause, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
        self.param = param
        self.retry_after = ""


class FollowUp(Struct, frozen=True):
    """The answer is not complete: send this request too, and use its answer instead."""

    request: UpstreamRequest


class ServedModel(Struct, frozen=True):
    """A model that an engine reports.

    `name` is for display, `model` is what a request must send; `max_model_len` is the context length in tokens, and
    `supports_vision` whether the model takes images. `identity` is what else the engine says of itself and of the model
    (versions, checksums): it changes when they do.
    """

    name: str
    model: str
    max_model_len: int | None = None
    supports_vision: bool = False
    identity: tuple[str, ...] = ()


class Completion(Struct):
    """A complete answer, chat or legacy, and `extra`: the engine's fields that no type names."""

    answer: Answer[Any]
    extra: dict[str, Any] = {}


Event = Answer[Any] | dict[str, Any]
"""A chunk for the client, with id, time and model name set; a dict if the engine sent fields that no type names."""


class Decoder(Protocol):
    """Reads one engine's stream for one request. After each `feed`, look at the attributes.

    The usage is never an event of its own (`continuous_usage_stats` puts it into the chunks): the caller writes it at
    the end of the client's stream, as several engine streams may make one.
    """

    usage: Usage | None
    answered: bool  # each choice has its finish reason: nothing but the usage may still come
    finished: bool  # the stream is complete
    failure: BackendError | FollowUp | Completion | None  # if set, ignore the rest of the stream

    def copy_alike(self, copied: Copied) -> None:
        """Copy events that differ in their text alone, where that can be done: for whom nobody else reads along with.

        They come as bytes in the place of an Event, ready to be sent; `copied` is told their texts.
        """
        ...

    def feed(self, data: bytes) -> Sequence[Event]:
        """Take the bytes of one read, split anywhere; return the chunks for the client."""
        ...

    def end(self) -> Sequence[Event]:
        """Call this at the end of the engine's body: sets `finished`, or `failure` if the answer was not complete.

        Returns the chunks of what came last without its blank line, or of a whole answer in the place of a stream.
        """
        ...


class Backend(Protocol):
    """An engine's dialect."""

    name: str
    label: str  # the engine's name for display
    passthrough_paths: frozenset[str]  # paths forwarded unchanged, besides chat and completions
    facts_path: str
    health_path: str  # the engine's own check; empty if it has none
    load: LoadReader

    def served(self, body: bytes) -> list[ServedModel]:
        """Read the answer of `facts_path`. Raises BackendError (PROTOCOL_ERROR)."""
        ...

    def unsupported(self, call: Call, supports_vision: bool = False) -> str | None:
        """Return the name of the first parameter of the call that this engine cannot honour, or None.

        `supports_vision`: whether the model takes images.
        """
        ...

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return the requests to send; `model` is the engine's own name of it. Raises BackendError (INVALID)."""
        ...

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | FollowUp:
        """Read the body of a complete answer with status 200. Raises BackendError."""
        ...

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a decoder for the stream that answers the request."""
        ...

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | FollowUp | Completion:
        """Read a response whose status is not 200. Some of TGI's errors lead to a FollowUp or a Completion."""
        ...
