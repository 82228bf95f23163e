"""By weight: each deployment gets its share of the requests, drawn at random."""

from random import Random

from gateway.upstream.models import Candidate


def order(offers: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the offers in an order drawn by their shares; one without a share comes last."""
    left, drawn = list(offers), []
    while left:
        shares = [offer.target.share(now) for offer in left]
        place = random.choices(range(len(left)), shares)[0] if any(shares) else 0
        drawn.append(left.pop(place))
    return drawn
