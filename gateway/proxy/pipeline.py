"""The steps of a request, for every surface alike, from its parsed body to the last byte of its answer.

What differs between the surfaces is a `Work`: how its deployments are chosen, the leaf that asks an engine, and the one
that answers the client. Which of the steps apply to which surface, `surfaces` says.
"""

import asyncio
from collections.abc import Container, Iterable
from functools import partial
from typing import Protocol, TypeVar, cast

from msgspec import Raw, Struct

from backends.base import Call
from backends.estimate import Estimate
from gateway.access.models import find_model
from gateway.access.principal import Tier
from gateway.cache.middleware import answer_from_cache, look_up, shared
from gateway.experiments.live import LiveExperiment
from gateway.experiments.shadow.runner import begin, listen
from gateway.experiments.step import assign, note_first
from gateway.http.client import Client
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import ClientDisconnected
from gateway.proxy.dispatch import dispatch
from gateway.proxy.sources import OpenAnswer
from gateway.proxy.surfaces import Surface
from gateway.services import Services
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, ModelRoute

PIN = b"x-pointsman-engine"
FLEX = b'"flex"'
NOT_BEGUN = Estimate(prompt_tokens=-1, completion_tokens=0)  # an answer of which the engine has read the prompt

A = TypeVar("A", bound=OpenAnswer)


class Prepared(Struct, frozen=True):
    """What is known of a request before an engine is chosen: its model, and the engine that the client pinned.

    `first` are asked before all others: the arm's of an experiment.
    """

    route: ModelRoute
    pin: str | None
    first: Container[Endpoint] = ()


class Work(Protocol[A]):
    """One request of a surface. `service_tier` is the field of its body."""

    surface: Surface
    model: str  # as the client named it
    service_tier: Raw | None

    def prepare(self, prepared: Prepared) -> Call | None:
        """Take in what is known now; return the call, if the surface has such: the cache's key is made of it."""
        ...

    def conversation(self) -> Iterable[bytes] | None:
        """Return what tells its conversation from others, in parts; None if it asks for no answer of a model's."""
        ...

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the deployments that can do what is asked, up or not. Raises PointsmanError if there are none."""
        ...

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the deployments to try, in order. Raises PointsmanError."""
        ...

    async def open(self, attempt: Attempt, context: RequestContext) -> A:
        """Ask the engine of an attempt, on a context's behalf; return its answer, once it has begun well.

        Raises PointsmanError, upon which another deployment may be asked.
        """
        ...

    async def send(self, answer: A) -> None:
        """Write the answer to the client. Raises PointsmanError."""
        ...


async def serve(work: Work[A], context: RequestContext, client: Client, services: Services) -> None:
    """Lead a request through the steps. Raises PointsmanError; whoever opened the context tells the client."""
    prepared = await prepare(work, context, services)
    prepared_call = work.prepare(prepared)
    call = prepared_call if work.surface.cache else None
    live = services.experiments.of(prepared.route.name)
    if live is not None:
        prepared = _assigned(work, prepared, live, context)
    lookup = look_up(call, prepared.route, prepared.pin, context, services)
    if await answer_from_cache(lookup, call, context, client, services):
        return
    candidates = await work.plan(prepared)
    if live is not None:
        note_first(candidates[0], context)
    context.timing.mark_stage("route", services.clock())
    ask_engines = partial(_ask_engines, work, candidates, _hedge_after(work, prepared, context), services)
    answer = await shared(lookup, call, context, ask_engines, services)
    may_shadow = live is not None and work.surface.shadow
    heard = listen(prepared_call, answer, context, services) if may_shadow else None
    try:
        await work.send(answer if heard is None else cast(A, heard))
    finally:
        if work.surface.usage:
            context.usage = answer.worked()  # however far it came
        answer.close()
    if heard is not None and prepared_call is not None:
        begin(heard, prepared_call, prepared.route, context, services)


async def prepare(work: Work[A], context: RequestContext, services: Services) -> Prepared:
    """Find the model, and see that the key is good for it. Raises ModelNotFound, Forbidden, Unavailable."""
    route = await find_model(work.model, context, services)
    context.tier = tier(work.service_tier, context.principal.tier)
    return Prepared(route, pin(context))


def _assigned(work: Work[A], prepared: Prepared, live: LiveExperiment, context: RequestContext) -> Prepared:
    """Give the request its place in the experiment; return what is known with whom to ask first."""
    route, pin = prepared.route, prepared.pin
    context.assignment = assignment = assign(work, live, route, pin, work.surface.shadow, context)
    return Prepared(route, pin, assignment.endpoints)


def pin(context: RequestContext) -> str | None:
    """Return the engine that the client pinned."""
    value = context.headers.get(PIN)
    return None if value is None else value.decode("latin-1").strip()


def tier(service_tier: Raw | None, best: Tier) -> Tier:
    """Return the tier that a request waits in: what it asks for, and no better than its key's best."""
    return "flex" if service_tier is not None and bytes(service_tier) == FLEX else best


def _hedge_after(work: Work[A], prepared: Prepared, context: RequestContext) -> float:
    hedges = context.streamed and work.surface.hedging
    return prepared.route.settings.hedge_after if hedges else 0.0


async def _ask_engines(
    work: Work[A], candidates: list[Candidate], hedge_after: float, services: Services, context: RequestContext
) -> A:
    """Return an engine's answer that has begun well, on the account of the request or of what several share."""
    try:
        return await dispatch(candidates, lambda attempt: work.open(attempt, context), context, services, hedge_after)
    except asyncio.CancelledError:
        if _left_early(context):
            context.usage = NOT_BEGUN
        raise


def _left_early(context: RequestContext) -> bool:
    """Whether the client left while an engine was at work on its prompt, of which nothing has come yet."""
    if context.estimate_prompt is None or not context.timing.sent_at or not context.attempts:
        return False
    return isinstance(context.attempts[-1].failure, ClientDisconnected | asyncio.CancelledError)
