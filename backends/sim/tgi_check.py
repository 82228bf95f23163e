"""What TGI's router does with a body that it could read: its mapping, its checks in their order, its words."""

import json
import re
from typing import Any

from msgspec import Struct

from backends.sim import grammar
from backends.sim.text import chat_text
from backends.sim.tgi_serde import syntax

Body = dict[str, Any]
PIECE = 1024  # the most tokens of one internal generation
NO_TOOL = {"name": "no_tool", "arguments": {"type": "object", "properties": {"content": {}}, "required": ["content"]}}
_WARPERS = ("top_k", "top_p", "typical_p")
_TOOL_PROMPT = "Given the functions available, please respond with a JSON for a function call."


class Failed(Exception):
    """An error in TGI's envelope: its text, its type, its status when the answer is whole."""

    def __init__(self, text: str, kind: str, status: int = 422) -> None:
        super().__init__(text)
        self.text, self.kind, self.status = text, kind, status


class Plan(Struct, frozen=True, kw_only=True):
    """One generation that was understood. `seed` is None for greedy, `fixed` the text that a grammar prescribes."""

    prompt: str
    count: int
    limit: int
    seed: int | None
    salt: str
    stops: tuple[str, ...]
    fixed: str | None
    endless: bool = False  # its end is not noticed


def invalid(text: str) -> Failed:
    """A validation error."""
    return Failed(f"Input validation error: {text}", "validation")


def check_ranges(asked: Body, max_top_n: int, max_stops: int) -> None:
    """The ranges of the native parameters."""

    def outside(name: str, low: float, high: float = float("inf")) -> bool:
        return asked.get(name) is not None and not low < asked[name] < high

    best_of, top, stops = asked.get("best_of"), asked.get("top_n_tokens") or 0, asked.get("stop") or ()
    if best_of is not None and best_of > 2:
        raise invalid(f"`best_of` must be > 0 and <= 2. Given: {best_of}")
    drawn = asked.get("do_sample") or any(asked.get(name) is not None for name in ("temperature", *_WARPERS))
    if (best_of or 1) > 1 and not drawn:
        raise invalid("you must use sampling when `best_of` is > 1")
    for name in ("temperature", "repetition_penalty", "top_k"):
        if outside(name, 0):
            raise invalid(f"`{name}` must be strictly positive")
    if asked.get("frequency_penalty") is not None and not -2 <= asked["frequency_penalty"] <= 2:
        raise invalid("`frequency_penalty` must be >= -2.0 and <= 2.0")
    for name in ("top_p", "typical_p"):
        if outside(name, 0, 1):
            raise invalid(f"`{name}` must be > 0.0 and < 1.0")
    if asked.get("max_new_tokens") == 0:
        raise invalid("`max_new_tokens` must be strictly positive")
    if len(stops) > max_stops:
        raise invalid(f"`stop` supports up to {max_stops} stop sequences. Given: {len(stops)}")
    if (best_of or 1) > 1 and asked.get("seed") is not None:
        raise invalid("`seed` must not be set when `best_of` > 1")
    if top > max_top_n:
        raise invalid(f"`top_n_tokens` must be >= 0 and <= {max_top_n}. Given: {top}")


def check_streamable(asked: Body) -> None:
    """What cannot be streamed."""
    if asked.get("best_of") not in (None, 1):
        raise invalid("`best_of` != 1 is not supported when streaming tokens")
    if asked.get("decoder_input_details"):
        raise invalid("`decoder_input_details` == true is not supported when streaming tokens")


def check_truncate(truncate: int | None, context: int) -> None:
    """The range of `truncate`."""
    if truncate is not None and not 0 < truncate < context:
        raise invalid(f"`truncate` must be strictly positive and less than {context - 1}. Given: {truncate}")


def limit(count: int, wanted: int | None, context: int) -> int:
    """How many tokens come: in pieces of 1,024, each of which must fit, so that the number may be passed or missed."""
    first = min(context - count if wanted is None else wanted, PIECE)
    if first < 1 or count + first > context:
        given = f"Given: {count} `inputs` tokens and {max(first, 0)} `max_new_tokens`"
        raise invalid(f"`inputs` tokens + `max_new_tokens` must be <= {context}. {given}")
    made = first
    while first == PIECE and (wanted is None or made < wanted) and count + made + PIECE <= context:
        made += PIECE
    return made


