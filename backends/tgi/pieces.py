"""One answer from several requests to TGI (CONTRACT.md 2.1 "max_tokens", "stop").

TGI generates at most 1,024 tokens in one go; if more are requested, it generates too many or too few. So the gateway
requests pieces, each of which continues the text so far. TGI also misses a stop string that ends inside a token: the
gateway then closes the stream, and needs another request to learn the number of prompt tokens.
"""

from typing import Any

import msgspec

from backends.base import Call, Continuation, UpstreamRequest
from backends.schema import ChatRequest

PIECE = 1024
STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}

_encode = msgspec.json.Encoder().encode


def first(limit: int | None) -> int | None:
    """Return the number of tokens to request next if `limit` are left; None: as many as the context has room for."""
    return None if limit is None else max(1, min(limit, PIECE))


def in_pieces(call: Call) -> bool:
    """Whether an answer may need more than one piece; never with a grammar, which could not be continued."""
    limit = call.view.limit
    return not _bound(call) and (limit is None or limit > PIECE)


def _bound(call: Call) -> bool:
    """Whether a grammar constrains the output."""
    wanted = call.view.response_format if isinstance(call.view, ChatRequest) else None
    return bool(call.view.structured_outputs) or (wanted is not None and wanted.type != "text")


def following(request: UpstreamRequest, limit: int | None, piece: str, continuation: Continuation) -> UpstreamRequest:
    """Return the request that follows `request`, whose text was `piece`; `continuation` is the state after it."""
    body: dict[str, Any] = msgspec.json.decode(request.body)
    room = first(None if limit is None else limit - continuation.tokens)
    if "inputs" in body:
        body["inputs"] += piece
        _set(body["parameters"], "max_new_tokens", room)
    else:
        _set(body, "max_tokens", room)
        last = body["messages"][-1]
        if last["role"] == "assistant" and "content" in last:
            last["content"] += piece
        else:
            body["messages"].append({"role": "assistant", "content": piece})
    return msgspec.structs.replace(request, body=_encode(body), continuation=continuation)


def streamed(request: UpstreamRequest) -> UpstreamRequest:
    """Return a chat's request for a stream, whose text is whole also where it ends inside a character."""
    body: dict[str, Any] = msgspec.json.decode(request.body)
    return msgspec.structs.replace(request, body=_encode(body | STREAMED), stream=True)


def without_tools(call: Call, request: UpstreamRequest, continuation: Continuation) -> UpstreamRequest:
    """Return the request without its tools, for the text if no tool is called; TGI has no logprobs for it."""
    body: dict[str, Any] = msgspec.json.decode(request.body)
    for name in ("tools", "tool_choice", "logprobs", "top_logprobs"):
        body.pop(name, None)
    stream = in_pieces(call) or bool(call.view.stops)
    if stream:
        body |= STREAMED
    return msgspec.structs.replace(request, body=_encode(body), stream=stream, continuation=continuation)


def counting(request: UpstreamRequest, tokens: int, cut: bool = False) -> UpstreamRequest:
    """Return a request whose answer reports the number of prompt tokens, when `tokens` have been generated.

    `cut`: they were a tool call that the limit cut off.
    """
    body: dict[str, Any] = msgspec.json.decode(request.body)
    path = request.path
    if "inputs" in body:
        path = "/generate"
        body["parameters"] = {"max_new_tokens": 1, "details": True}
    else:
        kept = {"model", "messages"}
        body = {name: value for name, value in body.items() if name in kept} | {"max_tokens": 1, "temperature": 0.0}
    continuation = Continuation(tokens=tokens, ended=True, cut=cut)
    return msgspec.structs.replace(request, path=path, body=_encode(body), stream=False, continuation=continuation)


def _set(settings: dict[str, Any], name: str, value: int | None) -> None:
    if value is None:
        settings.pop(name, None)
    else:
        settings[name] = value
