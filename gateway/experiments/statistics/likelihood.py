"""P4: how likely one engine's answers are to the other: nats per token of the answers that it did not expect.

The control's answer y is scored by both engines in one prefill each. The mean over its tokens of

    ln p_A(y_t) - ln p_B(y_t)

is unbiased for the divergence KL(A || B) in nats per token (S. Kullback and R. Leibler, 1951), at any temperature, if y
was drawn from A. Beside it stands the same with A in the place of B, scored once more: 0 but for noise.

Tokens of one answer hang together, so answers are the sample: the mean is a ratio of sums over answers, its variance
that of the linearised ratio estimator (Cochran, "Sampling Techniques", 1977, 6.3), and its interval M3's.

Conditions: both engines' log-probabilities mean the same: raw ones, or temperature 1 without top-p and penalties.
"""

from msgspec import Struct

from gateway.experiments.statistics.means import LEAST, PLANNED, MeanEstimate
from gateway.experiments.statistics.scaled import SCALE, scaled


class ScoreSums(Struct, frozen=True):
    """Sums over answers: of the difference s of their log-likelihoods (ten-thousandths of a nat), and of tokens t."""

    answers: int = 0
    s: int = 0
    t: int = 0
    ss: int = 0
    st: int = 0
    tt: int = 0

    @staticmethod
    def of(difference: float, tokens: int) -> "ScoreSums":
        """Return the sums of one answer: ln p_A(y) - ln p_B(y) of the whole of it, in nats, and its tokens."""
        s = scaled(difference)
        return ScoreSums(1, s, tokens, s * s, s * tokens, tokens * tokens)

    def __add__(self, other: "ScoreSums") -> "ScoreSums":
        """Merge with the sums of another worker or gateway, exactly."""
        return ScoreSums(
            self.answers + other.answers,
            self.s + other.s,
            self.t + other.t,
            self.ss + other.ss,
            self.st + other.st,
            self.tt + other.tt,
        )


def nats_per_token(sums: ScoreSums, alpha: float, planned: int = PLANNED) -> MeanEstimate:
    """Return the divergence in nats per token."""
    n, t = sums.answers, sums.t
    mean = variance = 0.0
    if n > 1 and t:
        mean = sums.s / t
        between = sums.ss - 2 * mean * sums.st + mean * mean * sums.tt
        variance = n / (n - 1) * between / (t * t)
    return MeanEstimate(mean / SCALE, variance / SCALE**2, n, 1.0, n / LEAST, alpha, planned)
