"""What a request did and how it ended, in a few fixed words: nothing that a client can invent becomes a label."""

import asyncio
from functools import cache
from typing import Any, Literal

from gateway.http.errors import (
    ClientDisconnected,
    EngineFailed,
    EngineTimeout,
    Internal,
    PointsmanError,
    RateLimited,
    ShuttingDown,
    Unavailable,
)
from gateway.upstream.connection import UpstreamConnectError

Outcome = Literal[
    "ok",
    "client_error",
    "client_left",
    "rate_limited",
    "overloaded",
    "unreachable",
    "timeout",
    "engine_error",
    "internal",
    "aborted",
]

# The first that fits: a class stands before the one that it is of.
OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (ClientDisconnected, "client_left"),
    (RateLimited, "rate_limited"),
    (UpstreamConnectError, "unreachable"),
    (ShuttingDown, "aborted"),
    (Unavailable, "overloaded"),
    (EngineTimeout, "timeout"),
    (EngineFailed, "engine_error"),
    (Internal, "internal"),
    (PointsmanError, "client_error"),
    (asyncio.CancelledError, "aborted"),
    (BaseException, "internal"),
)

# By the names of OpenTelemetry's GenAI conventions (`gen_ai.operation.name`) as far as they have one.
GENERATIVE = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/generate": "text_completion",
    "/generate_stream": "text_completion",
    "/": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
    "/v1/audio/transcriptions": "transcription",
}
BESIDE = {
    "/v1/models": "models",
    "/info": "models",
    "/v1/messages/count_tokens": "tokenize",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
}
OPERATIONS = GENERATIVE | BESIDE
UNCOUNTED = frozenset({"/healthz", "/health", "/ping", "/readyz", "/metrics"})  # an operator's, not a user's
OTHER = "other"


def operation(path: str) -> str:
    """Return what a path does; nothing for those that are not counted."""
    known = OPERATIONS.get(path)
    if known is not None:
        return known
    path = path.rstrip("/")
    if path in UNCOUNTED:
        return ""
    return "models" if path.startswith("/v1/models/") else OPERATIONS.get(path, OTHER)


def outcome(failure: BaseException | None) -> Outcome:
    """Return how a request, or a try, ended: "ok" if it failed of nothing."""
    kind: Any = type(failure)
    return _outcome(kind)


def error_type(failure: BaseException | None) -> str:
    """Return OpenTelemetry's `error.type`: the code that a client is told, else a word for the class; else nothing."""
    kind: Any = type(failure)
    return _error_type(kind)


@cache
def _outcome(kind: Any) -> Outcome:
    return next((word for one, word in OUTCOMES if issubclass(kind, one)), "ok")


@cache
def _error_type(kind: Any) -> str:
    if issubclass(kind, PointsmanError):
        return str(kind.code or kind.type)
    word = _outcome(kind)
    return "" if word == "ok" else word