def samples(asked: Body) -> bool:
    """Greedy needs parameters that say nothing about sampling; a temperature of 1 does not."""
    warmed = asked.get("temperature") not in (None, 1.0)
    return warmed or bool(asked.get("do_sample")) or any(asked.get(name) is not None for name in _WARPERS)


def salt(asked: Body) -> str:
    """The penalties, which bend the text."""
    penalties = {name: asked.get(name) for name in ("repetition_penalty", "frequency_penalty")}
    return "".join(f"{name}={value};" for name, value in penalties.items() if value not in (None, 0, 1))


def native(body: Body) -> Body:
    """OpenAI's parameters as TGI maps them onto its own: the presence penalty becomes a repetition penalty, plus 2."""
    asked = {name: body.get(name) for name in ("top_p", "seed", "frequency_penalty", "stop", "repetition_penalty")}
    asked["max_new_tokens"] = next((body[n] for n in ("max_tokens", "max_completion_tokens") if n in body), None)
    if "messages" in body:
        penalty = body.get("presence_penalty")
        asked["repetition_penalty"] = None if penalty is None else penalty + 2
        asked["top_n_tokens"] = body.get("top_logprobs")
    greedy = body.get("temperature") == 0
    return asked | {"do_sample": not greedy, "temperature": None if greedy else body.get("temperature")}


def grammar_text(wanted: Body) -> str:
    """The text that a grammar prescribes."""
    value = wanted["value"]
    if wanted["type"] == "regex":
        try:
            return grammar.match_of(value)
        except re.error:
            raise Failed("Request failed during generation: Server error: ", "generation", 424) from None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise invalid(f"grammar is not valid: {syntax(value)}") from None
    elif not isinstance(value, dict):
        raise invalid("grammar is not supported")
    schema = value.get("schema", {}) if wanted["type"] == "json_schema" and isinstance(value, dict) else value
    if not isinstance(schema, dict) or "properties" not in schema:
        raise invalid("grammar is not valid: Grammar must have a 'properties' field")
    return grammar.compact(grammar.instance(schema))


def tools(body: Body) -> list[Body]:
    """The functions to choose from, with `no_tool` among them unless one must be called."""
    given, choice = body.get("tools"), body.get("tool_choice")
    if given is None or choice == "none":
        return []
    if body.get("response_format"):
        raise Failed("Tool error: Grammar and tools are mutually exclusive", "tool_error")
    functions = [tool["function"] for tool in given]
    if (name := _named(choice)) is None:
        return functions if choice == "required" else [*functions, NO_TOOL]
    functions = [function for function in functions if function["name"] == name]
    if not functions:
        raise Failed(f"Tool error: Tool with name {name} not found", "tool_error")
    return functions


def tool_text(body: Body, functions: list[Body], *, eager: bool) -> str:
    """What the pseudo model writes under the tools' grammar: with `auto` a tool that the last message names."""
    said = str(body["messages"][-1].get("content")) if body["messages"] else ""
    first = functions[0] if eager or NO_TOOL not in functions else NO_TOOL
    function = next((one for one in functions if one["name"] in said), first)
    arguments = grammar.instance(function.get("arguments", function.get("parameters")))
    return grammar.compact({"function": {"_name": function["name"]} | arguments})


def _named(choice: object) -> str | None:
    """The function that a tool choice names: a bare string is a name too."""
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    return choice if isinstance(choice, str) and choice not in ("auto", "required", "none") else None


def chat_prompt(body: Body, functions: list[Body]) -> str:
    """The messages in the chat template: roles as they are, tools in the last, one of the assistant's is continued."""
    turns = [(message["role"], _content(message)) for message in body["messages"]]
    if functions and turns:
        role, content = turns[-1]
        turns[-1] = (role, f"{content}\n---\n{grammar.compact(functions)}\n{_TOOL_PROMPT}")
    return chat_text(turns, continues=bool(turns) and turns[-1][0] == "assistant")


def _content(message: Body) -> str:
    content = message.get("content")
    if content is None:
        return json.dumps(message["tool_calls"])
    if isinstance(content, str):
        return content
    return "".join(part["text"] if part["type"] == "text" else f"![]({part['image_url']['url']})" for part in content)
