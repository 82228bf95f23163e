"""What a comparison has come to: from answers and times to verdicts, by `gateway.experiments.statistics`. Pure.

Latencies are compared in pairs: the treatment's and the control's first answer to one prompt, at the same place of a
block. The rounds are the sample, as the requests of one block share the machine's mood and each other's queue.

Answers are compared with the control's first: the treatment's, and beside it the control's second, by which an engine's
own noise is known. A prompt counts once there, and once for failures, however often a trace is repeated.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random

from msgspec import Struct

from gateway.experiments.answers import (
    AnswerTriple,
    Difference,
    DifferenceKind,
    SaidAnswer,
    Unit,
    check_data,
    divergences,
)
from gateway.experiments.answers.data import same_data
from gateway.experiments.statistics import comparable
from gateway.experiments.statistics.arms import Arms, Split, Stratum
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.interval import Interval
from gateway.experiments.statistics.means import MeanSums, of_paired_buckets
from gateway.experiments.statistics.paired import FAIR, coin, toss
from gateway.experiments.statistics.parity import Answers, judge_answers
from gateway.experiments.statistics.quantiles import BlockSums, Histogram, bucket, quantile_interval, quantile_ratio
from gateway.experiments.statistics.tool_calls import ToolSums, agreement_lost
from gateway.experiments.statistics.verdict import Judged, Overall, Pace, guard, judge, overall
from loadtests.compare_front import CONTROL, SIDES, TREATMENT, Heard
from loadtests.compare_run import Measured, Triple
from loadtests.compare_workload import Prompt

GUARD_ALPHA = 0.01
QUANTILES = (0.5, 0.95, 0.99)
EXAMPLES = 5  # of each kind

Time = Callable[[Heard], float | None]
TIMES: dict[str, Time] = {
    "time to first token": lambda heard: heard.first or None,
    "time per token": lambda heard: heard.per_token,
    "end to end": lambda heard: heard.total,
}
PRIMARY = ("time to first token", "time per token")


class Rules(Struct, frozen=True):
    """By how much a time may be longer (0.05 is 5 %), the chance of a false verdict in all, and the planned rounds."""

    margin: float = 0.05
    alpha: float = 0.05
    planned: int = 40

    @property
    def each(self) -> float:
        """The chance of a false verdict for each primary metric: the times, and parity."""
        return self.alpha / (len(PRIMARY) + 1)


class Quantile(Struct, frozen=True):
    """One quantile of both engines, in seconds, and their ratio; a failed request counts as endless."""

    p: float
    control: Interval
    treatment: Interval
    ratio: Interval


class Latency(Struct, frozen=True):
    """One kind of time: verdict, ratio treatment over control, the control's second over its first, quantiles."""

    name: str
    judged: Judged
    ratio: Interval
    self_ratio: Interval
    pairs: int
    quantiles: list[Quantile]


class Guardrail(Struct, frozen=True):
    """Something that must not be more frequent: in how many prompts each engine alone had it."""

    name: str
    judged: Judged
    alone: Split


class Example(Struct, frozen=True):
    """A prompt whose answers differ; its texts are shown to those who ask for them."""

    prompt: str
    kind: DifferenceKind
    difference: Difference
    asked: str
    control: SaidAnswer
    treatment: SaidAnswer


class Parity(Struct, frozen=True):
    """How the answers agree: the verdict, the sums of both kinds of pairs, and what was compared as data."""

    judged: Judged
    pairs: Arms[Divergences]
    left_first: Split
    farther: Split
    sampled: int
    tools: Arms[ToolSums]
    examples: list[Example]
    unit: Unit


class SideFigures(Struct, frozen=True):
    """What one engine did in all its answers."""

    requests: int
    failed: dict[str, int]
    finishes: dict[str, int]
    tokens: int
    tokens_per_answer: float
    in_flight: float


class Findings(Struct, frozen=True):
    """All of it. `late` is the 99th percentile of how late a request was sent, in seconds."""

    overall: Overall
    latencies: list[Latency]
    guardrails: list[Guardrail]
    parity: Parity
    sides: dict[str, SideFigures]
    late: float


def judged(measured: Measured, rules: Rules, random: Random) -> Findings:
    """Return the findings of a run, also of one that was broken off."""
    triples = measured.triples
    pace = Pace(measured.rounds, measured.seconds)
    once = [triple for triple in triples if not triple.again]
    latencies = [latency(name, time, measured, rules, pace) for name, time in TIMES.items()]
    compared = [Compared.of(triple, random.random() < FAIR) for triple in once if answered(triple)]
    answers = parity(compared, rules.each, Pace(len(once), measured.seconds))
    guardrails = [
        rail("failed requests", (toss(bad(one.control), bad(one.treatment)) for one in once), measured),
        rail("answers that end elsewhere", alone(compared, DifferenceKind.STOP), measured),
        rail("data that differ", alone(compared, DifferenceKind.FORMAT), measured),
    ]
    primary = {one.name: one.judged for one in latencies if one.name in PRIMARY} | {"answers": answers.judged}
    return Findings(
        overall(primary, {one.name: one.judged for one in guardrails}),
        latencies,
        guardrails,
        answers,
        {side: figures(measured, side) for side in SIDES},
        late(triples),
    )


