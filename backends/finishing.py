"""Normalizes an engine's answer: envelope, finish reasons, reasoning and usage; and copies one choice `n` times."""

from typing import Any

import msgspec
from msgspec import UNSET

from backends.base import BackendError, Call, Cause
from backends.failures import FAILED
from backends.schema import (
    Answer,
    AnswerMessage,
    ChatChoice,
    ChatRequest,
    ChunkChoice,
    Delta,
    NamedTool,
    ToolCall,
    Usage,
)
from backends.tool_calls import complete_calls, tool_id

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


def normalize_message(choice: ChatChoice, call: Call) -> None:
    """Make a whole answer's message what OpenAI's schema wants, and the finish reason agree with it.

    `refusal` and `logprobs` are null if they are absent; the tool calls get the gateway's ids.
    """
    message = choice.message
    if message.refusal is UNSET:
        message.refusal = None
    if choice.logprobs is UNSET:
        choice.logprobs = None
    if message.reasoning is not message.reasoning_content or message.reasoning:
        unify_reasoning(message, call)
    if message.tool_calls is not None:
        message.tool_calls = complete_calls(message.tool_calls, call, choice.index)
    if message.tool_calls or message.content is UNSET:
        message.content = message.content or None
    elif isinstance(call.view, ChatRequest) and call.view.must_call:
        message.content = None  # a call that was cut, which vLLM shows as text where it does not stream
    choice.finish_reason = agreeing(choice.finish_reason, bool(message.tool_calls), call)


def agreeing(reason: str | None, called: bool, call: Call) -> str | None:
    """Return the finish reason that agrees with whether tools were called: a named one ends in `stop`."""
    if not called:
        return "stop" if reason == "tool_calls" else reason
    if reason not in (None, "stop", "tool_calls", "function_call"):
        return reason
    return (
        "stop" if isinstance(call.view, ChatRequest) and isinstance(call.view.tool_choice, NamedTool) else "tool_calls"
    )


def unify_reasoning(said: Delta | AnswerMessage, call: Call) -> None:
    """Put what the model thought into the fields that the model's clients read, whichever the engine has."""
    text = said.reasoning or said.reasoning_content
    said.reasoning = None if call.reasoning_field == "reasoning_content" else text
    said.reasoning_content = None if call.reasoning_field == "reasoning" else text


def repeat(choice: Any, indexes: tuple[int, ...]) -> list[Any]:
    """Return one copy of the choice for each index."""
    return [msgspec.structs.replace(choice, index=index) for index in indexes]


def settled(usage: Usage, call: Call) -> Usage | None:
    """Return the usage with the figures that follow from the others, without null details; None if it has none.

    For an echo alone (`max_tokens` 0) completion tokens are 0.
    """
    if call.view.limit == 0:
        usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
    read, written, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if read < 0 or written < 0 or total < 0:
        if max(read, written, total) < 0:
            return None
        usage.prompt_tokens = read if read >= 0 else difference(total, written)
        usage.completion_tokens = written if written >= 0 else difference(total, read)
        usage.total_tokens = total if total >= 0 else (-1 if min(read, written) < 0 else read + written)
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        if details := getattr(usage, name):
            setattr(usage, name, {detail: count for detail, count in details.items() if count is not None})
    return usage


def difference(total: int, known: int) -> int:
    """Return the figure that is left of a total; -1 if it is not known, as where the total is the other one alone."""
    return total - known if 0 <= known < total else -1


def multiply(usage: Usage, times: int) -> Usage:
    """Return the usage with the generated tokens multiplied by `times`."""
    read, written = usage.prompt_tokens, usage.completion_tokens
    if written < 0:
        return usage
    written *= times
    return msgspec.structs.replace(usage, completion_tokens=written, total_tokens=-1 if read < 0 else read + written)
