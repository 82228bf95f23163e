"""`functions` and `function_call`, the deprecated form of tools (OpenAI API reference, deprecated fields).

Neither engine supports them any more: a request's functions become tools, and an answer's tool call becomes
`function_call`. At most one function is called, as OpenAI defines it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from backends.base import Event
from backends.schema import Answer

AUTO, NONE = Raw(b'"auto"'), Raw(b'"none"')


def as_tools(body: dict[str, Raw]) -> dict[str, Raw]:
    """Return a chat's body with `functions` and `function_call` replaced by `tools` and `tool_choice`.

    Raises msgspec.DecodeError or TypeError if the fields are not of the right type.
    """
    changed = dict(body)
    functions = _read(changed.pop("functions"), list[dict[str, Any]])
    changed["tools"] = _raw([{"type": "function", "function": function} for function in functions])
    changed["parallel_tool_calls"] = _raw(False)
    choice = _read(changed.pop("function_call", Raw(b"null")), str | dict[str, str] | None) or "auto"
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    changed["tool_choice"] = _raw(choice)
    return changed


def without_choice(body: dict[str, Raw]) -> dict[str, Raw]:
    """Return a chat's body without `function_call`, which chooses nothing as there are no functions.

    Raises ValueError if it calls for one all the same.
    """
    if body.get("function_call", AUTO) not in (AUTO, NONE):
        raise ValueError("'function_call' is only allowed when 'functions' are given.")
    return {name: value for name, value in body.items() if name != "function_call"}


def history(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with function calls and their results replaced by tool calls and tool messages."""
    written = []
    for place, message in enumerate(messages):
        call = message.get("function_call")
        if isinstance(call, dict):
            rest = {name: value for name, value in message.items() if name != "function_call"}
            tool = {"id": f"call_{place}", "type": "function", "function": call}
            written.append(rest | {"tool_calls": [tool]})
        elif message.get("role") == "function":
            answer_of = {"role": "tool", "tool_call_id": f"call_{place - 1}"}
            written.append(message | answer_of | {"content": message.get("content") or ""})
        else:
            written.append(message)
    return written


def _read(value: Raw, kind: Any) -> Any:
    return msgspec.json.decode(value, type=kind)


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def answer(whole: Answer[Any]) -> None:
    """Replace a complete answer's tool calls by `function_call`, in place."""
    for choice in whole.choices:
        _say(choice, choice.message)


def events(chunks: Sequence[Event]) -> Sequence[Event]:
    """Replace the chunks' tool calls by `function_call`, in place; chunks with unknown fields stay as they are."""
    for chunk in chunks:
        for choice in chunk.choices if isinstance(chunk, Answer) else ():
            _say(choice, choice.delta)
    return chunks


def _say(choice: Any, said: Any) -> None:
    if said.tool_calls:
        said.function_call = said.tool_calls[0].function
        said.tool_calls = None
    if choice.finish_reason == "tool_calls":
        choice.finish_reason = "function_call"
