"""An experiment that runs in this worker: its arms, its share, and what it draws for a request.

The arm is drawn first, by the unit's bucket, so that its probability is known and nothing that happens later changes
it: no weight, breaker, load or slow start. Routing then picks inside the arm.
"""

from collections.abc import Iterable

from gateway.config import ExperimentConfig, ModelConfig
from gateway.experiments.assignment import Arm, Assignment, Exclusion, Shadow
from gateway.experiments.definition import define, first_stage, treatment_buckets
from gateway.experiments.unit import Unit, UnitHash
from gateway.http.context import RequestContext
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import ModelRoute

SESSION = b"x-pointsman-session"
NONE: frozenset[Endpoint] = frozenset()


class LiveExperiment:
    """One experiment of one model. `held` says why nobody is assigned now; empty: everybody is.

    `buckets` are the treatment's, of 1,024; `epoch` names what does not change while samples are pooled.
    """

    def __init__(self, experiment: ExperimentConfig, model: ModelConfig) -> None:
        self.settings = experiment
        self.model = model
        self.definition = define(experiment, model)
        self.stage = first_stage(experiment)
        self.buckets = treatment_buckets(experiment, model, self.stage)
        self.held = ""
        self.epoch = ""
        self.control = self.treatment = NONE
        self._hash = UnitHash(experiment.name)
        self._route: ModelRoute | None = None

    def adopt(self, experiment: ExperimentConfig, model: ModelConfig) -> None:
        """Take over changed settings; the experiment is the same."""
        self.settings, self.model = experiment, model
        self.move(self.stage)

    def move(self, stage: int) -> None:
        """Go to a stage of the ramp; one that is there no more is its last."""
        self.stage = min(stage, len(self.settings.ramp) - 1) if self.settings.ramp else stage
        self.buckets = treatment_buckets(self.settings, self.model, self.stage)

    def follow(self, route: ModelRoute) -> None:
        """Take over which deployments the model has now."""
        if route is self._route:
            return
        self._route = route
        endpoints = [candidate.endpoint for candidate in route.candidates]
        definition = self.definition
        self.control = frozenset(one for one in endpoints if one.public_name in definition.control)
        self.treatment = frozenset(one for one in endpoints if one.public_name in definition.treatment)

    def unit(self, parts: Iterable[bytes], context: RequestContext) -> Unit | None:
        """Return the unit of a request, whose conversation `parts` tell; None if it names no session."""
        kind, tenant = self.settings.unit, context.principal.tenant
        if kind == "conversation":
            return self._hash.of(tenant, parts)
        if kind == "session":
            session = context.headers.get(SESSION)
            return self._hash.of(tenant, (session,)) if session else None
        return self._hash.of(tenant, ((context.principal.id if kind == "key" else context.id).encode(),))

    def draw(self, unit: Unit, parts: Iterable[bytes], context: RequestContext, may_shadow: bool) -> Assignment:
        """Return the place of a request that nothing keeps out."""
        arm: Arm = "treatment" if unit.bucket < self.buckets else "control"
        endpoints = self.treatment if arm == "treatment" else self.control
        shadow: Shadow = ""
        if may_shadow and arm == "control" and context.principal.may_shadow and self.settings.shadow:
            shadow = self._shadow(unit, parts, context)
        return Assignment(self, endpoints, self.epoch, arm, None, unit, len(context.body), shadow)

    def _shadow(self, unit: Unit, parts: Iterable[bytes], context: RequestContext) -> Shadow:
        """Return what is asked for beside; drawn by the conversation, so that it is in the shadow as a whole."""
        if self.settings.unit != "conversation":
            unit = self._hash.of(context.principal.tenant, parts)
        if unit.draw >= self.settings.shadow:
            return ""
        return "triple" if unit.is_third else "pair"

    def outside(self, why: Exclusion, free: bool = False) -> Assignment:
        """Return the place of a request that is in no arm: the control answers it, unless it is `free` to go anywhere.

        Where a pin or a capability says who can answer, it is free; else nobody is sent to the treatment unasked.
        """
        return Assignment(self, NONE if free else self.control, self.epoch, None, why)

    def names(self, endpoint: Endpoint) -> Arm | None:
        """Return which arm a deployment is in."""
        return "control" if endpoint in self.control else "treatment" if endpoint in self.treatment else None
