"""What a request did and how it ended, in a few fixed words: nothing that a client can invent becomes a label."""

# By the names of OpenTelemetry's GenAI conventions (`gen_ai.operation.name`) as far as they have one.
GENERATIVE = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/generate": "text_completion",
    "/generate_stream": "text_completion",
    "/": "text_completion",
    "/invocations": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v2/embed": "embeddings",
    "/pooling": "pooling",
    "/classify": "classify",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/score": "score",
    "/score": "score",
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "translation",
}
BESIDE = {
    "/v1/models": "models",
    "/info": "models",
    "/v1/messages/count_tokens": "tokenize",
    "/v1/responses/input_tokens": "tokenize",
    "/tokenize": "tokenize",
    "/chat_tokenize": "tokenize",
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
    if path.startswith("/v1/responses/"):
        return OPERATIONS.get(path, "response")
    return "models" if path.startswith("/v1/models/") else OPERATIONS.get(path, OTHER)
