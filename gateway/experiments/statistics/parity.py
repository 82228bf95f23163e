"""Do the engines answer alike? One verdict of all that was compared, against what the control's self-pairs show.

Worse: a prompt that differs, a hazard of divergence more than 1.5 times the self-pairs' (unless it is below one per
1,000 tokens), a larger share of hard divergences, a loaded coin, tool agreement lost by more than a point.
Not worse: the hazard is known to be less than that, and none of the others is found.
"""

import math
from collections.abc import Iterator

from msgspec import Struct

from gateway.experiments.statistics.arms import Arms, Split
from gateway.experiments.statistics.divergence import Divergences, hard_ratio, hazard_ratio
from gateway.experiments.statistics.means import MeanEstimate
from gateway.experiments.statistics.paired import coin
from gateway.experiments.statistics.sample_ratio import CONCENTRATION, log_binomial_evidence
from gateway.experiments.statistics.verdict import GOOD, Judged, Judgement, Pace, judge

HAZARD_MARGIN = 0.5  # 1.5 times the self-pairs' hazard
RARE = 1.0  # divergences per 1,000 tokens, below which the ratio does not matter
POINT = 0.01  # of tool agreement


class Answers(Struct, frozen=True):
    """What is known of the answers: the pairs (control is AA, treatment AB), coins of triples, and tool agreement.

    `left_first`: which of a2 (control) and b (treatment) left a greedy a1 first. `farther`: which was farther from a
    sampled a1.
    """

    pairs: Arms[Divergences]
    left_first: Split = Split()
    farther: Split = Split()
    tools: MeanEstimate | None = None


def judge_answers(answers: Answers, alpha: float, pace: Pace) -> Judged:
    """Return the verdict on parity; `alpha` is for each of the tests that make it up."""
    found = list(findings(answers, alpha))
    if found:
        return Judged(Judgement.WORSE, "; ".join(found))
    hazard = f"{answers.pairs.treatment.per_1000_tokens:.2f} divergences per 1,000 tokens"
    if _rare(answers.pairs.treatment, alpha):
        return Judged(Judgement.NOT_WORSE, hazard)
    judged = judge(hazard_ratio(answers.pairs, alpha), HAZARD_MARGIN, pace)
    if judged.judgement in GOOD:
        return Judged(Judgement.NOT_WORSE, hazard)  # to part later than the engine's own is not better
    return judged


def findings(answers: Answers, alpha: float) -> Iterator[str]:
    """Yield what is worse, in words."""
    a, b = answers.pairs.control, answers.pairs.treatment
    if b.prompts > a.prompts:
        yield f"{b.prompts} prompts differ in their number of tokens"
    if b.per_1000_tokens >= RARE and _sooner(answers, alpha):
        yield f"{b.per_1000_tokens:.2f} divergences per 1,000 tokens, of its own {a.per_1000_tokens:.2f}"
    if hard_ratio(answers.pairs, alpha).interval().low > 0:
        yield f"{b.hard} of {b.diverged} divergences are hard"
    if coin(answers.farther, alpha).interval().low > 0:
        yield "sampled answers are farther away than the control's own"
    if answers.tools is not None and answers.tools.interval().low > POINT:
        yield "tool calls agree less often"


def _sooner(answers: Answers, alpha: float) -> bool:
    """Whether answers part sooner by more than the margin: by the exact coin, or by size."""
    estimates = (coin(answers.left_first, alpha), hazard_ratio(answers.pairs, alpha))
    return any(estimate.interval().low > math.log1p(HAZARD_MARGIN) for estimate in estimates)


def _rare(pairs: Divergences, alpha: float) -> bool:
    """Whether the hazard is known to be below one per 1,000 tokens: the binomial interval of M1 ends before it."""
    if not pairs.tokens or pairs.per_1000_tokens >= RARE:
        return False
    evidence = log_binomial_evidence(pairs.diverged, pairs.tokens, RARE / 1000, CONCENTRATION)
    return evidence >= -math.log(alpha)
