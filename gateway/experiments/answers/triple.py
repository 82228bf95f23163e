"""Three answers to one request: the reference and the same engine asked again, beside the other engine's.

If the engines are equal, `again` and `treatment` are exchangeable given the reference: whichever of the two differs
alone, or sooner, or by more, is a fair coin (P1, P3, P5; `statistics.paired`).
"""

import math
from collections.abc import Iterable

from gateway.experiments.answers.difference import Difference, DifferenceKind, common_unit, first_difference, units
from gateway.experiments.answers.distance import distance
from gateway.experiments.answers.said import SaidAnswer
from gateway.experiments.statistics.arms import Split
from gateway.experiments.statistics.divergence import Divergences
from gateway.experiments.statistics.paired import toss


class AnswerTriple:
    """Both comparisons of one request, in one unit: `own` with the engine asked again, `across` with the other.

    `as_json` is whether the request asked for JSON. Tosses are of the pairs: control is `own`, treatment `across`.
    """

    def __init__(self, reference: SaidAnswer, again: SaidAnswer, treatment: SaidAnswer, as_json: bool = False) -> None:
        self.reference, self.again, self.treatment = reference, again, treatment
        self.unit = common_unit(reference, again, treatment)
        self.own = first_difference(reference, again, self.unit, as_json)
        self.across = first_difference(reference, treatment, self.unit, as_json)

    def alone(self, kind: DifferenceKind) -> Split:
        """Return which pair alone differs in this way, as a toss."""
        return toss(self.own.kind is kind, self.across.kind is kind)

    def left_first(self) -> Split:
        """Return which answer left the reference first, as a toss; where the prompts differ, that says nothing."""
        own, across = (one.at_risk if one.diverged else math.inf for one in (self.own, self.across))
        return Split() if DifferenceKind.PROMPT in (self.own.kind, self.across.kind) else toss(across, own)

    def farther(self) -> Split:
        """Return which sampled answer is farther from the reference, as a toss."""
        reference, again, treatment = (units(one, self.unit) for one in (self.reference, self.again, self.treatment))
        return toss(distance(reference, again), distance(reference, treatment))


def divergences(differences: Iterable[Difference]) -> Divergences:
    """Return the sums of greedy pairs; what two engines that read other prompts wrote is not at risk."""
    total = Divergences()
    for one in differences:
        total += Divergences(
            pairs=1,
            tokens=0 if one.kind is DifferenceKind.PROMPT else one.at_risk,
            diverged=int(one.diverged),
            ties=int(one.kind is DifferenceKind.TIE),
            hard=int(one.kind is DifferenceKind.HARD),
            stopped=int(one.kind is DifferenceKind.STOP),
            formats=int(one.kind is DifferenceKind.FORMAT),
            prompts=int(one.kind is DifferenceKind.PROMPT),
        )
    return total
