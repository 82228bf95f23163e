"""Builds TGI's requests: the bodies of `/v1/chat/completions` and of `/generate` (CONTRACT.md 2)."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import msgspec

from backends import problem
from backends.base import Call, UpstreamRequest
from backends.references import Unresolvable, resolved
from backends.schema import ChatRequest, CompletionRequest, Message, NamedTool, Tool
from backends.tgi import grammars, pieces

CHAT = "/v1/chat/completions"
WHOLE = "/generate"
STREAM = "/generate_stream"
MAX_CHOICES = 16
MAX_STOPS = 4  # that TGI itself takes by default; the decoders look for all of them
GREEDY = {"temperature": 0.0}
ROLES = {"developer": "system"}  # which TGI says to the template as they are, and most do not know the first

_encode = msgspec.json.Encoder().encode


def chat_requests(call: Call, view: ChatRequest, model: str) -> list[UpstreamRequest]:
    """Return one request for each choice of a chat."""
    body: dict[str, Any] = {"model": model, "messages": [_message(message) for message in view.messages]}
    adapted = ["messages"] if any(message.role in ROLES for message in view.messages) else []
    room = pieces.first(view.limit)
    if room is not None:
        body["max_tokens"] = room
    body |= GREEDY if view.greedy else _sampling(call)
    if view.stops:
        body["stop"] = view.stops[:MAX_STOPS]
        adapted.append("stop")
    if view.logprobs:
        body |= {"logprobs": True, "top_logprobs": view.top_logprobs or 0}
        adapted.append("logprobs")
    for name, grammar in _grammars(view):
        body["response_format"] = grammar
        adapted.append(name)
    if view.offers_tools:
        body |= {"tools": [_tool(tool) for tool in view.tools or ()], "tool_choice": _tool_choice(view)}
        adapted.append("tools")
    own = {"tool_prompt": view.tool_prompt, "guideline": view.guideline}
    body |= {name: text for name, text in own.items() if text is not None}
    stream = not view.offers_tools and _streams(call, adapted)
    if stream:
        body |= pieces.STREAMED
    return list(_fan_out(call, CHAT, body, body, stream, adapted))


def _streams(call: Call, adapted: list[str]) -> bool:
    """Whether to request a stream: also if the gateway may have to stop it early or to continue it."""
    if pieces.in_pieces(call) and call.view.limit is not None:
        adapted.append("max_tokens")
    return call.stream or bool(call.view.stops) or pieces.in_pieces(call)


def text_requests(call: Call, view: CompletionRequest) -> list[UpstreamRequest]:
    """Return one request for each choice of each prompt."""
    settings: dict[str, Any] = {"details": True, "max_new_tokens": pieces.first(view.limit)}
    adapted = []
    settings |= {"do_sample": False} if view.greedy else {"do_sample": True, **_sampling(call)}
    if stops := view.stops:
        settings["stop"] = stops[:MAX_STOPS]
        adapted.append("stop")
    if view.logprobs is not None:
        settings["top_n_tokens"] = view.logprobs
        adapted.append("logprobs")
    if view.echo:
        adapted.append("echo")
    for name, grammar in _grammars(view):
        settings["grammar"] = grammar
        adapted.append(name)
    asked = view.prompts
    if len(asked) > 1:
        adapted.append("prompt")
    stream = _streams(call, adapted)
    path = STREAM if stream else WHOLE
    requests: list[UpstreamRequest] = []
    for place, prompt in enumerate(asked):
        body = {"inputs": prompt, "parameters": settings}
        requests += _fan_out(call, path, body, settings, stream, adapted, place)
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
    """Return `temperature` and `top_p`; TGI refuses a `top_p` of 1, which is the same as none."""
    settings: dict[str, Any] = {}
    view = call.view
    if view.temperature is not None:
        settings["temperature"] = max(view.temperature, 0.01)
    if view.top_p is not None and view.top_p < 1:
        settings["top_p"] = view.top_p
    return settings


def _message(message: Message) -> dict[str, Any]:
    """Return a message in TGI's form: no content beside tool calls, and their arguments as objects, not strings."""
    written: dict[str, Any] = {"role": ROLES.get(message.role, message.role)}
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
        written["content"] = _content(message)
    return written


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Return the content as one text; if there are images, as parts, with adjacent texts joined."""
    if not isinstance(message.content, list) or all(part.type == "text" for part in message.content):
        return message.text
    written: list[dict[str, Any]] = []
    for kind, parts in groupby(message.content, key=lambda part: part.type):
        if kind == "text":
            written.append({"type": "text", "text": "\n".join(part.text or "" for part in parts)})
        else:
            written += [{"type": kind, "image_url": _image(part.image_url)} for part in parts]
    return written


def _image(given: dict[str, Any] | str | None) -> Any:
    return {"url": given} if isinstance(given, str) else given


def _arguments(text: str) -> Any:
    try:
        value = msgspec.json.decode(text or "{}")
    except problem.UNREADABLE:
        return text
    return value if isinstance(value, dict) else text


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.function.name}
    if tool.function.description is not None:
        function["description"] = tool.function.description
    function["parameters"] = parameters_of(tool)
    return {"type": "function", "function": function}


def parameters_of(tool: Tool) -> dict[str, Any] | None:
    """Return a tool's schema with its references resolved, as TGI does not follow them; None if that fails."""
    try:
        return {"type": "object", "properties": {}} | resolved(tool.function.parameters or {})
    except Unresolvable:
        return None


def _tool_choice(view: ChatRequest) -> Any:
    choice = view.tool_choice
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice or "auto"


def _grammars(view: ChatRequest | CompletionRequest) -> Iterator[tuple[str, grammars.Grammar]]:
    """Yield the name of each field that asks for structured output, with TGI's grammar for it."""
    if isinstance(view, ChatRequest) and view.response_format:
        grammar = grammars.of_format(view.response_format)
        if grammar:
            yield "response_format", grammar
    if view.structured_outputs:
        grammar = grammars.of_outputs(view.structured_outputs)
        if grammar:
            yield "structured_outputs", grammar
