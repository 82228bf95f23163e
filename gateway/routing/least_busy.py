"""The less busy of two that are drawn at random (M. Mitzenmacher, "The Power of Two Choices", 2001).

How busy one is: the requests that are in flight from here and those in the engine's own queue, for its share. Two
choices spread the load almost as well as looking at all, and several gateways do not all run to the same engine.
"""

from random import Random

from gateway.upstream.models import Candidate


def order(candidates: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the candidates, the less busy of two first; the rest follow by how busy they are."""

    def busy(candidate: Candidate) -> float:
        return (candidate.endpoint.load + 1) / max(candidate.endpoint.effective_weight(now), 1e-9)

    shared = [candidate for candidate in candidates if candidate.endpoint.effective_weight(now)] or candidates
    first = min(random.sample(shared, min(2, len(shared))), key=busy)
    return [first, *sorted((candidate for candidate in candidates if candidate is not first), key=busy)]
