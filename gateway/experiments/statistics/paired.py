"""M5: a score of one request in both arms, such as how far each answer is from a third.

Of three answers to one request, a1 (the control's, which the client got), a2 (the control asked again) and b (the
treatment's), a2 and b are exchangeable if the engines are equal. So whichever is farther from a1 is a fair coin, for
any distance and any traffic: M2 with a share of 1/2, on the requests where one was farther. How much farther is the
mean of the difference of the two distances (M3, `means.of_pairs`).

Conditions: a2 and b are asked alike: in random order, at one priority, neither from a cache, with seeds of their own.
Triples of one conversation are not independent: one triple of a conversation is counted.
"""

from gateway.experiments.statistics.arms import Split, Stratum
from gateway.experiments.statistics.events import EventEstimate, rate_ratio

FAIR = 0.5


def toss(control: float, treatment: float) -> Split:
    """Return which arm's score is higher, as one toss; none where they are equal."""
    return Split(int(control > treatment), int(treatment > control))


def coin(tosses: Split, alpha: float) -> EventEstimate:
    """Return the logarithm of the coin's odds, treatment over control: 0 where the engines are equal."""
    return rate_ratio([Stratum(tosses, FAIR)], alpha)
