"""Ids of tool calls anew: an answer that several requests get has for each the ids that it would have had alone.

Clients keep tool calls by their ids through a conversation, where none may come twice.
"""

from typing import Any

import msgspec

from backends.base import Call, Event
from backends.schema import Answer, ToolCall
from backends.tool_calls import tool_id


def renewed(event: Event, call: Call) -> Event:
    """Return a chunk or a whole answer with the ids that its tool calls have for a call; nothing changes in place."""
    if isinstance(event, dict):
        return event | {"choices": [_plain(choice, call) for choice in event["choices"]]}
    return renewed_answer(event, call)


def renewed_answer(answer: Answer[Any], call: Call) -> Answer[Any]:
    """Do the same where no field is unknown."""
    if not any(_said(choice) for choice in answer.choices):
        return answer
    return msgspec.structs.replace(answer, choices=[_own(choice, call) for choice in answer.choices])


def _said(choice: Any) -> Any:
    """Return the message or delta of a choice, if it calls tools."""
    said = getattr(choice, "delta", None) or getattr(choice, "message", None)
    return said if said is not None and said.tool_calls else None


def _own(choice: Any, call: Call) -> Any:
    said = _said(choice)
    if said is None:
        return choice
    tools = [_tool(tool, call, choice.index, place) for place, tool in enumerate(said.tool_calls)]
    said = msgspec.structs.replace(said, tool_calls=tools)
    return msgspec.structs.replace(choice, **{"delta" if hasattr(choice, "delta") else "message": said})


def _tool(tool: ToolCall, call: Call, index: int, place: int) -> ToolCall:
    if not tool.id:  # a later piece of a call
        return tool
    return msgspec.structs.replace(tool, id=tool_id(call, index, place if tool.index is None else tool.index))


def _plain(choice: dict[str, Any], call: Call) -> dict[str, Any]:
    """Do the same with a choice that has fields of which no type knows."""
    for name in ("delta", "message"):
        said = choice.get(name) or {}
        if said.get("tool_calls"):
            tools = [
                tool | {"id": tool_id(call, choice["index"], tool.get("index", place))} if tool.get("id") else tool
                for place, tool in enumerate(said["tool_calls"])
            ]
            return choice | {name: said | {"tool_calls": tools}}
    return choice
