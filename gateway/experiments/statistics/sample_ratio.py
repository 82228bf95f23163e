"""M1: was the traffic split as planned? If not, whatever else is measured compares unlike things.

Each unit falls to the treatment with a known chance, so the count is a binomial one, whatever the units do. The e-value
mixes over other chances by a Beta distribution around the planned one; the chance that it ever reaches 1/alpha, looked
at after every unit, is at most alpha (Ville's inequality).

Condition: independent draws. So a unit is counted once in an experiment, when first seen, never its requests: under
sticky units the requests of one fall together, and a count of them raises the alarm where nothing is wrong.

M. Lindon and A. Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022: their Dirichlet mixture
with two categories and concentration 4.
"""

import math
from collections.abc import Iterable

from gateway.experiments.statistics.arms import Stratum

ALPHA = 0.001
CONCENTRATION = 4.0


def log_beta(a: float, b: float) -> float:
    """Return the logarithm of Euler's beta function, of positive arguments."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_binomial_evidence(k: float, n: float, share: float, concentration: float) -> float:
    """Return ln E against "each of n is one of the k by this chance": a Beta mixture's likelihood over the chance's.

    lnB(c s + k, c(1-s) + n - k) - lnB(c s, c(1-s)) - k ln s - (n-k) ln(1-s), for share s and concentration c.
    """
    a, b = concentration * share, concentration * (1 - share)
    mixture = log_beta(a + k, b + n - k) - log_beta(a, b)
    return mixture - k * math.log(share) - (n - k) * math.log1p(-share)


def log_evidence(epochs: Iterable[Stratum]) -> float:
    """Return ln E against the plan, of the units first seen in each epoch: the product of the epochs' e-values."""
    return sum(
        log_binomial_evidence(epoch.split.treatment, epoch.split.total, epoch.share, CONCENTRATION) for epoch in epochs
    )


def mismatched(epochs: Iterable[Stratum], alpha: float = ALPHA) -> bool:
    """Whether the split is not the planned one, with a chance of at most alpha to say so where it is."""
    return log_evidence(epochs) >= -math.log(alpha)
