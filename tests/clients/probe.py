"""What each client's script stands on: what it was given, and how its results are told. Standard library only.

A script runs in the environment of its client. It reads from stdin what to ask and whom (`asked.py`), runs its probes,
each of which returns a JSON value, and prints one object: a value, or what was raised, for each by its name.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import Any

GIVEN = SimpleNamespace(**json.load(sys.stdin))
CUT = ("LengthFinishReasonError", "IncompleteOutputException")
awaited = asyncio.Runner().run  # one loop for all probes: some clients keep their connections
PROBES: dict[str, Callable[[], Any]] = {}


def probe(function: Callable[[], Any]) -> Callable[[], Any]:
    """Run this function under its own name."""
    PROBES[function.__name__] = function
    return function


def main() -> None:
    """Run all probes, in the order in which they were written."""
    with redirect_stdout(sys.stderr):  # litellm prints there
        results = {name: told(function) for name, function in PROBES.items()}
    sys.stdout.write(json.dumps(results))


def told(function: Callable[[], Any]) -> dict[str, Any]:
    """What a probe came to."""
    try:
        return {"value": function()}
    except Exception as error:
        known = {name: plain(getattr(error, name, None)) for name in ("status_code", "param", "code")}
        return {"raised": {"kinds": kinds(error), "message": str(error), **known}}


def kinds(error: BaseException) -> list[str]:
    """The classes by which an exception can be caught, and those of what caused it."""
    cause = error.__cause__ or error.__context__
    own = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
    return own + (kinds(cause) if cause else [])


def plain(value: object) -> object:
    """A value that JSON has."""
    return value if isinstance(value, str | int | None) else str(value)


def answer(text: str | None, reason: str | None, usage: Any) -> dict[str, Any]:
    """One choice, and the usage of the request, as all clients have them."""
    counts = {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens")}
    return {"text": text, "reason": reason, **counts}


def gathered(chunks: Iterable[Any]) -> dict[str, Any]:
    """The only choice of a stream of OpenAI's shape that ends with its usage."""
    text, reason, usage = "", None, None
    for chunk in chunks:
        usage = getattr(chunk, "usage", None) or usage
        for choice in chunk.choices:
            text += (choice.delta.content or "") if hasattr(choice, "delta") else (choice.text or "")
            reason = choice.finish_reason or reason
    return answer(text, reason, usage)


def called(message: Any, reason: str) -> dict[str, Any] | None:
    """The calls of a whole message of OpenAI's shape; None if the limit cut them."""
    made = [(call.function.name, call.function.arguments) for call in message.tool_calls or []]
    return ended(made, reason)


def streamed_calls(chunks: Iterable[Any]) -> dict[str, Any] | None:
    """The calls of a stream of OpenAI's shape, put together; None if the limit cut them."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    reason = ""
    for chunk in chunks:
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                names[call.index] = names.get(call.index) or call.function.name
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    return ended([(names[at], arguments[at]) for at in sorted(names)], reason)


def ended(made: list[tuple[str, str]], reason: str) -> dict[str, Any] | None:
    """Calls with their arguments read, and why the answer ended; None if that is the limit."""
    if reason == "length":
        return None
    return {"calls": [[name, json.loads(arguments)] for name, arguments in made], "reason": reason}


def logprobs(entries: Iterable[Any]) -> list[list[Any]]:
    """Each token, its logprob, and the tokens that were likely in its place."""
    return [[one.token, one.logprob, [top.token for top in one.top_logprobs]] for one in entries]


def by_seed(ask: Callable[[int], Any]) -> Any:
    """What the first seed brings that ends by itself; `ask` gives None where the limit cut the answer.

    A model of random weights fills the limit with most seeds. Some clients raise then. From TGI it may also write `{ }`
    again and again, where a call was required: that is the gateway's 502.
    """
    for seed in GIVEN.seeds:
        try:
            said = ask(seed)
        except Exception as error:
            if seed == GIVEN.seeds[-1] or not (any(kind.endswith(CUT) for kind in kinds(error)) or "502" in str(error)):
                raise
        else:
            if said is not None:
                return said
    return None


def cut(ask: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """An answer, the same with a stop out of its middle, and that stop."""
    whole = ask({})
    stop = whole["text"][10:13]
    return {"whole": whole["text"], "stop": stop, **ask({"stop": stop})}
