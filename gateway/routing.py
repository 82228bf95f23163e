"""Step 7b: which deployments may answer a call, and in which order they are tried.

Capability comes first and is decided for the model: what only some of its engines can do goes to those alone,
whether or not they are up, so that an answer never depends on which replica was drawn.
"""

from collections.abc import Sequence
from random import Random

from backends import BACKENDS
from backends.base import Call
from gateway.catalog import Entry, Offer
from gateway.errors import RETRY_AFTER, InvalidRequest, Unavailable


def plan(call: Call, entry: Entry, pin: str | None, random: Random) -> list[Offer]:
    """Return the offers to try, in order. Raises InvalidRequest if no engine can do what is asked."""
    offers = pinned(entry, pin)
    able = [offer for offer in offers if offer.target.backend.unsupported(call) is None]
    if not able:
        backend = offers[0].target.backend
        field = backend.unsupported(call)
        raise InvalidRequest(f"'{field}' is not supported by {backend.label}, which serves this model.", field)
    return order(able, random)


def plan_path(path: str, entry: Entry, pin: str | None, random: Random) -> list[Offer]:
    """Return the offers whose engines take a path as it is. Raises InvalidRequest if none does."""
    offers = pinned(entry, pin)
    able = [offer for offer in offers if path in offer.target.backend.passes]
    if not able:
        label = offers[0].target.backend.label
        raise InvalidRequest(f"{path} is not supported by {label}, which serves this model.", "model")
    return order(able, random)


def pinned(entry: Entry, pin: str | None) -> list[Offer]:
    """Return the offers of the engine that the client pinned, or all. Raises InvalidRequest, Unavailable."""
    if not entry.offers:
        raise Unavailable(f"No engine serves '{entry.name}' yet.", headers={"retry-after": RETRY_AFTER})
    if pin is None:
        return entry.offers
    offers = [offer for offer in entry.offers if offer.target.engine == pin]
    if offers:
        return offers
    there = sorted({offer.target.engine for offer in entry.offers})
    what = "is not behind this model" if pin in BACKENDS else "is no engine"
    raise InvalidRequest(f"'{pin}' {what}; x-pointsman-engine may be: {', '.join(there)}.", "x-pointsman-engine")


def order(offers: Sequence[Offer], random: Random) -> list[Offer]:
    """Return the offers with the one to ask first drawn by weight; engines that are down come last."""
    if len(offers) == 1:
        return list(offers)
    up = [offer for offer in offers if offer.target.up]
    down = [offer for offer in offers if not offer.target.up]
    return [*_drawn(up, random), *_drawn(down, random)]


def _drawn(offers: list[Offer], random: Random) -> list[Offer]:
    left, drawn = list(offers), []
    while left:
        weights = [offer.target.weight for offer in left]
        place = random.choices(range(len(left)), weights)[0] if any(weights) else 0
        drawn.append(left.pop(place))
    return drawn
