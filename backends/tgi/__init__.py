"""TGI's dialect (CONTRACT.md 0 to 5): the client's body is not forwarded; a new one is built.

Chats go to `/v1/chat/completions`, one request for each choice, as TGI ignores `n`. Legacy completions go to
TGI's own `/generate`, one request for each prompt and choice: TGI's `/v1/completions` has no logprobs, includes the
end-of-sequence token and answers out of order. A chat with tools is never streamed from TGI, whose streamed tool
calls are malformed. A parameter that TGI cannot honour is named by `unsupported`, never dropped.
"""

from collections.abc import Iterator
from functools import partial

import msgspec
from msgspec import Struct

from backends import parameters, problem
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
from backends.failures import NOT_THE_PROTOCOL
from backends.loads import LoadReader
from backends.odd_events import NO_CHOICES, is_stream, no_answer
from backends.schema import ChatRequest, CompletionRequest, Message, Part
from backends.tgi import grammars
from backends.tgi.answers import chat_completion, counted, prompt_tokens, text_completion
from backends.tgi.errors import by_status
from backends.tgi.requests import MAX_CHOICES, chat_requests, parameters_of, text_requests
from backends.tgi.streams import ChatDecoder, GenerateDecoder

SEES = "image-text-to-text"
LINK = "![](http"


class Info(Struct):
    """The fields of `GET /info` that are used."""

    model_id: str
    max_total_tokens: int
    model_pipeline_tag: str | None = None
    model_sha: str | None = None
    version: str | None = None
    sha: str | None = None
    docker_label: str | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells one version of the engine, or of the model, from another."""
        return tuple(text or "" for text in (self.model_sha, self.version, self.sha, self.docker_label))


class TGI:
    """The dialect of HuggingFace's Text Generation Inference."""

    name = "tgi"
    label = "TGI"
    passthrough_paths: frozenset[str] = frozenset()
    facts_path = "/info"
    health_path = "/health"
    load = LoadReader("/metrics", {"running": "tgi_batch_current_size", "waiting": "tgi_queue_size"})

    def served(self, body: bytes) -> list[ServedModel]:
        """Read `GET /info`: one model. Requests call it `tgi`, as another name would select an adapter."""
        try:
            info = msgspec.json.decode(body, type=Info)
        except problem.UNREADABLE as error:
            raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL) from error
        sees = info.model_pipeline_tag == SEES
        return [ServedModel(info.model_id, "tgi", info.max_total_tokens, sees, info.identity)]

    def unsupported(self, call: Call, supports_vision: bool = False) -> str | None:
        """Return the name of the first parameter that TGI would drop or cannot take, or None."""
        return next(_unsupported(call, supports_vision), None)

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return one request for each choice of each prompt; one for all choices of a prompt if sampling is greedy."""
        if isinstance(call.view, ChatRequest):
            return chat_requests(call, call.view, model)
        return text_requests(call, call.view)

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | FollowUp:
        """Read a complete answer. Raises BackendError."""
        if request.continuation.ended:
            return counted(call, request, prompt_tokens(headers, body))
        try:
            if isinstance(call.view, ChatRequest):
                return chat_completion(call, call.view, request, headers, body)
            return text_completion(call, call.view, request, headers, body)
        except IndexError as error:
            raise no_answer(body, call, NO_CHOICES) from error
        except (*problem.UNREADABLE, ValueError) as error:
            if is_stream(body):
                return collected(call, self.decoder(call, request), body)
            raise no_answer(body, call, error) from error

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a decoder of chat chunks or of `/generate_stream`'s events."""
        read_whole = partial(self.decode, call, request, {})
        if isinstance(call.view, ChatRequest):
            return ChatDecoder(call, call.view, request, read_whole)
        return GenerateDecoder(call, call.view, request, read_whole)

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | FollowUp | Completion:
        """Read a response whose status is not 200."""
        return by_status(call, request, status, headers, body)


def _unsupported(call: Call, supports_vision: bool) -> Iterator[str]:
    view = call.view
    yield from parameters.unsupported_by_tgi(call)
    if (view.n or 1) > MAX_CHOICES:
        yield "n"
    if -1 in (view.logprobs, getattr(view, "top_logprobs", None)):  # vLLM's word for the whole vocabulary
        yield "logprobs" if view.logprobs == -1 else "top_logprobs"
    if isinstance(view, ChatRequest):
        yield from _unsupported_chat(view, supports_vision)
    else:
        yield from _unsupported_text(view, supports_vision)


def _unsupported_chat(view: ChatRequest, supports_vision: bool) -> Iterator[str]:
    for place, message in enumerate(view.messages):
        if not _readable(message, supports_vision):
            yield f"messages[{place}].content"
    wanted = view.response_format
    grammar = None
    if wanted and wanted.type != "text":
        grammar = grammars.of_format(wanted)
        if view.offers_tools or not grammar:
            yield "response_format"
    if view.structured_outputs and (view.offers_tools or grammar or not grammars.of_outputs(view.structured_outputs)):
        yield "structured_outputs"
    for place, tool in enumerate(view.tools or ()):
        if parameters_of(tool) is None:
            yield f"tools[{place}].function.parameters"


def _readable(message: Message, supports_vision: bool) -> bool:
    """Whether TGI can take a message's content. With vision it would fetch every image that a text links to."""
    parts = message.content if isinstance(message.content, list) else [Part("text", message.content)]
    kinds = ("text", "image_url") if supports_vision else ("text",)
    return all(part.type in kinds and not (supports_vision and LINK in (part.text or "")) for part in parts)


def _unsupported_text(view: CompletionRequest, supports_vision: bool) -> Iterator[str]:
    if not all(isinstance(prompt, str) and not (supports_vision and LINK in prompt) for prompt in view.prompts):
        yield "prompt"
    if view.echo and view.logprobs is not None:
        yield "echo"
    if view.structured_outputs and not grammars.of_outputs(view.structured_outputs):
        yield "structured_outputs"