def bad(heard: Heard) -> int:
    """Return 1 for a request that failed."""
    return int(bool(heard.trouble))


def answered(triple: Triple) -> bool:
    """Whether all three answers are whole."""
    return not (triple.control.trouble or triple.control_again.trouble or triple.treatment.trouble)


def rail(name: str, tosses: Iterable[Split], measured: Measured) -> Guardrail:
    """Return a guardrail's verdict, by the prompts where one engine alone had it: a fair coin if they are equal."""
    alone = sum(tosses, Split())
    judged = guard(coin(alone, GUARD_ALPHA), 0.0, Pace(len(measured.triples), measured.seconds))
    return Guardrail(name, judged, alone)


# --- times -----------------------------------------------------------------------------------------------------------


def latency(name: str, time: Time, measured: Measured, rules: Rules, pace: Pace) -> Latency:
    """Return the comparison of one kind of time."""
    pairs = paired(measured.triples, lambda one: one.treatment, time)
    estimate = of_paired_buckets(pairs, rules.each, rules.planned)
    own = of_paired_buckets(paired(measured.triples, lambda one: one.control_again, time), rules.each, rules.planned)
    arms = Arms([one.control for one in measured.triples], [one.treatment for one in measured.triples])
    return Latency(
        name,
        judge(estimate, rules.margin, pace, obstacles(measured)),
        estimate.interval().ratio(),
        own.interval().ratio(),
        sum(one.n for one in pairs.values()),
        [quantile(arms, [one.round for one in measured.triples], time, p, rules.each) for p in QUANTILES],
    )


def paired(triples: Sequence[Triple], other: Callable[[Triple], Heard], time: Time) -> Mapping[int, MeanSums]:
    """Return the sums of ln(other's time) - ln(control's time), by round, of the pairs where both have one."""
    sums: dict[int, MeanSums] = {}
    for triple in triples:
        mine, its = triple.control, other(triple)
        a, b = (None if bad(heard) else time(heard) for heard in (mine, its))
        if a and b:
            sums[triple.round] = sums.get(triple.round, MeanSums()) + MeanSums.of(math.log(b / a))
    return sums


def obstacles(measured: Measured) -> list[str]:
    """Return why times cannot be compared: an engine that changed, or failures that are one engine's alone."""
    changed = Arms(*(1 + (side in measured.changed) for side in SIDES))
    failed = sum((toss(bad(one.control), bad(one.treatment)) for one in measured.triples), Split())
    return comparable.of_engines(changed) + comparable.of_missing([Stratum(failed, FAIR)], GUARD_ALPHA)


def quantile(arms: Arms[list[Heard]], rounds: Sequence[int], time: Time, p: float, alpha: float) -> Quantile:
    """Return one quantile of both engines, whose intervals allow for what the requests of a round have in common."""
    inflation = Arms(*(inflated(heard, rounds, time, p) for heard in (arms.control, arms.treatment)))
    histograms = Arms(histogram(arms.control, time), histogram(arms.treatment, time))
    return Quantile(
        p,
        quantile_interval(histograms.control, p, alpha, inflation.control),
        quantile_interval(histograms.treatment, p, alpha, inflation.treatment),
        quantile_ratio(histograms, p, alpha, inflation).interval().ratio(),
    )


def histogram(heard: Sequence[Heard], time: Time) -> Histogram:
    """Return the times of requests; one that failed has an endless one, one of a single token none per token."""
    done = Counter(bucket(found) for one in heard if not bad(one) and (found := time(one)) is not None)
    return Histogram(done, failed=sum(map(bad, heard)))


def inflated(heard: Sequence[Heard], rounds: Sequence[int], time: Time, p: float) -> float:
    """Return the variance inflation factor of a quantile, by rounds."""
    times = [math.inf if bad(one) else time(one) for one in heard]
    known = sorted(found for found in times if found is not None)
    if not known:
        return 1.0
    limit = known[min(len(known) - 1, int(p * len(known)))]
    counts: dict[int, list[int]] = {}
    for number, found in zip(rounds, times, strict=True):
        if found is not None:
            counts.setdefault(number, []).append(int(found <= limit))
    return sum((BlockSums.of(len(below), sum(below)) for below in counts.values()), BlockSums()).inflation()


