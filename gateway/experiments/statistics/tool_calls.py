"""P5: do the engines call the same tools, with the same arguments, and valid ones?

For each request with tools the reference a1 is compared with b (AB) and with a2, the control asked again (AA). The
share of agreement, and F1 of "calls a tool", are the figures to show (F1 as in Moonshot AI's K2 Vendor Verifier, which
also measures the reference against itself). The test is on the requests where one of b and a2 agrees with a1 and the
other does not: a fair coin where the engines are equal (`paired`); the size is the mean of that difference (M3).
"""

import math

from msgspec import Struct

from gateway.experiments.statistics.arms import Split
from gateway.experiments.statistics.means import MeanEstimate, MeanSums, of_pairs


class ToolSums(Struct, frozen=True):
    """Counts over pairs of answers: both called a tool, only the reference, only the other, neither; and agreement.

    `agreed` are pairs that called the same tools with the same arguments, or both none; `invalid` those whose other
    answer broke the request's schema.
    """

    both: int = 0
    reference_only: int = 0
    other_only: int = 0
    neither: int = 0
    agreed: int = 0
    invalid: int = 0

    def __add__(self, other: "ToolSums") -> "ToolSums":
        """Merge with the counts of another worker or gateway, exactly."""
        return ToolSums(
            self.both + other.both,
            self.reference_only + other.reference_only,
            self.other_only + other.other_only,
            self.neither + other.neither,
            self.agreed + other.agreed,
            self.invalid + other.invalid,
        )

    @property
    def pairs(self) -> int:
        """How many pairs were compared."""
        return self.both + self.reference_only + self.other_only + self.neither

    def f1(self) -> float:
        """Return F1 of "calls a tool", the reference being right; 1.0 where neither ever called one."""
        wrong = self.reference_only + self.other_only
        return 2 * self.both / (2 * self.both + wrong) if self.both or wrong else 1.0

    def agreement(self) -> float:
        """Return the share of pairs that agreed; not a number where there were none."""
        return self.agreed / self.pairs if self.pairs else math.nan


def agreement_lost(triples: Split, agreeing_alike: int, alpha: float) -> MeanEstimate:
    """Return how much less often b agrees with a1 than a2 does, as a difference of shares (0.01 is one point).

    `triples` are those where a2 alone differed from a1 (control) and where b alone did (treatment); in the others,
    `agreeing_alike`, both agreed or both differed.
    """
    one, other = MeanSums.of(1.0), MeanSums.of(-1.0)
    n = triples.total + agreeing_alike
    y = triples.treatment * one.y + triples.control * other.y
    return of_pairs(MeanSums(n, y, triples.total * one.yy), alpha)
