"""By weight: each deployment gets its share of the requests, drawn at random."""

from random import Random

from gateway.upstream.models import Candidate


def order(candidates: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the candidates in an order drawn by their shares; one without a share comes last."""
    left, drawn = list(candidates), []
    while left:
        shares = [candidate.endpoint.effective_weight(now) for candidate in left]
        index = random.choices(range(len(left)), shares)[0] if any(shares) else 0
        drawn.append(left.pop(index))
    return drawn
