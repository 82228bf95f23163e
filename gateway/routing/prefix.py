"""By the prompt's head: the same head goes to the same deployment, which has it in its KV cache already.

Rendezvous hashing (D. Thaler and C. Ravishankar, 1998), weighted by shares: when a deployment comes or goes, only the
heads that are its own move. With a bound on load (V. Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016):
one that has more than its share of the requests, and a quarter, is passed over, however dear its cache is.
"""

import math
from hashlib import blake2b
from random import Random

from gateway.upstream.models import Candidate

BOUND = 1.25


def order(candidates: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the candidates by what the head's hash says of them, those over their bound last."""
    ranked = sorted(candidates, key=lambda candidate: _score(candidate, head, now))
    shares = [candidate.endpoint.effective_weight(now) for candidate in ranked]
    whole = sum(shares) or 1.0
    in_flight = sum(candidate.endpoint.load for candidate in ranked) + 1
    room = [
        candidate.endpoint.load + 1 <= math.ceil(BOUND * in_flight * share / whole)
        for candidate, share in zip(ranked, shares, strict=True)
    ]
    return [
        *(candidate for candidate, has in zip(ranked, room, strict=True) if has),
        *(candidate for candidate, has in zip(ranked, room, strict=True) if not has),
    ]


def _score(candidate: Candidate, head: bytes, now: float) -> float:
    """Return the score of a deployment for this beginning: the lowest wins, each as often as its weight says."""
    share = candidate.endpoint.effective_weight(now)
    drawn = int.from_bytes(blake2b(candidate.endpoint.name.encode() + b"\0" + head, digest_size=8).digest())
    return -math.log((drawn + 1) / 2**64) / share if share else math.inf
