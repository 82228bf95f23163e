"""vLLM's dialect: OpenAI's, with its own parameters, limits and error texts (CONTRACT.md 2 to 5)."""

from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from backends import tools_prompt
from backends.base import Call, Completion, Decoder, FollowUp, Headers, UpstreamRequest
from backends.loads import LoadReader
from backends.openai import OpenAI, raw, without_tools
from backends.openai_stream import StreamDecoder
from backends.parameters import unsupported_by_vllm
from backends.schema import ChatRequest
from backends.tgi.grammars import for_vllm

MAX_LOGPROBS = 20  # vLLM's default for --max-logprobs
REASONING = ("reasoning", "reasoning_content")
CONTINUES = {"continue_final_message", "add_generation_prompt"}


class VLLM(OpenAI):
    """The dialect of vLLM's OpenAI server."""

    name = "vllm"
    label = "vLLM"
    health_path = "/health"
    load = LoadReader(
        "/metrics",
        {
            "running": "vllm:num_requests_running",
            "waiting": "vllm:num_requests_waiting",
            "kv_use": "vllm:kv_cache_usage_perc",
            "prefix_queries": "vllm:prefix_cache_queries_total",
            "prefix_hits": "vllm:prefix_cache_hits_total",
        },
    )
    passthrough_paths = frozenset(
        {
            "/classify",
            "/detokenize",
            "/pooling",
            "/rerank",
            "/score",
            "/tokenize",
            "/v1/audio/transcriptions",
            "/v1/audio/translations",
            "/v1/embeddings",
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/rerank",
            "/v1/responses",
            "/v1/responses/input_tokens",
            "/v1/score",
            "/v2/embed",
            "/v2/rerank",
        }
    )

    def unsupported(self, call: Call, supports_vision: bool = False) -> str | None:
        """Return the name of the first field that only TGI has, or None; vLLM would drop it in silence."""
        return next(unsupported_by_vllm(call), None)

    def decoder(self, call: Call, request: UpstreamRequest) -> Decoder:
        """Return a decoder of chat or text chunks."""
        return StreamDecoder(call, request, partial(self.decode, call, request, {}))

    def encode(self, call: Call, model: str) -> list[UpstreamRequest]:
        """Return one request, or with tools in the prompt one for each choice. Raises BackendError (INVALID)."""
        view = call.view
        if not isinstance(view, ChatRequest) or not tools_prompt.applies(call):
            return super().encode(call, model)
        done = ("tools", "n") if (view.n or 1) > 1 else ("tools",)
        requests = []
        for place, choices in enumerate(tools_prompt.groups(call)):
            (request,) = super().encode(tools_prompt.with_tools(call, view, place), model)
            adapted = (*done, *request.adapted)
            requests.append(msgspec.structs.replace(request, choices=choices, adapted=adapted, calls_tool=True))
        return requests

    def decode(self, call: Call, request: UpstreamRequest, headers: Headers, body: bytes) -> Completion | FollowUp:
        """Read a complete answer; where the model may call a tool and picks none, ask for text. Raises BackendError."""
        view = call.view
        if not isinstance(view, ChatRequest) or not tools_prompt.applies(call):
            return super().decode(call, request, headers, body)
        text = tools_prompt.without_tools(call, view, request.choices[0])
        answer = super().decode(text, msgspec.structs.replace(request, choices=()), headers, body)
        if isinstance(answer, Completion) and request.calls_tool:
            answer = tools_prompt.read(answer, view) or self._text_instead(text, request)
        return tools_prompt.repeated(answer, call, request.choices) if isinstance(answer, Completion) else answer

    def _text_instead(self, call: Call, request: UpstreamRequest) -> FollowUp:
        """Return what to ask where the model picked no tool: the same without tools."""
        (again,) = super().encode(call, msgspec.json.decode(request.body)["model"])
        return FollowUp(msgspec.structs.replace(again, choices=request.choices, adapted=request.adapted))

    def adapt(self, call: Call, body: dict[str, Raw]) -> list[str]:
        """Change the parameters that vLLM takes in another form or would treat differently; return their names."""
        adapted = []
        view = call.view
        if view.top_p == 0:  # vLLM refuses 0, which means greedy
            del body["top_p"]
            body["temperature"] = raw(0)
            adapted.append("top_p")
        if isinstance(view, ChatRequest):
            adapted += _adapt_chat(call, view, body)
        elif "best_of" in body:
            del body["best_of"]
        return adapted


def _adapt_chat(call: Call, view: ChatRequest, body: dict[str, Raw]) -> list[str]:
    adapted = []
    if not view.offers_tools and body.keys() & {"tools", "tool_choice"}:
        adapted += without_tools(body)
    if call.tools_in_prompt and any(message.tool_calls for message in view.messages):
        body["messages"] = tools_prompt.with_text_calls(body["messages"])
        adapted.append("messages")
    if view.response_format and view.response_format.value is not None:  # TGI's form
        del body["response_format"]
        name, value = for_vllm(view.response_format)
        body[name] = raw(msgspec.json.decode(body[name]) | value if name in body else value)  # vLLM refuses two
        adapted.append("response_format")
    most = view.top_logprobs or 0
    if 0 < most < MAX_LOGPROBS and not view.greedy and not view.logprob_token_ids:
        # The sampled token takes the first place: request one more, so that all of the most likely are there.
        body["top_logprobs"] = raw(most + 1)
        adapted.append("top_logprobs")
    if b'"reasoning' in bytes(body["messages"]) and (messages := _with_reasoning(body["messages"])):
        body["messages"] = messages
        adapted.append("messages")
    if call.with_tgi_peer and view.messages[-1].role == "assistant" and not body.keys() & CONTINUES:
        body |= {"continue_final_message": raw(True), "add_generation_prompt": raw(False)}
        adapted.append("messages")
    return adapted


def _with_reasoning(messages: Raw) -> Raw | None:
    """Return a history in which what the assistant thought is in both fields; None if nothing is to be changed.

    vLLM reads `reasoning`, and before 0.12 `reasoning_content`; each takes no notice of the other.
    """
    history = msgspec.json.decode(messages, type=list[dict[str, Any]])
    changed = False
    for message in history:
        given = {name: message[name] for name in REASONING if message.get(name) is not None}
        if len(given) == 1 and message.get("role") == "assistant":
            message.update(dict.fromkeys(REASONING, *given.values()))
            changed = True
    return raw(history) if changed else None
