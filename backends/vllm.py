"""vLLM's dialect: OpenAI's, with its own parameters, limits and error texts (contract sections 2 to 5)."""

from msgspec import Raw

from backends.base import Call
from backends.openai import OpenAI, raw


class VLLM(OpenAI):
    """The dialect of vLLM's OpenAI server."""

    name = "vllm"
    label = "vLLM"
    passes = frozenset(
        {
            "/detokenize",
            "/tokenize",
            "/v1/audio/transcriptions",
            "/v1/embeddings",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/rerank",
            "/v1/responses",
            "/v1/score",
        }
    )

    def adapt(self, call: Call, body: dict[str, Raw]) -> list[str]:
        """vLLM refuses a `top_p` of 0, which means greedy, and an empty list of tools."""
        adapted = []
        if call.view.top_p == 0:
            del body["top_p"]
            body["temperature"] = raw(0)
            adapted.append("top_p")
        if "tools" in body and not getattr(call.view, "tools", None):
            del body["tools"]
            adapted.append("tools")
        return adapted
