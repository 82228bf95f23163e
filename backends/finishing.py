"""Normalizes an engine's answer: envelope, finish reasons, tool calls and usage; and copies one choice `n` times."""

import hashlib
from typing import Any

import msgspec
from msgspec import UNSET

from backends.base import BackendError, Call, Cause
from backends.failures import FAILED
from backends.schema import Answer, ChatChoice, ChatRequest, ChunkChoice, ToolCall, Usage

BROKEN = frozenset({"abort", "error"})  # finish reasons that mean a failure
MAX_COPIES = 128  # of a greedy answer, which a client could otherwise have multiplied without cost to itself


def greedy_copies(call: Call) -> tuple[int, ...]:
    """Return the indexes of all choices if sampling is greedy, so that `n` choices are copies of one; else ().

    The choices of a beam search differ.
    """
    view = call.view
    n = view.n or 1
    prompts = 1 if isinstance(view, ChatRequest) else len(view.prompts)
    alike = view.greedy and not view.use_beam_search
    return tuple(range(n * prompts)) if 1 < n <= MAX_COPIES and alike else ()


def copies(choice: Any, n: int, call: Call) -> list[Any]:
    """Return `n` copies of a prompt's only choice, each with its own index and tool call ids."""
    repeated = repeat(choice, tuple(range(choice.index * n, choice.index * n + n)))
    name = "message" if isinstance(choice, ChatChoice) else "delta"
    said: Any = getattr(choice, name, None)
    for one in repeated if said and said.tool_calls else ():
        tools = [_own(tool, call, one.index, place) for place, tool in enumerate(said.tool_calls)]
        setattr(one, name, msgspec.structs.replace(said, tool_calls=tools))
    return repeated


def _own(tool: ToolCall, call: Call, index: int, place: int) -> ToolCall:
    place = place if tool.index is None else tool.index
    return msgspec.structs.replace(tool, id=tool.id and tool_id(call, index, place))


def set_envelope(answer: Answer[Any], call: Call, kind: str) -> None:
    """Set the gateway's id, object, time, model name and system fingerprint."""
    answer.id = call.id
    answer.object = kind
    answer.created = call.created
    answer.model = call.model
    answer.system_fingerprint = call.system_fingerprint


FINISH = {"repetition": "stop", "": None, "eos_token": "stop", "stop_sequence": "stop"}  # (CONTRACT.md 3.2)


def normalize_choice(choice: Any) -> None:
    """Map a choice's finish reason to OpenAI's. Raises BackendError (FAILED) if it means a failure."""
    if choice.finish_reason in BROKEN:
        raise BackendError(Cause.FAILED, FAILED)
    reason: str | None = choice.finish_reason or None
    choice.finish_reason = reason and FINISH.get(reason, reason)
    choice.stop_reason = None
    if not isinstance(choice, ChunkChoice):
        choice.routed_experts = None


def normalize_logprobs(choice: Any, call: Call) -> None:
    """Set a chat's `logprobs.refusal` to null if it is absent, as OpenAI's schema wants it, and sort `top_logprobs`.

    The most likely come first, as many as the client asked for. The tokens that it named itself
    (`logprob_token_ids`) stay as they are: all of them, and the sampled one.
    """
    if not isinstance(choice.logprobs, dict):
        return
    choice.logprobs.setdefault("refusal", None)
    most = getattr(call.view, "top_logprobs", None) or 0
    if most < 1 or call.view.logprob_token_ids:
        return
    content = choice.logprobs.get("content")
    for token in content if isinstance(content, list) else ():
        likely = token.get("top_logprobs") if isinstance(token, dict) else None
        if isinstance(likely, list):
            token["top_logprobs"] = sorted(likely, key=_logprob, reverse=True)[:most]


def _logprob(token: Any) -> float:
    """Return a token's log probability; minus infinity if it has none."""
    value: Any = token.get("logprob") if isinstance(token, dict) else None
    return value if isinstance(value, int | float) else float("-inf")


def normalize_message(message: Any, call: Call, index: int) -> None:
    """Set `refusal` to null if it is absent, and give the tool calls the gateway's ids."""
    if message.refusal is UNSET:
        message.refusal = None
    if message.tool_calls or message.content is UNSET:
        message.content = message.content or None
    elif isinstance(call.view, ChatRequest) and call.view.must_call:
        message.content = None  # a call that was cut, which vLLM shows as text where it does not stream
    if message.tool_calls:
        for place, tool in enumerate(message.tool_calls):
            normalize_tool(tool, call, index, place)
            tool.index = None


def normalize_tool_delta(choice: ChunkChoice, call: Call) -> None:
    """Normalize a chunk's tool calls: the first piece of one has id, type, name and arguments, later ones arguments."""
    for tool in choice.delta.tool_calls or ():
        if tool.id is not None:
            normalize_tool(tool, call, choice.index, tool.index or 0)
            tool.function.arguments = tool.function.arguments or ""


def normalize_tool(tool: ToolCall, call: Call, index: int, place: int) -> None:
    """Set a tool call's id and type; the id is the same for a stream and a complete answer."""
    tool.id = tool_id(call, index, place)
    tool.type = "function"


def tool_id(call: Call, index: int, place: int) -> str:
    """Return `call_` and 24 hexadecimal digits, a hash of the answer's id, the choice's index and the call's place."""
    return "call_" + hashlib.blake2b(f"{call.id}/{index}/{place}".encode(), digest_size=12).hexdigest()


def repeat(choice: Any, indexes: tuple[int, ...]) -> list[Any]:
    """Return one copy of the choice for each index."""
    return [msgspec.structs.replace(choice, index=index) for index in indexes]


def trim(usage: Usage, call: Call) -> None:
    """Remove null counts from the usage's details; for an echo alone (`max_tokens` 0), set completion tokens to 0."""
    if call.view.limit == 0:
        usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        if details := getattr(usage, name):
            setattr(usage, name, {detail: count for detail, count in details.items() if count is not None})


def multiply(usage: Usage, times: int) -> Usage:
    """Return the usage with the generated tokens multiplied by `times`."""
    written = usage.completion_tokens * times
    return msgspec.structs.replace(usage, completion_tokens=written, total_tokens=usage.prompt_tokens + written)
