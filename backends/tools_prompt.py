"""Tools said in the prompt and held to by a grammar, as TGI does it, for a vLLM whose chat template knows none.

TGI writes the tools behind the last message and lets the model write one JSON object, the call; `auto` offers one more
function, `no_tool`, and where the model picks it, TGI asks again without tools (CONTRACT.md 2.1, 3.5), as its router
has it in `chat_template.rs` and `tool_grammar.rs`. Where a template leaves `tools` out, a vLLM's model calls nothing,
and writes nonsense where it must; said this way, it calls what it calls on a TGI.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends import problem
from backends.base import BackendError, Call, Cause, Completion
from backends.finishing import greedy_copies, multiply, repeat
from backends.references import Unresolvable, resolved
from backends.schema import (
    AnswerMessage,
    CalledFunction,
    ChatRequest,
    NamedTool,
    Tool,
    ToolCall,
    ToolFunction,
)
from backends.tool_calls import identify

PROMPT = (
    "\nGiven the functions available, please respond with a JSON for a function call with its proper arguments that "
    "best answers the given prompt. Respond in the format {name: function name, parameters: dictionary of argument "
    "name and its value}.Do not use variables.\n"
)
NO_TOOL = Tool(ToolFunction("no_tool", "Open ended response with no specific tool selected", {"type": "object"}))
NOT_A_CALL = "The model did not write a call of one of the tools."

TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
SEVERAL = ("n", "stream", "stream_options")  # a call is known at its end, and each choice may pick another
CUTTING = ("stop", "logprobs", "top_logprobs")  # which mean the text, and not the JSON of a call

_encode = msgspec.json.Encoder().encode


class WrittenCall(Struct):
    """What the model writes."""

    function: dict[str, Any]


def concerns(call: Call) -> bool:
    """Whether it matters to a call what the model's chat template knows of tools: it has some, or calls of them."""
    view = call.view
    if not call.tools_in_prompt or not isinstance(view, ChatRequest):
        return False
    return view.offers_tools or any(message.tool_calls for message in view.messages)


def probes(model: str) -> tuple[bytes, bytes]:
    """Return two bodies for vLLM's `/tokenize`: the same chat without a tool, and with one."""
    chat = {"model": model, "messages": [{"role": "user", "content": "a"}]}
    tool = {"type": "function", "function": {"name": "a", "description": "a", "parameters": {"type": "object"}}}
    return _encode(chat), _encode(chat | {"tools": [tool]})


def applies(call: Call) -> bool:
    """Whether a call's tools go into the prompt. Another grammar beside them would leave no room for theirs."""
    view = call.view
    if not call.tools_in_prompt or not isinstance(view, ChatRequest) or not view.offers_tools:
        return False
    return not view.structured_outputs and (view.response_format is None or view.response_format.type == "text")


def groups(call: Call) -> list[tuple[int, ...]]:
    """Return the choices of each request: one for each, as each may be another call; greedy choices share one."""
    shared = greedy_copies(call)
    return [shared] if shared else [(index,) for index in range(call.view.n or 1)]


def with_tools(call: Call, view: ChatRequest, place: int) -> Call:
    """Return the call of one request, its tools in the prompt. Raises BackendError (INVALID)."""
    tools = _offered(view)
    call = without_tools(call, view, place)
    messages = msgspec.json.decode(call.body["messages"])
    _say(tools, messages[-1])
    body = {name: value for name, value in call.body.items() if name not in CUTTING}
    body |= {"messages": Raw(_encode(messages)), "structured_outputs": Raw(_encode({"json": _grammar(tools)}))}
    return msgspec.structs.replace(call, body=body)


def without_tools(call: Call, view: ChatRequest, place: int) -> Call:
    """Return the call of one request, for text."""
    body = {name: value for name, value in call.body.items() if name not in (*TOOLS, *SEVERAL)}
    if view.seed is not None:
        body["seed"] = Raw(_encode(view.seed + place))
    nothing = dict.fromkeys((*TOOLS, *SEVERAL))
    return msgspec.structs.replace(call, body=body, view=msgspec.structs.replace(view, **nothing))


