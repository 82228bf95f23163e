"""P1 and P2: how soon greedy answers of two engines part, beside how soon one engine's own do, and why.

Two answers to one prompt are compared up to the first token that differs. Over many pairs, divergences per token at
risk are a hazard that no answer's length changes: h = sum d / sum t, with t the tokens compared of a pair and d = 1 if
they differed before either ended. The share of equal texts of L tokens is about exp(-h L).

An engine asked twice diverges, too, for batches change the order of sums. So the hazard between the engines (AB) is
judged over that of the self-pairs (AA), the control asked twice: M2 with the tokens at risk as exposure. Here `control`
is AA and `treatment` AB.

Conditions: greedy or nearly so; a pair diverges once at most; the share of the self-pairs does not drift. The ratio is
a size. The proof is the coin of triples (`paired`): which of b and a2 left a1 first.

A divergence is a *tie* where both tokens were nearly as likely, *hard* where not, *unknown* where nobody can say. Ties
are noise; hard ones are what is judged (`hard_ratio`), per divergence. Prompts of different lengths are another thing,
and always a finding.
"""

from msgspec import Struct

from gateway.experiments.statistics.arms import Arms, Split
from gateway.experiments.statistics.events import EventEstimate, exposed, rate_ratio


class Divergences(Struct, frozen=True):
    """Sums over pairs: how many, the tokens at risk, how many diverged, and how.

    `stopped` are those where one answer is the other's beginning, `formats` those whose tool calls or JSON differ as
    data; neither is among the `diverged`. `prompts` are pairs whose prompts were of different lengths.
    """

    pairs: int = 0
    tokens: int = 0
    diverged: int = 0
    ties: int = 0
    hard: int = 0
    stopped: int = 0
    formats: int = 0
    prompts: int = 0

    def __add__(self, other: "Divergences") -> "Divergences":
        """Merge with the sums of another worker or gateway, exactly."""
        return Divergences(
            self.pairs + other.pairs,
            self.tokens + other.tokens,
            self.diverged + other.diverged,
            self.ties + other.ties,
            self.hard + other.hard,
            self.stopped + other.stopped,
            self.formats + other.formats,
            self.prompts + other.prompts,
        )

    @property
    def per_1000_tokens(self) -> float:
        """The hazard: divergences per 1,000 tokens at risk."""
        return 1000 * self.diverged / self.tokens if self.tokens else 0.0

    @property
    def unknown(self) -> int:
        """Divergences of which nobody could say whether they are ties."""
        return self.diverged - self.ties - self.hard


def hazard_ratio(pairs: Arms[Divergences], alpha: float) -> EventEstimate:
    """Return the logarithm of the hazard between the engines over that of the self-pairs."""
    return _ratio(
        Split(pairs.control.diverged, pairs.treatment.diverged),
        Split(pairs.control.tokens, pairs.treatment.tokens),
        alpha,
    )


def hard_ratio(pairs: Arms[Divergences], alpha: float) -> EventEstimate:
    """Return the logarithm of the hard share of the divergences whose kind is known, AB over AA."""
    a, b = pairs.control, pairs.treatment
    return _ratio(Split(a.hard, b.hard), Split(a.hard + a.ties, b.hard + b.ties), alpha)


def pair_ratio(events: Split, pairs: Arms[Divergences], alpha: float) -> EventEstimate:
    """Return the logarithm of how often a pair of engines had an event over how often a self-pair had it.

    For what is counted once a pair: the answer stopped elsewhere, its format differs.
    """
    return _ratio(events, Split(pairs.control.pairs, pairs.treatment.pairs), alpha)


def _ratio(events: Split, exposure: Split, alpha: float) -> EventEstimate:
    both = min(exposure.control, exposure.treatment)
    return rate_ratio([exposed(events, exposure)] if both else [], alpha)
