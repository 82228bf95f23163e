"""TGI's dialect (contract sections 0 to 5): nothing of the client's body is forwarded, all of it is built.

Chats go to `/v1/chat/completions`, one request for each choice, as TGI ignores `n`. Legacy completions go to
TGI's own `/generate`, one request for each prompt and choice: TGI's `/v1/completions` has no logprobs, leaks the
end of sequence and answers out of order. A chat with tools is always asked for whole, as TGI streams tool
calls broken. What TGI has no way to do is named by `unsupported`, never dropped.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from backends import parameters, problem
from backends.base import (
    Again,
    BackendError,
    Call,
    Cause,
    Completion,
    Decoder,
    Headers,
    Served,
    UpstreamRequest,
)
from backends.openai import FAILED, NOT_THE_PROTOCOL, prompt_param
from backends.schema import ChatRequest, CompletionRequest, Message, NamedTool, ResponseFormat, Tool
from backends.tgi_answers import ChatDecoder, GenerateDecoder, chat_completion, cut_tool_call, text_completion

CHAT = "/v1/chat/completions"
WHOLE = "/generate"
STREAM = "/generate_stream"
MOST_CHOICES = 16
GREEDY = {"temperature": 0.0}

_encode = msgspec.json.Encoder().encode
_ROOM = re.compile(r"tokens \+ `max_new_tokens` must be <= (\d+)\. Given: (\d+)")
_BLAMED = re.compile(r"`(\w+)` |(grammar) is not valid")
_TOO_LONG = re.compile(r"must have less than (\d+) tokens\. Given: (\d+)")
_CAUSES = {
    "overloaded": (Cause.OVERLOADED, "The engine is busy and takes no new requests now."),
    "generation": (Cause.FAILED, FAILED),
    "incomplete_generation": (Cause.FAILED, FAILED),
    "healthcheck": (Cause.FAILED, FAILED),
}
_BY_STATUS = {
    429: (Cause.LIMITED, "The engine's rate limit is reached."),
    503: _CAUSES["overloaded"],
}


class Info(Struct):
    """What `GET /info` says, as far as it is used."""

    model_id: str
    max_total_tokens: int


class TGI:
    """The dialect of HuggingFace's Text Generation Inference."""

    name = "tgi"
    label = "TGI"
    passes: frozenset[str] = frozenset()
    facts_path = "/info"

    def served(self, body: bytes) -> list[Served]:
        """Read `GET /info`: one model, which a request calls `tgi`, as other names would ask for an adapter."""
        try:
            info = msgspec.json.decode(body, type=Info)
        except problem.UNREADABLE as error:
            raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL) from error
        return [Served(info.model_id, "tgi", info.max_total_tokens)]

    def unsupported(self, call: Call) -> str | None:
        """Return the first parameter that TGI would drop, or could not be given."""
        return next(_unsupported(call), None)

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return one request for each choice of each prompt; greedy choices of a prompt are asked for once."""
        if isinstance(call.view, ChatRequest):
            return _encode_chat(call, call.view, model)
        return _encode_text(call, call.view)

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | Again:
        """Read a whole answer."""
        try:
            if isinstance(call.view, ChatRequest):
                return chat_completion(call, call.view, request, headers, body)
            return text_completion(call, call.view, request, headers, body)
        except (*problem.UNREADABLE, IndexError, ValueError) as error:
            raise BackendError(Cause.NONSENSE, NOT_THE_PROTOCOL) from error

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a reader of chat chunks or of `/generate_stream`'s events."""
        if isinstance(call.view, ChatRequest):
            return ChatDecoder(call, call.view, request, _failed)
        return GenerateDecoder(call, call.view, request, _failed)

    def failure(
        self, call: Call | None, request: UpstreamRequest | None, status: int, headers: Headers, body: bytes
    ) -> BackendError | Again | Completion:
        """Read an answer whose status is not 200."""
        if status in (401, 403):
            return BackendError(Cause.REFUSED, "The engine refused the gateway's credentials.")
        if status in (404, 405):
            return BackendError(Cause.MISSING, "The engine does not serve this model here.")
        if status == 413:
            return BackendError(Cause.INVALID, "The request is larger than the engine takes.")
        found = problem.read(body)
        if status in (400, 415, 422) or (found.kind or _kind(found.message)) in _CAUSES:
            return _failed(call, request, found)
        return BackendError(*_BY_STATUS.get(status, (Cause.FAILED, FAILED)))


