"""What is asked beside a client's call: the same, as a stream; with log probabilities where both arms are. Pure."""

from typing import Any

import msgspec

from backends.base import Call
from backends.schema import ChatRequest
from gateway.proxy import parse

LIKELIEST = 5
LEFT_OUT = ("service_tier", "user", "metadata", "store", "stream_interval", "kv_transfer_params", "request_id")


def left_out(call: Call, with_tools: bool) -> str:
    """Return why a call is not asked beside; nothing if it is."""
    view = call.view
    if not with_tools and isinstance(view, ChatRequest) and view.tools:
        return "tools"
    if (view.n or 1) > 1:
        return "choices"
    if view.seed is not None and not view.greedy:  # the control would say the same again
        return "seed"
    if not isinstance(view, ChatRequest) and isinstance(view.prompt, list) and len(view.prompt) > 1:
        return "choices"
    return ""


def beside(call: Call, request_id: str, with_logprobs: bool) -> Call:
    """Return what is asked in the place of a call."""
    chat = isinstance(call.view, ChatRequest)
    fields: dict[str, Any] = {name: value for name, value in call.body.items() if name not in LEFT_OUT}
    fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if with_logprobs:
        fields |= {"logprobs": True, "top_logprobs": LIKELIEST} if chat else {"logprobs": LIKELIEST}
    body = msgspec.json.encode(fields)
    made = (parse.chat if chat else parse.completion)(body, request_id, call.created)
    names = ("model", "legacy_functions", "with_tgi_peer", "reasoning_field", "tools_in_prompt")
    return msgspec.structs.replace(made, **{name: getattr(call, name) for name in names})


def schema_of(call: Call) -> Any:
    """Return the JSON schema that the answer has to keep to; True for any JSON, None where it need be none."""
    view = call.view
    wanted = view.response_format if isinstance(view, ChatRequest) else None
    if wanted is None or wanted.type not in ("json_object", "json_schema"):
        return None
    return wanted.json_schema.schema or True if wanted.json_schema is not None else True


def tools_of(call: Call) -> dict[str, Any]:
    """Return the parameters' schemas of the request's tools, by their names."""
    view = call.view
    tools = view.tools if isinstance(view, ChatRequest) else None
    return {tool.function.name: tool.function.parameters or True for tool in tools or ()}
