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


def order(offers: list[Candidate], head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the offers by what the head's hash says of them, those over their bound last."""
    ranked = sorted(offers, key=lambda offer: _score(offer, head, now))
    shares = [offer.target.share(now) for offer in ranked]
    whole = sum(shares) or 1.0
    in_flight = sum(offer.target.load for offer in ranked) + 1
    room = [
        offer.target.load + 1 <= math.ceil(BOUND * in_flight * share / whole)
        for offer, share in zip(ranked, shares, strict=True)
    ]
    return [
        *(offer for offer, has in zip(ranked, room, strict=True) if has),
        *(offer for offer, has in zip(ranked, room, strict=True) if not has),
    ]


def _score(offer: Candidate, head: bytes, now: float) -> float:
    """Return the place that a deployment has for this head: the lowest wins, each as often as its share says."""
    share = offer.target.share(now)
    drawn = int.from_bytes(blake2b(offer.target.name.encode() + b"\0" + head, digest_size=8).digest())
    return -math.log((drawn + 1) / 2**64) / share if share else math.inf
