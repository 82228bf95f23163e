"""What two engines are asked: recorded requests, or generated ones; and when, round by round.

A round is three blocks of the same requests at the same times: two for the control, one for the treatment. Only one
engine is asked at a time, so that each has the same load, and two that share a machine do not disturb each other.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import exp
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from gateway.cli.compat import lines
from gateway.cli.compat.records import CHAT, NATIVE, TEXT, UnreadableRecord, read, value
from loadtests.open_loop import due_times

PATHS = {CHAT: "/v1/chat/completions", TEXT: "/v1/completions"}
LIKELIEST = 5  # log probabilities in a token's place: as many as a TGI gives unless it is told otherwise
SUBJECTS = [
    "a suspension bridge",
    "the water cycle",
    "a sorting algorithm",
    "the tides",
    "a sourdough starter",
    "a heat pump",
    "photosynthesis",
    "compound interest",
    "a bicycle's gears",
    "the printing press",
    "an eclipse",
    "plate tectonics",
    "a hash table",
    "fermentation",
    "an airship",
    "the violin",
    "a lighthouse",
    "the stock exchange",
    "glass blowing",
    "a compass",
    "vaccination",
    "a windmill",
    "morse code",
    "a beehive",
    "the tea trade",
    "a telescope",
    "paper making",
    "a canal lock",
    "a steam engine",
    "the calendar",
]
TASKS = [
    "Explain {} to a child.",
    "Write three facts about {}.",
    "What is most often misunderstood about {}?",
    "Write a short story in which {} matters.",
    "Compare {} with its predecessor.",
    "Give the history of {} in brief.",
    "Which parts does one need to know to understand {}?",
    "Write a dialogue about {}.",
]
FILLER = "Take into account what was said before, answer in plain words, and keep to what is known for certain."
SCHEMA = {
    "type": "object",
    "properties": {"subject": {"type": "string"}, "known_since": {"type": "integer"}},
    "required": ["subject", "known_since"],
    "additionalProperties": False,
}
Body = dict[str, Any]


class Prompt(Struct, frozen=True):
    """A request: where it is from, its path, its body without model and stream; `greedy`: its answer is not drawn."""

    label: str
    path: str
    body: Body
    greedy: bool

    @property
    def tools(self) -> dict[str, Any]:
        """The parameters' schemas of the tools that it offers, by name."""
        functions = [tool.get("function", {}) for tool in self.body.get("tools") or ()]
        return {one.get("name", ""): one.get("parameters") or True for one in functions}

    @property
    def schema(self) -> Mapping[str, Any] | bool | None:
        """The schema of the JSON that it asks for; True: any JSON; None: it asks for a text."""
        wanted = self.body.get("response_format") or {}
        if wanted.get("type") == "json_schema":
            return (wanted.get("json_schema") or {}).get("schema") or True
        return True if wanted.get("type") == "json_object" else None


class Trace(Struct, frozen=True):
    """Recorded requests, and how many lines could not be taken, by why."""

    prompts: list[Prompt]
    skipped: dict[str, int]


class Round(Struct, frozen=True):
    """The same prompts at the same times, in seconds from a block's beginning, for each block; `order` is who is asked.

    Whether the treatment comes before the control's first block is a fair coin; the pairs of latencies are those two.
    """

    times: list[float]
    prompts: list[Prompt]
    order: tuple[str, str, str]


def rounds(
    prompts: Iterator[Prompt], rate: float, seconds: float, block: float, sides: tuple[str, str], random: Random
) -> list[Round]:
    """Return the rounds of so many seconds in all, at least one. `sides` are the control and the treatment."""
    control, treatment = sides
    made = []
    for _ in range(max(1, round(seconds / (3 * block)))):
        times = due_times(rate, block, random) or [block / 2]
        order = [control, control]
        order.insert(random.choice((0, 0, 1, 2)), treatment)
        made.append(Round(times, [next(prompts) for _ in times], (order[0], order[1], order[2])))
    return made


# --- recorded --------------------------------------------------------------------------------------------------------


def read_trace(path: Path, greedy: bool = False) -> Trace:
    """Return the requests of a file, in its order; `greedy` has all of them asked at temperature 0. Raises OSError."""
    prompts: list[Prompt] = []
    skipped: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in lines(file):
            try:
                prompts += [_recorded(line, number, greedy)] if line is None or line.strip() else []
            except UnreadableRecord as error:
                skipped[str(error)] = skipped.get(str(error), 0) + 1
    return Trace(prompts, skipped)