def read(completion: Completion, view: ChatRequest) -> Completion | None:
    """Return the answer with the call that it is; None if the model picked no tool.

    A call that was cut off is not shown. Raises BackendError (MODEL_OUTPUT_INVALID) if what was written is no call.
    """
    choice = completion.answer.choices[0]
    text = choice.message.content or ""
    choice.message, choice.logprobs = AnswerMessage(role="assistant", content=None, refusal=None), None
    try:
        function = msgspec.json.decode(text, type=WrittenCall).function
        name = function.pop("_name")
    except (*problem.UNREADABLE, KeyError) as error:
        if choice.finish_reason != "length":
            raise BackendError(Cause.MODEL_OUTPUT_INVALID, NOT_A_CALL) from error
        return completion
    if name == NO_TOOL.function.name:
        return None
    called = CalledFunction(name=name, arguments=_encode(function).decode())
    choice.message.tool_calls = [ToolCall(function=called)]
    choice.finish_reason = "stop" if isinstance(view.tool_choice, NamedTool) else "tool_calls"
    return completion


def repeated(completion: Completion, call: Call, choices: tuple[int, ...]) -> Completion:
    """Return the answer of one choice once for each of the choices, each with ids of its own for its call."""
    answer, (given, *_) = completion.answer, completion.answer.choices
    answer.choices = repeat(given, choices)
    for choice in answer.choices:
        calls = [msgspec.structs.replace(tool) for tool in given.message.tool_calls or ()]
        for place, tool in enumerate(calls):
            identify(tool, call, choice.index, place)
        choice.message = msgspec.structs.replace(given.message, tool_calls=calls or None)
    answer.usage = answer.usage and multiply(answer.usage, len(choices))
    return Completion(answer)


def _offered(view: ChatRequest) -> list[Tool]:
    """Return the tools that the model may call; where it need not call any, one of them is none."""
    tools = view.tools or []
    if isinstance(view.tool_choice, NamedTool):
        return [tool for tool in tools if tool.function.name == view.tool_choice.name]
    return tools if view.must_call else [*tools, NO_TOOL]


def _say(tools: list[Tool], message: dict[str, Any]) -> None:
    """Write the tools behind a message's text, as TGI writes them: with their parameters as a string.

    Behind a message that is a call TGI writes nothing.
    """
    if message.get("tool_calls"):
        return
    written = [
        {
            "type": "function",
            "function": {
                "description": tool.function.description,
                "name": tool.function.name,
                "arguments": _encode(_parameters(tool, place)).decode(),
            },
        }
        for place, tool in enumerate(tools)
    ]
    text = f"\n---\n{_encode(written).decode()}\n{PROMPT}"
    content = message.get("content")
    if isinstance(content, list):
        content.append({"type": "text", "text": text})
    else:
        message["content"] = (content or "") + text


def _grammar(tools: list[Tool]) -> dict[str, Any]:
    """Return the schema of one call. Of a tool's parameters TGI takes the properties, and which are required."""
    functions = []
    for place, tool in enumerate(tools):
        parameters = _parameters(tool, place)
        name = {"type": "string", "const": tool.function.name}
        functions.append(
            {
                "type": "object",
                "description": tool.function.description or "",
                "properties": {"_name": name, **parameters.get("properties", {})},
                "required": ["_name", *parameters.get("required", [])],
                "additionalProperties": False,
            }
        )
    return {
        "type": "object",
        "properties": {"function": {"anyOf": functions}},
        "required": ["function"],
        "additionalProperties": False,
    }


def _parameters(tool: Tool, place: int) -> dict[str, Any]:
    """Return a tool's schema with its references resolved. Raises BackendError (INVALID)."""
    if tool is NO_TOOL:
        return {"type": "object"}
    try:
        return {"type": "object", "properties": {}} | resolved(tool.function.parameters or {})
    except Unresolvable as error:
        field = f"tools[{place}].function.parameters"
        raise BackendError(Cause.INVALID, f"'{field}' cannot be followed: {error}.", field) from error


def with_text_calls(messages: Raw) -> Raw:
    """Return a history in which calls are the text of their message, as TGI's router has them (CONTRACT.md 2.1)."""
    return Raw(_encode([_with_text_calls(message) for message in msgspec.json.decode(messages)]))


def _with_text_calls(message: dict[str, Any]) -> dict[str, Any]:
    given = message.pop("tool_calls", None)
    if not given:
        return message
    calls = [
        {
            "id": call.get("id", ""),
            "type": "function",
            "function": {
                "description": None,
                "name": call["function"]["name"],
                "arguments": call["function"].get("arguments", "{}"),
            },
        }
        for call in given
    ]
    return message | {"content": _encode(calls).decode()}
