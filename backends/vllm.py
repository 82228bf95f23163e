"""vLLM's dialect: OpenAI's, with its own parameters, limits and error texts (contract sections 2 to 5)."""

from msgspec import Raw

from backends.base import Call
from backends.openai import OpenAI, raw
from backends.schema import ChatRequest, ResponseFormat


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
        """Change what vLLM refuses: a `top_p` of 0, which means greedy, an empty list of tools, TGI's formats."""
        view = call.view
        adapted = []
        if view.top_p == 0:
            del body["top_p"]
            body["temperature"] = raw(0)
            adapted.append("top_p")
        return adapted + _adapt_chat(view, body) if isinstance(view, ChatRequest) else adapted


def _adapt_chat(view: ChatRequest, body: dict[str, Raw]) -> list[str]:
    """Tools that may not be called are left out, as for TGI: vLLM would show them to the model."""
    adapted = []
    if "tools" in body and not view.offers_tools:
        del body["tools"]
        body.pop("tool_choice", None)
        adapted.append("tools")
    if view.response_format and view.response_format.value is not None:
        del body["response_format"]
        body |= _constraint(view.response_format)
        adapted.append("response_format")
    return adapted


def _constraint(wanted: ResponseFormat) -> dict[str, Raw]:
    """Return what vLLM has for TGI's form of a response format."""
    if wanted.type == "regex":
        return {"structured_outputs": raw({"regex": wanted.value})}
    named = wanted.type == "json_schema" and isinstance(wanted.value, dict) and "schema" in wanted.value
    schema = wanted.value if named else {"name": "answer", "schema": wanted.value}
    return {"response_format": raw({"type": "json_schema", "json_schema": schema})}
