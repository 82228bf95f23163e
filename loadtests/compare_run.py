"""Asks two engines, round by round, and keeps what they answered, whatever happens on the way."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from loadtests.compare_front import CONTROL, SIDES, TREATMENT, Front, Heard
from loadtests.compare_workload import Prompt, Round, sent
from loadtests.open_loop import paced


class Triple(Struct, frozen=True):
    """One prompt's answers: the control's two, in the order in which it was asked, and the treatment's.

    `round` tells which were asked together; `again` is whether the prompt was asked in an earlier round, too.
    """

    prompt: Prompt
    round: int
    again: bool
    control: Heard
    control_again: Heard
    treatment: Heard


@dataclass
class Measured:
    """What a run has come to so far. `stopped` is why it did not come to its end. Seconds are those it took."""

    triples: list[Triple] = field(default_factory=list)
    rounds: int = 0
    blocks: int = 0
    seconds: float = 0.0
    stopped: str = ""
    changed: list[str] = field(default_factory=list)  # sides whose engine became another meanwhile


async def measure(
    front: Front, plan: Sequence[Round], logprobs: bool, measured: Measured, tick: Callable[[Measured], object]
) -> str:
    """Ask all rounds; return why that was not done to the end, "" if it was.

    What is measured goes into `measured`, round by round; `tick` is called after each block.
    """
    clock = asyncio.get_running_loop().time
    began, known = clock(), {side: front.fingerprint(side) for side in SIDES}
    seen: set[str] = set()
    for number, planned in enumerate(plan):
        blocks: dict[str, list[list[Heard]]] = {side: [] for side in SIDES}
        for side in planned.order:
            blocks[side].append(await block(front, side, planned, logprobs))
            measured.blocks += 1
            tick(measured)
            if any(one.trouble for one in blocks[side][-1]) and await front.gone(side):
                return f"{front.reason(side)}, after {clock() - began:.0f} s"
        measured.triples += triples(planned, number, blocks, seen)
        measured.rounds += 1
        measured.seconds = clock() - began
        measured.changed = [side for side in SIDES if front.fingerprint(side) != known[side]]
    return ""


async def block(front: Front, side: str, planned: Round, logprobs: bool) -> list[Heard]:
    """Ask one engine the prompts of a round, and wait for the last answer."""
    ids = all(engine.kind == "vllm" for engine in front.engines.values())
    bodies = [sent(prompt, front.model(side), logprobs, ids) for prompt in planned.prompts]
    heard: dict[int, Heard] = {}

    async def ask(place: int, due: float) -> None:
        heard[place] = await front.ask(side, planned.prompts[place].path, bodies[place], due)

    await paced(planned.times, ask)
    return [heard[place] for place in range(len(bodies))]


def triples(planned: Round, number: int, blocks: dict[str, list[list[Heard]]], seen: set[str]) -> list[Triple]:
    """Return the answers of a round, prompt by prompt; `seen` are the labels of those that were asked before."""
    made = []
    for prompt, first, again, other in zip(planned.prompts, *blocks[CONTROL], *blocks[TREATMENT], strict=True):
        made.append(Triple(prompt, number, prompt.label in seen, first, again, other))
        seen.add(prompt.label)
    return made
