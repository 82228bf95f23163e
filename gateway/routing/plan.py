"""Which deployments may answer a call, and in which order they are tried.

Capability comes first and is decided for the model: what only some of its engines can do goes to those alone,
whether or not they are up, so that an answer never depends on which replica was drawn. Then deployments that are
ready go before those that are down; one whose circuit is open, or whose Retry-After is not over, is not asked at all.
"""

from collections.abc import Callable, Container, Sequence
from random import Random

from backends import BACKENDS
from backends.base import Call
from gateway.http.errors import RETRY_AFTER, InvalidRequest, PointsmanError, Unavailable
from gateway.routing import least_busy, prefix, round_robin, weighted
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, ModelRoute
from gateway.upstream.pause import header

Policy = Callable[[list[Candidate], bytes, float, Random], list[Candidate]]

POLICIES: dict[str, Policy] = {
    "weighted": weighted.order,
    "round_robin": round_robin.order,
    "least_busy": least_busy.order,
    "prefix": prefix.order,
}


def plan(call: Call, route: ModelRoute, pin: str | None, now: float, random: Random) -> list[Candidate]:
    """Return the candidates to try, in order. Raises InvalidRequest if no engine can do what is asked, Unavailable."""
    return order_candidates(able(call, route, pin), route, head(call, route), now, random)


def able(call: Call, route: ModelRoute, pin: str | None) -> list[Candidate]:
    """Return the candidates that can do what is asked, up or not. Raises InvalidRequest if none can, Unavailable."""
    candidates = pinned(route, pin)
    capable = [
        candidate
        for candidate in candidates
        if candidate.endpoint.backend.unsupported(call, candidate.supports_vision) is None
    ]
    if not capable or (not route.by_capability and len(capable) < len(candidates)):
        lacking = next(candidate for candidate in candidates if candidate not in capable)
        backend = lacking.endpoint.backend
        field = backend.unsupported(call, lacking.supports_vision)
        raise InvalidRequest(f"'{field}' is not supported by {backend.label}, which serves this model.", field)
    return _with_room(call, capable)


def plan_path(
    path: str,
    body: bytes,
    route: ModelRoute,
    pin: str | None,
    now: float,
    random: Random,
    only: Endpoint | None = None,
    first: Container[Endpoint] = (),
) -> list[Candidate]:
    """Return the candidates whose engines take a path as it is; of those the one at `only`, if it is given, or none.

    Raises InvalidRequest if no engine takes the path, Unavailable.
    """
    candidates = able_path(path, route, pin, only)
    beginning = body[: route.settings.prefix_bytes]
    return order_candidates(candidates, route, beginning, now, random, first) if candidates else []


def able_path(path: str, route: ModelRoute, pin: str | None, only: Endpoint | None = None) -> list[Candidate]:
    """Return the candidates of `plan_path`, up or not. Raises InvalidRequest if no engine has it, Unavailable."""
    candidates = pinned(route, pin)
    capable = [candidate for candidate in candidates if path in candidate.endpoint.backend.passthrough_paths]
    if not capable:
        label = candidates[0].endpoint.backend.label
        raise InvalidRequest(f"{path} is not supported by {label}, which serves this model.", "model")
    return capable if only is None else [candidate for candidate in capable if candidate.endpoint is only]


def pinned(route: ModelRoute, pin: str | None) -> list[Candidate]:
    """Return the candidates of the engine that the client pinned, or all. Raises InvalidRequest, Unavailable."""
    if not route.candidates:
        raise Unavailable(f"No engine serves '{route.name}' yet.", headers={"retry-after": RETRY_AFTER})
    if pin is None:
        return route.candidates
    candidates = [candidate for candidate in route.candidates if candidate.endpoint.engine == pin]
    if candidates:
        return candidates
    there = sorted({candidate.endpoint.engine for candidate in route.candidates})
    what = "is not behind this model" if pin in BACKENDS else "is no engine"
    raise InvalidRequest(f"'{pin}' {what}; x-pointsman-engine may be: {', '.join(there)}.", "x-pointsman-engine")


def order_candidates(
    candidates: list[Candidate],
    route: ModelRoute,
    head: bytes,
    now: float,
    random: Random,
    first: Container[Endpoint] = (),
) -> list[Candidate]:
    """Return the candidates in the order of the model's policy: of those at `first`, and then of the others.

    Raises Unavailable if all circuits are open; where an engine has asked to be left in peace, what it said.
    """
    if len(candidates) == 1 and candidates[0].may_be_asked(now):
        return candidates
    able = [candidate for candidate in candidates if candidate.may_be_asked(now)]
    ready = [candidate for candidate in able if candidate.endpoint.up] or able  # who is down may be back since
    if not ready:
        raise nobody_left(candidates, route.name, now)
    order = POLICIES[route.settings.policy]
    if not first:
        return order(ready, head, now, random) if len(ready) > 1 else ready
    parts = [one for one in ready if one.endpoint in first], [one for one in ready if one.endpoint not in first]
    return [one for part in parts for one in (order(part, head, now, random) if len(part) > 1 else part)]


def nobody_left(candidates: Sequence[Candidate], name: str, now: float) -> PointsmanError:
    """Return the error of a model none of whose deployments may be asked, with the time until the first one may."""
    pauses = [candidate.endpoint.pause for candidate in candidates if candidate.breaker.allows(now)]
    if pauses:
        return min(pauses, key=lambda pause: pause.until).error(now)
    soonest = min(candidate.breaker.open_until for candidate in candidates) - now
    headers = {"retry-after": header(soonest)}
    return Unavailable(f"The engines of '{name}' have failed too often just now.", headers=headers)


def _with_room(call: Call, candidates: list[Candidate]) -> list[Candidate]:
    """Return the candidates whose context is not smaller than what is to be generated. Raises InvalidRequest."""
    limit = call.view.limit
    known = [candidate.max_model_len for candidate in candidates if candidate.max_model_len]
    if limit is None or not known or limit <= min(known):
        return candidates
    room = [candidate for candidate in candidates if not candidate.max_model_len or limit <= candidate.max_model_len]
    if not room:
        name = "max_completion_tokens" if getattr(call.view, "max_completion_tokens", None) else "max_tokens"
        raise InvalidRequest(f"'{name}' must be at most {max(known)}, the model's context length.", name)
    return room


def head(call: Call, route: ModelRoute) -> bytes:
    """Return the head of the prompt, as it was written."""
    prompt = call.body.get("messages") or call.body.get("prompt")
    return b"" if prompt is None else bytes(memoryview(prompt)[: route.settings.prefix_bytes])
