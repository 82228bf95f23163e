"""What a question is, and what can be compared in its answers. Pure."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from gateway.cli.doctor.heard import EngineAnswer, is_json, short

Aspect = Callable[[EngineAnswer, EngineAnswer], str]
STORY = "Once upon a time"


class Question(Struct, frozen=True, kw_only=True):
    """One request, and how its answers are compared. `twin` is asked first: its answer is the measure, and
    `then` can make the body of it; `bare` twins are the engine's own answers for the gateway's, too. `loose`: a
    difference would be noticed, but breaks nobody. `mend` has for an engine what it says when it refuses the request
    for want of a flag, and the advice that follows from it.
    """

    area: str
    check: str
    body: dict[str, Any]
    aspect: Aspect
    right: str = ""
    how: str = ""
    mend: dict[str, tuple[str, str]] = {}
    note: str = ""
    text: bool = False  # a legacy completion, not a chat
    counts: bool = False  # the prompt's tokens are wanted, no text
    loose: bool = False
    refused: bool = False  # right is that the gateway refuses it
    twin: dict[str, Any] | None = None
    then: Callable[[EngineAnswer], dict[str, Any]] | None = None
    bare: bool = False

    @property
    def compares_texts(self) -> bool:
        """Whether texts are compared: a batch could change a greedy one, so the question is asked alone."""
        return self.aspect in (text, as_twin, cut)


# --- what is compared ----------------------------------------------------------------------------------------


def taken(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at nothing but that the request was done."""
    return "taken"


def text(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at the text."""
    return repr(short(answer.texts[0], 40))


def choices(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Count the choices."""
    return f"{len(answer.texts)} of them"


def as_twin(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at whether the text is the twin's."""
    return "same text" if answer.texts == twin.texts else "different text"


def cut(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at whether a stop string taken from the twin's text ends the answer, and is left out of it."""
    stop = stop_of(twin)
    if stop in answer.texts[0]:
        return "stop text kept"
    return "stop text cut" if answer.finishes == ("stop",) else "missed"


def prompt_tokens(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Count the prompt's tokens."""
    return "not counted" if answer.prompt_tokens is None else f"{answer.prompt_tokens} tokens"


def candidates(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Count the likely tokens beside the first."""
    return f"{answer.candidates} candidates"


def has_logprobs(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at whether there are logprobs."""
    return "present" if answer.candidates else "none"


def called(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at which tool is called."""
    return f"calls {', '.join(answer.calls)}" if answer.calls else "no call"


def json_text(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at whether the text is JSON."""
    return "JSON" if is_json(answer.texts[0]) else f"not JSON, ended by {', '.join(answer.finishes) or 'nothing'}"


def echoed(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at whether the prompt is given back."""
    return "prompt echoed" if answer.texts[0].startswith(STORY) else "no prompt"


def usage(answer: EngineAnswer, twin: EngineAnswer) -> str:
    """Look at how a stream ends."""
    counted = "usage" if answer.prompt_tokens is not None else "no usage"
    return f"{counted}, {', '.join(answer.finishes) or 'no finish reason'}"


def stop_of(twin: EngineAnswer) -> str:
    """Return a stop string that is in the middle of the twin's text, and not where a token ends."""
    found = twin.texts[0].strip() if twin.texts else ""
    return found[len(found) // 2 :][:2] or "\n"
