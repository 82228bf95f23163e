"""`functions` and `function_call`, OpenAI's older words for tools (API reference, deprecated fields).

Neither engine knows them any more: they become tools on the way in, and a call becomes `function_call` on the way
out. At most one function is called, as it always was.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from backends.base import Event
from backends.schema import Answer


def as_tools(body: dict[str, Raw]) -> dict[str, Raw]:
    """Return the body of a chat with functions, their choice and their history in the words of tools.

    Raises msgspec.DecodeError and TypeError where the fields are not of their form.
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


def history(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with function calls and their results as tool calls and tool messages."""
    written = []
    for place, message in enumerate(messages):
        call = message.get("function_call")
        if isinstance(call, dict):
            rest = {name: value for name, value in message.items() if name != "function_call"}
            tool = {"id": f"call_{place}", "type": "function", "function": call}
            written.append(rest | {"tool_calls": [tool]})
        elif message.get("role") == "function":
            written.append(message | {"role": "tool", "tool_call_id": f"call_{place - 1}"})
        else:
            written.append(message)
    return written


def _read(value: Raw, kind: Any) -> Any:
    return msgspec.json.decode(value, type=kind)


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def answer(whole: Answer[Any]) -> None:
    """Say a whole answer's tool calls as function calls."""
    for choice in whole.choices:
        _say(choice, choice.message)


def events(chunks: Sequence[Event]) -> Sequence[Event]:
    """Say the chunks' tool calls as function calls; chunks with unknown fields stay as they are."""
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
