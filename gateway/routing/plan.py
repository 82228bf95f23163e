"""Which deployments may answer a call, and in which order they are tried.

Capability comes first and is decided for the model: what only some of its engines can do goes to those alone,
whether or not they are up, so that an answer never depends on which replica was drawn. Then who is ready goes before
who is down, and who is left alone by its breaker is not asked at all.
"""

import math
from collections.abc import Callable
from random import Random

from backends import BACKENDS
from backends.base import Call
from gateway.http.errors import RETRY_AFTER, InvalidRequest, Unavailable
from gateway.routing import least_busy, prefix, round_robin, weighted
from gateway.upstream.models import Candidate, Entry

Policy = Callable[[list[Candidate], bytes, float, Random], list[Candidate]]

POLICIES: dict[str, Policy] = {
    "weighted": weighted.order,
    "round_robin": round_robin.order,
    "least_busy": least_busy.order,
    "prefix": prefix.order,
}


def plan(call: Call, entry: Entry, pin: str | None, now: float, random: Random) -> list[Candidate]:
    """Return the offers to try, in order. Raises InvalidRequest if no engine can do what is asked, Unavailable."""
    offers = pinned(entry, pin)
    able = [offer for offer in offers if offer.target.backend.unsupported(call, offer.sees) is None]
    if not able or (not entry.routes and len(able) < len(offers)):
        lacking = next(offer for offer in offers if offer not in able)
        backend = lacking.target.backend
        field = backend.unsupported(call, lacking.sees)
        raise InvalidRequest(f"'{field}' is not supported by {backend.label}, which serves this model.", field)
    return standing(_with_room(call, able), entry, _head(call, entry), now, random)


def plan_path(path: str, body: bytes, entry: Entry, pin: str | None, now: float, random: Random) -> list[Candidate]:
    """Return the offers whose engines take a path as it is. Raises InvalidRequest if none does, Unavailable."""
    offers = pinned(entry, pin)
    able = [offer for offer in offers if path in offer.target.backend.passes]
    if not able:
        label = offers[0].target.backend.label
        raise InvalidRequest(f"{path} is not supported by {label}, which serves this model.", "model")
    return standing(able, entry, body[: entry.settings.prefix_bytes], now, random)


def pinned(entry: Entry, pin: str | None) -> list[Candidate]:
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


def standing(offers: list[Candidate], entry: Entry, head: bytes, now: float, random: Random) -> list[Candidate]:
    """Return the offers in the order of the model's policy. Raises Unavailable if all are left alone."""
    if len(offers) == 1 and offers[0].target.breaker.allows(now):
        return offers
    ready = [offer for offer in offers if offer.target.ready(now)]
    if not ready:  # who is down may be back since it was looked at
        ready = [offer for offer in offers if offer.target.breaker.allows(now)]
    if not ready:
        soonest = min(offer.target.breaker.open_until for offer in offers) - now
        headers = {"retry-after": str(max(1, math.ceil(soonest)))}
        raise Unavailable(f"The engines of '{entry.name}' have failed too often just now.", headers=headers)
    if len(ready) > 1:
        ready = POLICIES[entry.settings.policy](ready, head, now, random)
    return ready


def _with_room(call: Call, offers: list[Candidate]) -> list[Candidate]:
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


def _head(call: Call, entry: Entry) -> bytes:
    """Return the head of the prompt, as it was written."""
    prompt = call.body.get("messages") or call.body.get("prompt")
    return b"" if prompt is None else bytes(memoryview(prompt)[: entry.settings.prefix_bytes])
