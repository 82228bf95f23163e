"""The less busy of two that are drawn at random (M. Mitzenmacher, "The Power of Two Choices", 2001).

How busy one is: the requests that are in flight from here and those in the engine's own queue, for its share. Two
choices spread the load almost as well as looking at all, and several gateways do not all run to the same engine.
"""

from random import Random

from gateway.upstream.models import Candidate


def order(offers: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the offers, the less busy of two first; the rest follow by how busy they are."""

    def busy(offer: Candidate) -> float:
        return (offer.target.load + 1) / max(offer.target.share(now), 1e-9)

    shared = [offer for offer in offers if offer.target.share(now)] or offers
    first = min(random.sample(shared, min(2, len(shared))), key=busy)
    return [first, *sorted((offer for offer in offers if offer is not first), key=busy)]
