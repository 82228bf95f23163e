"""The fields of vLLM's that come back null, where a request names what they are for (CONTRACT.md 3.1).

vLLM writes `token_ids`, `prompt_token_ids` and `prompt_logprobs` into every answer, null or not, and its clients read
them without asking whether they are there. OpenAI's have never heard of them, so they are shown to those alone that
sent `prompt_logprobs`, `return_token_ids` or `return_tokens_as_token_ids`, be it null or false.
"""

from typing import Any

import msgspec

from backends.base import Call, Event
from backends.lenient import ANSWERED
from backends.schema import ChatRequest

PROMPT = ("prompt_logprobs", "prompt_token_ids")


def names_fields(call: Call) -> bool:
    """Whether the client named one of the three."""
    return not ANSWERED.isdisjoint(call.body)


def with_nulls(call: Call, event: Event) -> Event:
    """Return a whole answer or a chunk with the null fields that vLLM's has.

    A whole chat has the prompt's beside its choices, a completion in each. Of a stream's chunks the first of each
    choice has the prompt's token ids, none has its logprobs.
    """
    value: dict[str, Any] = event if isinstance(event, dict) else msgspec.to_builtins(event)
    chat = isinstance(call.view, ChatRequest)
    choices = [_choice(choice, call.stream, chat) for choice in value["choices"]]
    first = call.stream and any("role" in choice["delta"] for choice in choices if chat)
    prompt = PROMPT[1:] if first else PROMPT if chat and not call.stream else ()
    return value | {"choices": choices} | {name: value.get(name) for name in prompt}


def _choice(choice: dict[str, Any], stream: bool, chat: bool) -> dict[str, Any]:
    if chat and stream and "role" in choice["delta"]:
        return choice
    prompt = () if chat else PROMPT[1:] if stream else PROMPT
    return choice | {name: choice.get(name) for name in ("token_ids", *prompt)}