def _recorded(line: bytes | None, number: int, greedy: bool) -> Prompt:
    """Raises UnreadableRecord."""
    if line is None:
        raise UnreadableRecord("the line is too long")
    found = read(line)
    if found.surface not in PATHS:
        what = "TGI's own API" if found.surface == NATIVE else "another path than chat and completions"
        raise UnreadableRecord(f"{what} is not compared")
    return asked(f"line {number}", PATHS[found.surface], value(found.body), greedy)


def asked(label: str, path: str, body: Body, greedy: bool) -> Prompt:
    """Return a request as it is sent: drawn anew each time where it is sampled, so without a seed."""
    left_out = {"model", "stream", "stream_options", *({"top_p", "top_k"} if greedy else ())}
    body = {name: field for name, field in body.items() if name not in left_out and field is not None}
    if greedy:
        body["temperature"] = 0
    certain = body.get("temperature") == 0 or body.get("top_p") == 0
    if not certain:
        body.pop("seed", None)
    return Prompt(label, path, body, certain)


def sent(prompt: Prompt, model: str, logprobs: bool, ids: bool) -> bytes:
    """Return the body to send, streamed; with log probabilities where they are wished for, and token ids."""
    body = prompt.body | {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if logprobs and prompt.greedy and not prompt.body.get("tools") and prompt.body.get("n", 1) == 1:
        chat = {"logprobs": True, "top_logprobs": LIKELIEST}
        body |= chat if prompt.path == PATHS[CHAT] else {"logprobs": LIKELIEST}
    if ids:
        body["return_token_ids"] = True
    return msgspec.json.encode(body)


# --- generated -------------------------------------------------------------------------------------------------------


def generated(random: Random, max_tokens: int) -> Iterator[Prompt]:
    """Yield requests without end, no two alike: chats of several lengths, some with a history, JSON or a stop string,
    a few completions, and a few that are sampled.
    """
    number = 0
    while True:
        number += 1
        make = random.choices((_chat, _history, _stop, _json, _completion, _sampled), (60, 15, 5, 5, 10, 5))[0]
        path, body = make(random, number)
        limit = min(max_tokens, 8 + round(32 * exp(random.gauss(0, 0.7))))
        yield asked(f"prompt {number}", path, {"temperature": 0, "max_tokens": limit} | body, greedy=False)


def _question(random: Random, number: int) -> str:
    task = random.choice(TASKS).format(random.choice(SUBJECTS))
    return " ".join([f"Question {number}.", *[FILLER] * min(20, int(random.expovariate(0.4))), task])


def _chat(random: Random, number: int) -> tuple[str, Body]:
    return PATHS[CHAT], {"messages": [{"role": "user", "content": _question(random, number)}]}


def _history(random: Random, number: int) -> tuple[str, Body]:
    said = [
        {"role": "system", "content": "You are a patient teacher."},
        {"role": "user", "content": _question(random, number)},
        {"role": "assistant", "content": "Gladly. What do you know of it already?"},
        {"role": "user", "content": "Very little. " + random.choice(TASKS).format("it")},
    ]
    return PATHS[CHAT], {"messages": said}


def _stop(random: Random, number: int) -> tuple[str, Body]:
    return PATHS[CHAT], _chat(random, number)[1] | {"stop": [".", "\n\n"]}


def _json(random: Random, number: int) -> tuple[str, Body]:
    wanted = {"type": "json_schema", "json_schema": {"name": "subject", "schema": SCHEMA}}
    return PATHS[CHAT], _chat(random, number)[1] | {"response_format": wanted}


def _completion(random: Random, number: int) -> tuple[str, Body]:
    return PATHS[TEXT], {"prompt": f"{_question(random, number)}\n\nAnswer: "}


def _sampled(random: Random, number: int) -> tuple[str, Body]:
    return PATHS[CHAT], _chat(random, number)[1] | {"temperature": 0.8}


def repeated(prompts: Sequence[Prompt]) -> Iterator[Prompt]:
    """Yield recorded requests in their order, and again from the beginning."""
    while True:
        yield from prompts