# --- what TGI cannot do ---------------------------------------------------------------------------------------


def _unsupported(call: Call) -> Iterator[str]:
    view = call.view
    yield from parameters.unsupported_by_tgi(call)
    if (view.n or 1) > MOST_CHOICES:
        yield "n"
    if isinstance(view, ChatRequest):
        yield from _unsupported_chat(view)
    else:
        yield from _unsupported_text(view)


def _unsupported_chat(view: ChatRequest) -> Iterator[str]:
    for place, message in enumerate(view.messages):
        if isinstance(message.content, list) and any(part.type != "text" for part in message.content):
            yield f"messages[{place}].content"
    wanted = view.response_format
    if wanted and wanted.type != "text" and (view.tools or not _grammar(wanted)):
        yield "response_format"


def _unsupported_text(view: CompletionRequest) -> Iterator[str]:
    if not all(isinstance(prompt, str) for prompt in view.prompts):
        yield "prompt"
    if view.echo and view.logprobs is not None:
        yield "echo"
    if view.max_tokens == 0:
        yield "max_tokens"


# --- requests -------------------------------------------------------------------------------------------------


def _encode_chat(call: Call, view: ChatRequest, model: str) -> list[UpstreamRequest]:
    body: dict[str, Any] = {"model": model, "messages": [_message(message) for message in view.messages]}
    adapted = []
    if view.limit is not None:
        body["max_tokens"] = view.limit
    body |= GREEDY if view.greedy else _sampling(call)
    if stops := view.stops:
        body["stop"] = stops
        adapted.append("stop")
    if view.logprobs:
        body |= {"logprobs": True, "top_logprobs": view.top_logprobs or 0}
        adapted.append("logprobs")
    if view.response_format and (grammar := _grammar(view.response_format)):
        body["response_format"] = grammar
        adapted.append("response_format")
    if view.offers_tools:
        body |= {"tools": [_tool(tool) for tool in view.tools or ()], "tool_choice": _tool_choice(view)}
        adapted.append("tools")
    stream = call.stream and not view.offers_tools
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return list(_fan_out(call, CHAT, body, body, stream, adapted))


def _encode_text(call: Call, view: CompletionRequest) -> list[UpstreamRequest]:
    settings: dict[str, Any] = {"details": True, "max_new_tokens": view.limit}
    adapted = []
    settings |= {"do_sample": False} if view.greedy else {"do_sample": True, **_sampling(call)}
    if stops := view.stops:
        settings["stop"] = stops
        adapted.append("stop")
    if view.logprobs is not None:
        settings["top_n_tokens"] = view.logprobs
        adapted.append("logprobs")
    if view.echo:
        adapted.append("echo")
    asked = view.prompts
    if len(asked) > 1:
        adapted.append("prompt")
    path = STREAM if call.stream else WHOLE
    requests: list[UpstreamRequest] = []
    for place, prompt in enumerate(asked):
        body = {"inputs": prompt, "parameters": settings}
        requests += _fan_out(call, path, body, settings, call.stream, adapted, place)
    return requests


def _fan_out(
    call: Call,
    path: str,
    body: dict[str, Any],
    settings: dict[str, Any],
    stream: bool,
    adapted: list[str],
    place: int = 0,
) -> Iterator[UpstreamRequest]:
    """Yield the requests for `n` choices of one prompt; `settings` is the part of the body that holds the seed."""
    view = call.view
    n = view.n or 1
    indexes = range(place * n, place * n + n)
    for i, choices in enumerate([tuple(indexes)] if view.greedy else [(index,) for index in indexes]):
        if view.seed is not None and not view.greedy:
            settings["seed"] = (view.seed + i) & 0x7FFF_FFFF_FFFF_FFFF
        done = (*adapted, "n") if n > 1 else tuple(adapted)
        yield UpstreamRequest(path=path, body=_encode(body), stream=stream, choices=choices, prompt=place, adapted=done)


def _sampling(call: Call) -> dict[str, Any]:
    """Return temperature and nucleus; TGI refuses a `top_p` of 1, which is the same as none."""
    settings: dict[str, Any] = {}
    view = call.view
    if view.temperature is not None:
        settings["temperature"] = max(view.temperature, 0.01)
    if view.top_p is not None and view.top_p < 1:
        settings["top_p"] = view.top_p
    return settings


