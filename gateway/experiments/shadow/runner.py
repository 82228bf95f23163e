"""Who is asked beside a client's request, when and in which order; and how much at most."""

import logging
from typing import Any

from backends.base import Call
from gateway.experiments.assignment import Arm, Assignment
from gateway.experiments.shadow.ask import ShadowAnswer, ask
from gateway.experiments.shadow.call import beside, left_out
from gateway.experiments.shadow.heard import HeardAnswer
from gateway.experiments.shadow.weigh import Answers3, weigh
from gateway.http.context import RequestContext
from gateway.http.errors import PointsmanError
from gateway.services import Services
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, ModelRoute

log = logging.getLogger("pointsman")


def listen(call: Call | None, answer: Any, context: RequestContext, services: Services) -> HeardAnswer | None:
    """Return an answer that is kept aside, if its request may be asked beside; None: it is sent as it is."""
    assignment = context.assignment
    if assignment is None or call is None or assignment.arm != "control":
        return None
    services.shadows.earn(assignment.live)
    if not assignment.shadow:
        return None
    why = left_out(call, assignment.live.settings.shadow_tools)
    if why:
        _drop(assignment, why)
        return None
    return HeardAnswer(answer)


def begin(heard: HeardAnswer, call: Call, route: ModelRoute, context: RequestContext, services: Services) -> None:
    """Ask beside a request whose client has its answer, in a task of its own; or count why not."""
    assignment = context.assignment
    assert assignment is not None, "only what is assigned is listened to"
    why = _hindrance(heard, assignment, context, services)
    if why:
        _drop(assignment, why)
        return
    shadow = _Shadow(assignment, call, route, context, services)
    services.shadows.start(assignment.live, shadow.run(heard))


def _hindrance(heard: HeardAnswer, assignment: Assignment, context: RequestContext, services: Services) -> str:
    """Return why a request is not asked beside, though it was drawn; nothing if it is."""
    if context.cache in ("hit", "coalesced"):
        return "cache"
    if heard.too_long:
        return "length"
    if context.endpoint not in assignment.endpoints:
        return "crossed"
    if services.draining or services.admission.waiting:
        return "busy"
    return services.shadows.take(assignment.live, 2 if assignment.shadow == "triple" else 1)


class _Shadow:
    """One request asked beside."""

    def __init__(
        self, assignment: Assignment, call: Call, route: ModelRoute, context: RequestContext, services: Services
    ) -> None:
        self._assignment = assignment
        self._call = call
        self._route = route
        self._context = context
        self._services = services

    async def run(self, heard: HeardAnswer) -> None:
        """Ask and compare. A fault of the comparison's is no fault of anybody's request."""
        try:
            await self._ask_and_weigh(heard)
        except Exception:
            log.exception("experiments: %s: a shadow failed in the gateway", self._assignment.live.definition.name)
            _drop(self._assignment, "fault")

    async def _ask_and_weigh(self, heard: HeardAnswer) -> None:
        """Ask in random order, one after the other, so that neither arm is always the later; then compare."""
        arms: list[Arm] = ["treatment", "control"] if self._assignment.shadow == "triple" else ["treatment"]
        self._services.random.shuffle(arms)
        found = {arm: await self._ask(arm, len(arms) > 1) for arm in arms}
        treatment = found["treatment"]
        if treatment is not None:
            answers = Answers3(heard.answer(), treatment, found.get("control"))
            weigh(answers, self._call, self._assignment, self._assignment.live.settings.examples == "clear")

    async def _ask(self, arm: Arm, with_logprobs: bool) -> ShadowAnswer | None:
        """Return the arm's answer; None, and counted, if there is none."""
        tally, epoch, services = self._assignment.live.tally, self._assignment.epoch, self._services
        call = beside(self._call, f"{self._context.id}-{arm}", with_logprobs)
        candidate = services.admission.try_acquire(self._ready(arm))
        if candidate is None:
            _drop(self._assignment, f"no room in the {arm}")
            return None
        tally.count(epoch, "shadow", "asked", arm)
        try:
            return await ask(candidate, call, self._context, services)
        except PointsmanError:
            tally.count(epoch, "shadow", "failed", arm)
            return None

    def _ready(self, arm: Arm) -> list[Candidate]:
        """Return the arm's deployments that are well, in random order: none whose circuit is not closed."""
        live, now = self._assignment.live, self._services.clock()
        endpoints: frozenset[Endpoint] = live.treatment if arm == "treatment" else live.control
        inside = [one for one in self._route.candidates if one.endpoint in endpoints]
        ready = [one for one in inside if one.endpoint.up and one.may_be_asked(now) and not one.breaker.open_until]
        self._services.random.shuffle(ready)
        return ready


def _drop(assignment: Assignment, why: str) -> None:
    assignment.live.tally.count(assignment.epoch, "shadow", "dropped", why)