# --- answers ---------------------------------------------------------------------------------------------------------


class Compared(Struct, frozen=True):
    """A prompt with its answers compared."""

    prompt: Prompt
    answers: AnswerTriple

    @staticmethod
    def of(triple: Triple, swapped: bool) -> "Compared":
        """Return a triple compared; `swapped` is which of the control's answers is the one to hold the others against.

        That is a coin, as the second may come from a prefix cache.
        """
        said = [triple.control.answer, triple.control_again.answer]
        reference, again = reversed(said) if swapped else said
        answers = AnswerTriple(reference, again, triple.treatment.answer, triple.prompt.schema is not None)
        return Compared(triple.prompt, answers)

    def example(self) -> Example:
        """Return it for the report."""
        asked, across = self.prompt.body.get("messages") or self.prompt.body.get("prompt"), self.answers.across
        both = (self.answers.reference, self.answers.treatment)
        return Example(self.prompt.label, across.kind, across, str(asked), *both)


def parity(compared: Sequence[Compared], alpha: float, pace: Pace) -> Parity:
    """Return how the answers agree."""
    greedy, sampled = ([one for one in compared if one.prompt.greedy is wanted] for wanted in (True, False))
    pairs = Arms(divergences(one.answers.own for one in greedy), divergences(one.answers.across for one in greedy))
    left_first = sum((one.answers.left_first() for one in greedy), Split())
    farther = sum((one.answers.farther() for one in sampled), Split())
    of_data = [one for one in greedy if one.prompt.tools or one.prompt.schema is not None]
    lost = sum(alone(of_data, DifferenceKind.FORMAT), Split())
    tools = agreement_lost(lost, len(of_data) - lost.total, alpha) if of_data else None
    return Parity(
        judge_answers(Answers(pairs, left_first, farther, tools), alpha, pace),
        pairs,
        left_first,
        farther,
        len(sampled),
        Arms(*(sum((called(one, own) for one in of_data), ToolSums()) for own in (True, False))),
        examples(greedy),
        max((one.answers.unit for one in greedy), key=[*Unit].index, default=Unit.TOKENS),
    )


def alone(compared: Iterable[Compared], kind: DifferenceKind) -> Iterator[Split]:
    """Yield which pair alone differs in this way, prompt by prompt; sampled answers differ as they like."""
    return (one.answers.alone(kind) for one in compared if one.prompt.greedy)


def called(one: Compared, own: bool) -> ToolSums:
    """Return the counts of one pair that was compared as data."""
    reference, schema = one.answers.reference, one.prompt.schema
    other = one.answers.again if own else one.answers.treatment
    mine, its = (check_data(answer, one.prompt.tools, schema) for answer in (reference, other))
    return ToolSums(
        both=int(mine.calls and its.calls),
        reference_only=int(mine.calls and not its.calls),
        other_only=int(its.calls and not mine.calls),
        neither=int(not mine.calls and not its.calls),
        agreed=int(same_data(reference, other, schema is not None)),
        invalid=int(its.valid is False),
    )


def examples(compared: Iterable[Compared]) -> list[Example]:
    """Return the first few of each kind of difference."""
    found: dict[DifferenceKind, list[Example]] = {}
    for one in compared:
        kind = one.answers.across.kind
        if kind is not DifferenceKind.SAME and len(found.setdefault(kind, [])) < EXAMPLES:
            found[kind].append(one.example())
    return [example for kind in DifferenceKind for example in found.get(kind, ())]


# --- figures ---------------------------------------------------------------------------------------------------------


def figures(measured: Measured, side: str) -> SideFigures:
    """Return what an engine did in all its answers."""
    heard = [one.treatment for one in measured.triples]
    if side == CONTROL:
        heard = [answer for one in measured.triples for answer in (one.control, one.control_again)]
    whole = [one for one in heard if not bad(one)]
    tokens = sum(max(0, one.answer.completion_tokens) for one in whole)
    share = {CONTROL: 2 / 3, TREATMENT: 1 / 3}[side]  # of the time, in which it was asked
    return SideFigures(
        len(heard),
        dict(Counter(one.trouble for one in heard if bad(one))),
        dict(Counter(one.answer.finish or "none" for one in whole)),
        tokens,
        tokens / len(whole) if whole else 0.0,
        sum(one.total for one in heard) / (measured.seconds * share) if measured.seconds else 0.0,
    )


def late(triples: Sequence[Triple]) -> float:
    """Return the 99th percentile of how late requests were sent: the machine that asks should not be what is slow."""
    waits = sorted(one.late for triple in triples for one in (triple.control, triple.control_again, triple.treatment))
    return waits[int(0.99 * len(waits))] if waits else 0.0
