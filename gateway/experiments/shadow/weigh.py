"""Three answers compared, and counted: the client's own (a1), the treatment's (b), the control's once more (a2).

P1, P2: greedy answers, by the first token in which they differ. The client's answer has no log probabilities, so the
kind of a difference is judged from b against a2 where both go with a1 up to it; else nobody can say.
P3: sampled answers, by how far each is from a1. P5: tool calls and JSON, as data.
A triple's coins are tossed once for a conversation, as those of one conversation are not independent.
"""

import math

from msgspec import Struct

from backends.base import Call
from gateway.experiments.answers import (
    Difference,
    DifferenceKind,
    SaidAnswer,
    Unit,
    check_data,
    common_unit,
    distance,
    first_difference,
)
from gateway.experiments.answers.data import same_data
from gateway.experiments.answers.difference import units
from gateway.experiments.assignment import Arm, Assignment
from gateway.experiments.shadow.ask import ShadowAnswer
from gateway.experiments.shadow.call import schema_of, tools_of
from gateway.experiments.shadow.examples import example

COUNTED = {
    DifferenceKind.TIE: "ties",
    DifferenceKind.HARD: "hard",
    DifferenceKind.STOP: "stopped",
    DifferenceKind.FORMAT: "formats",
    DifferenceKind.PROMPT: "prompts",
}
MOST_COMPARED = 4096  # units of a sampled answer, as the distance grows with their square


class Answers3(Struct, frozen=True):
    """The answers of one request; `control` is there for a third of them."""

    client: SaidAnswer
    treatment: ShadowAnswer
    control: ShadowAnswer | None


def weigh(answers: Answers3, call: Call, assignment: Assignment, clear: bool) -> None:
    """Count what the answers say; keep examples in clear or redacted."""
    tally, epoch = assignment.live.tally, assignment.epoch
    tally.count(epoch, "shadow", "compared")
    for arm, answer in _shadows(answers):
        if answer.usage is not None:
            tally.count(epoch, "prefix", arm, "prompt", by=max(answer.usage.prompt_tokens, 0))
            tally.count(epoch, "prefix", arm, "cached", by=answer.cached)
    if answers.control is not None:
        _count_times(answers.treatment, answers.control, assignment)
    if call.view.greedy:
        _count_greedy(answers, call, assignment, clear)
    else:
        _count_sampled(answers, assignment)
    if tools_of(call) or schema_of(call) is not None:
        _count_data(answers, call, assignment)


def _shadows(answers: Answers3) -> list[tuple[Arm, ShadowAnswer]]:
    both: list[tuple[Arm, ShadowAnswer]] = [("treatment", answers.treatment)]
    return both if answers.control is None else [*both, ("control", answers.control)]


def _count_times(treatment: ShadowAnswer, control: ShadowAnswer, assignment: Assignment) -> None:
    """Add the pair's differences of logarithms: only the two shadows were asked alike."""
    for metric in ("ttft", "itl", "e2e"):
        b, a = getattr(treatment, metric), getattr(control, metric)
        if min(a, b) > 0:
            path = (assignment.epoch, "pair", metric, str(assignment.conversation.bucket))
            assignment.live.tally.mean(path, math.log(b) - math.log(a))


def _count_greedy(answers: Answers3, call: Call, assignment: Assignment, clear: bool) -> None:
    as_json = schema_of(call) is not None
    said = [answers.client, *(answer.said for _, answer in _shadows(answers))]
    unit = common_unit(*said)
    found = {arm: first_difference(answers.client, answer.said, unit, as_json) for arm, answer in _shadows(answers)}
    between = _between(answers, as_json)
    for arm, difference in found.items():
        kind = _kind(difference, between)
        _count_difference(arm, difference, kind, assignment)
        if kind is not DifferenceKind.SAME:
            other = answers.treatment if arm == "treatment" else answers.control
            assert other is not None
            name = f"{'pair' if arm == 'treatment' else 'self'}-{kind}"
            assignment.live.tally.example(name, example(answers.client, other.said, difference, kind, call, clear))
    if "control" in found:
        first = {arm: one.at_risk if one.diverged else math.inf for arm, one in found.items()}
        _toss("left_first", -first["control"], -first["treatment"], assignment)


def _between(answers: Answers3, as_json: bool) -> Difference | None:
    """Return where the two shadows part, by their tokens."""
    if answers.control is None:
        return None
    unit = common_unit(answers.control.said, answers.treatment.said)
    return None if unit is Unit.WORDS else first_difference(answers.control.said, answers.treatment.said, unit, as_json)


def _kind(difference: Difference, between: Difference | None) -> DifferenceKind:
    """Return the kind of a divergence from a1, judged by the shadows, if they part where it does."""
    if difference.kind is DifferenceKind.UNKNOWN and between is not None and between.offset == difference.offset:
        return between.kind if between.kind in (DifferenceKind.TIE, DifferenceKind.HARD) else DifferenceKind.UNKNOWN
    return difference.kind


def _count_difference(arm: Arm, difference: Difference, kind: DifferenceKind, assignment: Assignment) -> None:
    tally, path = assignment.live.tally, (assignment.epoch, "answers", arm)
    tally.count(*path, "pairs")
    if kind in COUNTED:
        tally.count(*path, COUNTED[kind])
    if kind in (
        DifferenceKind.PROMPT,
        DifferenceKind.FORMAT,
    ):  # what follows is the answer to something else, or is compared as data
        return
    tally.count(*path, "tokens", by=difference.at_risk)
    tally.count(*path, "diverged", by=int(difference.diverged))


def _count_sampled(answers: Answers3, assignment: Assignment) -> None:
    """Toss which shadow is farther from the client's answer."""
    if answers.control is None:
        return
    client, b, a = (
        units(answer, Unit.WORDS)[:MOST_COMPARED]
        for answer in (answers.client, answers.treatment.said, answers.control.said)
    )
    _toss("farther", distance(client, a), distance(client, b), assignment)


def _count_data(answers: Answers3, call: Call, assignment: Assignment) -> None:
    tools, schema, tally = tools_of(call), schema_of(call), assignment.live.tally
    agreed: dict[Arm, bool] = {}
    reference = check_data(answers.client, tools, schema)
    for arm, answer in _shadows(answers):
        other, path = check_data(answer.said, tools, schema), (assignment.epoch, "tools", arm)
        both = {(True, True): "both", (True, False): "reference_only", (False, True): "other_only"}
        tally.count(*path, both.get((reference.calls, other.calls), "neither"))
        agreed[arm] = same_data(answers.client, answer.said, schema is not None)
        tally.count(*path, "agreed", by=int(agreed[arm]))
        tally.count(*path, "invalid", by=int(other.valid is False))
    if "control" in agreed:
        if agreed["control"] == agreed["treatment"]:
            tally.count(assignment.epoch, "alike", "tools")
        _toss("tools", float(not agreed["control"]), float(not agreed["treatment"]), assignment)


def _toss(coin: str, control: float, treatment: float, assignment: Assignment) -> None:
    """Toss a triple's coin, which falls to the arm with more; a conversation has one of each kind."""
    if control != treatment:
        arm: Arm = "control" if control > treatment else "treatment"
        kind = f"coin/{coin}"
        assignment.live.tally.once(kind, assignment.conversation.place, assignment.epoch, kind, arm)
