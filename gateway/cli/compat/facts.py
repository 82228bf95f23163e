"""What a fact is, and for which requests one holds. The facts themselves are in `table`. Pure."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any

from msgspec import Struct

from gateway.cli.compat.records import CHAT, TEXT

PIECE = 1024
TGI_BATCH = 4  # its default --max-client-batch-size


class Verdict(IntEnum):
    """What becomes of a request; the worst of its reasons."""

    SAME = 0
    HANDLED = 1  # the engines differ, the gateway evens it out
    MENDED = 2  # it fails today, and will work
    CHANGED = 3  # it will come to mean something else
    REFUSED = 4

    @property
    def word(self) -> str:
        """The name that people and `--json` see."""
        return self.name.lower()


class RequestFacts(Struct, frozen=True):
    """A request as the facts see it: its fields (of TGI's own API: the parameters), and what is sent for it."""

    surface: str
    body: dict[str, Any]
    greedy: bool = False
    sent: tuple[bytes, ...] = ()

    def number(self, name: str) -> float | None:
        """Return a field that is a number."""
        found = self.body.get(name)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages of a chat."""
        found = self.body.get("messages")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class Fact(Struct, frozen=True):
    """One row: for which requests it holds, what it means for them and what to do about it."""

    parameter: str
    verdict: Verdict
    when: Callable[[RequestFacts], bool]
    why: str
    advice: str = ""
    source: str = ""
    surfaces: tuple[str, ...] = (CHAT, TEXT)


# --- when -----------------------------------------------------------------------------------------------------


def nonzero(name: str) -> Callable[[RequestFacts], bool]:
    """Return the condition that a field is a number other than 0."""
    return lambda asked: bool(asked.number(name))


def seeded(asked: RequestFacts) -> bool:
    """Whether the seed matters: something is drawn."""
    return asked.number("seed") is not None and not asked.greedy


def beyond_a_piece(asked: RequestFacts) -> bool:
    """Whether more is asked for than TGI generates in one piece."""
    names = ("max_tokens", "max_completion_tokens", "max_new_tokens")
    return any((asked.number(name) or 0) > PIECE for name in names)


def ends_with_assistant(asked: RequestFacts) -> bool:
    """Whether the last message is the assistant's, and vLLM is not told to continue it."""
    last = asked.messages[-1] if asked.messages else {}
    return last.get("role") == "assistant" and not asked.body.get("continue_final_message")


def hot_logprobs(asked: RequestFacts) -> bool:
    """Whether a chat's logprobs are told at a temperature that changes them."""
    return asked.body.get("logprobs") is True and asked.number("temperature") not in (None, 0, 1)


def offers_tools(asked: RequestFacts) -> bool:
    """Whether the model may call a tool."""
    return bool(asked.body.get("tools") or asked.body.get("functions")) and asked.body.get("tool_choice") != "none"


def has_calls(asked: RequestFacts) -> bool:
    """Whether tools were called before."""
    return any(message.get("tool_calls") for message in asked.messages)


def calls_developer(asked: RequestFacts) -> bool:
    """Whether a message is of the role developer."""
    return any(message.get("role") == "developer" for message in asked.messages)


def parts(asked: RequestFacts, kind: str) -> int:
    """Return how many parts of a kind a message has at most."""
    contents = [message.get("content") for message in asked.messages]
    return max(
        (sum(_is(part, kind) for part in content) for content in contents if isinstance(content, list)), default=0
    )


def _is(part: Any, kind: str) -> bool:
    return isinstance(part, dict) and part.get("type") == kind


def format_of_openai(asked: RequestFacts) -> bool:
    """Whether a response format is not in TGI's own form."""
    wanted = asked.body.get("response_format")
    return isinstance(wanted, dict) and "value" not in wanted


def many_prompts(asked: RequestFacts) -> bool:
    """Whether there are more prompts than TGI takes by default."""
    prompt = asked.body.get("prompt")
    return isinstance(prompt, list) and len(prompt) > TGI_BATCH and isinstance(prompt[0], str)


def token_prompt(asked: RequestFacts) -> bool:
    """Whether the prompt is given as tokens."""
    prompt = asked.body.get("prompt")
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], str)


def cancelled_greedy(asked: RequestFacts) -> bool:
    """Whether TGI would sample although the temperature is 0."""
    return asked.number("temperature") == 0 and 0 < (asked.number("top_p") or 0) < 1


# --- what asks for nothing -------------------------------------------------------------------------------------

# What TGI ignores today and vLLM will obey is what TGI's dialect says it has no way for. Not where the value asks
# for nothing (CONTRACT.md 2.1 "vLLM extras"), nor where TGI's completions do know it (CONTRACT.md 2.2), or its chats
# always do it (CONTRACT.md 2.1 "last message").
NOTHING: dict[str, tuple[Any, ...]] = {
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_tokens": (0,),
    "priority": (0,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "include_reasoning": (True,),
}
KNOWN_TO_TGI = {
    CHAT: frozenset({"tool_prompt", "continue_final_message", "add_generation_prompt"}),
    TEXT: frozenset({"repetition_penalty"}),
}
EMPTY: tuple[Any, ...] = (None, False, [], {}, "")


def asks_nothing(name: str, found: Any) -> bool:
    """Whether a field's value is its engine's default."""
    if name in NOTHING:
        return found is None or any((found == one and type(found) is not bool) or found is one for one in NOTHING[name])
    return any(found == one and type(found) is type(one) for one in EMPTY)
