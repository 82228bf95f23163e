"""In turn: the deployment that was asked the longest time ago."""

from random import Random

from gateway.upstream.models import Candidate


def order(offers: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the offers by when they were asked last; those without a weight come last."""
    return sorted(offers, key=lambda offer: (not offer.target.weight, offer.target.asked_at))
