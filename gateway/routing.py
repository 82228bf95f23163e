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
    able = [offer for offer in offers if offer.target.backend.unsupported(call, offer.sees) is None]
    if not able or (not entry.routes and len(able) < len(offers)):
        lacking = next(offer for offer in offers if offer not in able)
        backend = lacking.target.backend
        field = backend.unsupported(call, lacking.sees)
        raise InvalidRequest(f"'{field}' is not supported by {backend.label}, which serves this model.", field)
    return order(_with_room(call, able), random)


def _with_room(call: Call, offers: list[Offer]) -> list[Offer]:
    """Return the offers whose context is not smaller than what is to be generated. Raises InvalidRequest."""
    limit = call.view.limit
    known = [offer.max_model_len for offer in offers if offer.max_model_len]
    if limit is None or not known or limit <= min(known):
        return offers
    room = [offer for offer in offers if not offer.max_model_len or limit <= offer.max_model_len]
    if not room:
        name = "max_completion_tokens" if getattr(call.view, "max_completion_tokens", None) else "max_tokens"
        raise InvalidRequest(f"'{name}' must be at most {max(known)}, the model's context length.", name)
    return room


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
