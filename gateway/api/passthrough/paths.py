"""Which paths are passed on, and how those who ask for them are spoken to."""

from gateway.api.passthrough.anthropic import AnthropicClient
from gateway.api.passthrough.responses import ResponsesClient
from gateway.http.client import Client

RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
STORED_PATH = RESPONSES + "/{response_id:str}"

OPENAI_PATHS = (
    "/v1/embeddings",
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/v2/embed",
    "/v1/score",
    "/score",
    "/pooling",
    "/classify",
    "/detokenize",
)
RESPONSES_PATHS = (RESPONSES, RESPONSES + "/input_tokens")
ANTHROPIC_PATHS = (MESSAGES, MESSAGES + "/count_tokens")
FORM_PATHS = ("/v1/audio/transcriptions", "/v1/audio/translations")

# The paths with a body in JSON, by the API in whose words their clients are told of errors.
DIALECTS: tuple[tuple[type[Client], tuple[str, ...]], ...] = (
    (Client, OPENAI_PATHS),
    (ResponsesClient, RESPONSES_PATHS),
    (AnthropicClient, ANTHROPIC_PATHS),
)
JSON_PATHS = OPENAI_PATHS + RESPONSES_PATHS + ANTHROPIC_PATHS

STREAMING = frozenset({RESPONSES, MESSAGES, *FORM_PATHS})  # where `stream` asks for a stream
COUNTING = frozenset({"/tokenize", "/detokenize", RESPONSES + "/input_tokens", MESSAGES + "/count_tokens"})
"""Paths that only count or turn tokens: an answer of theirs is worth no tokens, and says so of none."""
