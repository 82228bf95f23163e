"""In turn: the deployment that was asked the longest time ago."""

from random import Random

from gateway.upstream.models import Candidate


def order(candidates: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the candidates by when they were asked last; those without a weight come last."""
    return sorted(candidates, key=lambda candidate: (not candidate.endpoint.weight, candidate.endpoint.last_attempt_at))