def _message(message: Message) -> dict[str, Any]:
    """TGI drops tool calls beside a content, and would write an argument string into JSON a second time."""
    written: dict[str, Any] = {"role": message.role}
    if message.name is not None:
        written["name"] = message.name
    if message.tool_calls:
        written["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    else:
        written["content"] = message.text
    return written


def _arguments(text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except problem.UNREADABLE:
        return text
    return value if isinstance(value, dict) else text


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description is not None:
        function["description"] = tool.function.description
    function["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _tool_choice(view: ChatRequest) -> Any:
    choice = view.tool_choice
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.function.name}}
    return choice or "auto"


def _grammar(wanted: ResponseFormat) -> dict[str, Any] | None:
    """Return TGI's form of a response format; None where it has none."""
    if wanted.value is not None:
        return {"type": wanted.type, "value": wanted.value}
    schema = wanted.json_schema and wanted.json_schema.schema
    if wanted.type == "json_schema" and wanted.json_schema and schema and "properties" in schema:
        return {"type": "json_schema", "value": {"name": wanted.json_schema.name, "schema": schema}}
    return None


# --- errors ---------------------------------------------------------------------------------------------------


def _failed(
    call: Call | None, request: UpstreamRequest | None, found: problem.Problem
) -> BackendError | Again | Completion:
    """Sort an error by what it says: in a stream TGI's status is 200, and its code always 422."""
    message = found.message.removeprefix("Input validation error: ")
    kind = found.kind or _kind(found.message)
    if kind in _CAUSES:
        return BackendError(*_CAUSES[kind])
    if call is None or request is None:
        return BackendError(Cause.INVALID, message or "The engine refused the request.")
    if kind == "tool_error":
        return _tool_error(call, request, message)
    if room := _ROOM.search(message) or _TOO_LONG.search(message):
        return _too_long(call, request, int(room[1]), int(room[2]))
    return _invalid(call, message, found.param)


def _invalid(call: Call, message: str, param: str | None) -> BackendError:
    """Blame the client's field where the message begins with TGI's name of it."""
    if param is None and (blamed := _BLAMED.match(message)):
        theirs = blamed[1] or blamed[2]
        param = _ours(call).get(theirs, theirs)
        message = message.replace(theirs, param)
    return BackendError(Cause.INVALID, message or "The engine refused the request.", param)


def _ours(call: Call) -> dict[str, str]:
    """Return OpenAI's names of what TGI calls differently."""
    likeliest = "top_logprobs" if isinstance(call.view, ChatRequest) else "logprobs"
    names = {"max_new_tokens": "max_tokens", "top_n_tokens": likeliest, "grammar": "response_format"}
    return names | {"inputs": prompt_param(call)}


def _kind(message: str) -> str:
    if message.startswith("Model is overloaded"):
        return "overloaded"
    if message.startswith(("Request failed during generation", "Incomplete generation")):
        return "generation"
    return "tool_error" if message.startswith("Tool error") else ""


def _too_long(call: Call, request: UpstreamRequest, context: int, prompt: int) -> BackendError | Again:
    """Cap what is to be generated at what the context has left, as vLLM does by itself."""
    limit = call.view.limit
    if prompt >= context:
        text = f"This model's maximum context length is {context} tokens, and the prompt has {prompt}."
        return BackendError(Cause.CONTEXT, text, prompt_param(call))
    if limit is not None and limit > context:
        text = f"max_tokens must be at most {context}, the model's context length, not {limit}."
        return BackendError(Cause.INVALID, text, "max_tokens")
    body = msgspec.json.decode(request.body)
    if "parameters" in body:
        body["parameters"]["max_new_tokens"] = context - prompt
    else:
        body["max_tokens"] = context - prompt
    return Again(msgspec.structs.replace(request, body=_encode(body)))


def _tool_error(call: Call, request: UpstreamRequest, message: str) -> BackendError | Again | Completion:
    """Read what became of a tool call that TGI could not parse (contract section 3.5)."""
    if "EOF while parsing" in message:
        return cut_tool_call(call, request)
    if "missing field `function`" not in message:
        return BackendError(Cause.INVALID, message.removeprefix("Tool error: "), "tools")
    body = msgspec.json.decode(request.body)
    if body.get("tool_choice") == "auto":  # `{ }`: the model chose to call none
        del body["tools"], body["tool_choice"]
    elif call.view.greedy:  # the same again would come to the same
        return BackendError(Cause.FAILED, FAILED)
    elif "seed" in body:
        body["seed"] += MOST_CHOICES
    return Again(msgspec.structs.replace(request, body=_encode(body)))
