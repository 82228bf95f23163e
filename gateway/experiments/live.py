"""An experiment that runs in this worker: its arms, its share, and what it draws for a request.

The arm is drawn first, by the unit's bucket, so that its probability is known and nothing that happens later changes
it: no weight, breaker, load or slow start. Routing then picks inside the arm.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.config import ExperimentConfig, ModelConfig
from gateway.experiments.assignment import Arm, Assignment, Exclusion
from gateway.experiments.definition import define, digest, first_stage, stage_name, treatment_buckets
from gateway.experiments.notes import EpochNote
from gateway.experiments.tally import ExperimentTally
from gateway.experiments.unit import DrawnUnit, UnitHash
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate, ModelRoute

if TYPE_CHECKING:
    from gateway.http.context import RequestContext

SESSION = b"x-pointsman-session"
NONE: frozenset[Endpoint] = frozenset()
NOT_HEARD = "?"
MOST_EPOCHS = 64


class LiveExperiment:
    """One experiment of one model. `held` says why nobody is assigned now; empty: everybody is.

    `buckets` are the treatment's, of 1,024. `epoch` names what does not change while samples are pooled: the share and
    the engines. `slo_ttft` is the time after which a first token is late, in seconds, as far as it is known.
    `versions` are what the engines say of themselves beside the list of their models.
    """

    def __init__(self, experiment: ExperimentConfig, model: ModelConfig) -> None:
        self.settings = experiment
        self.model = model
        self.definition = define(experiment, model)
        self.tally = ExperimentTally()
        self.held = ""
        self.slo_ttft = experiment.slo_ttft
        self.control = self.treatment = NONE
        self.versions: dict[str, str] = {}
        self.fingerprints: dict[str, str] = {}
        self.epochs: dict[str, EpochNote] = {}  # the last ones, whose requests may be in flight still
        self._hash = UnitHash(experiment.name)
        self._route: ModelRoute | None = None
        self.stage = first_stage(experiment)
        self.move(self.stage)

    def adopt(self, experiment: ExperimentConfig, model: ModelConfig) -> None:
        """Take over changed settings; the experiment is the same."""
        if experiment.slo_ttft != self.settings.slo_ttft:
            self.slo_ttft = experiment.slo_ttft
        self.settings, self.model = experiment, model
        self.move(self.stage)

    def move(self, stage: int) -> None:
        """Go to a stage of the ramp; one that is there no more is its last."""
        self.stage = min(stage, len(self.settings.ramp) - 1) if self.settings.ramp else 0
        self.buckets = treatment_buckets(self.settings, self.model, self.stage)
        self._mark_epoch()

    def follow(self, route: ModelRoute) -> None:
        """Take over which deployments the model has now, and what they say of themselves."""
        if route is self._route:
            return
        self._route = route
        endpoints = [candidate.endpoint for candidate in route.candidates]
        definition = self.definition
        self.control = frozenset(one for one in endpoints if one.public_name in definition.control)
        self.treatment = frozenset(one for one in endpoints if one.public_name in definition.treatment)
        self.hear_versions(self.versions)

    def hear_versions(self, versions: dict[str, str]) -> None:
        """Take over the engines' versions, by the names of deployments."""
        self.versions = versions
        candidates = self._route.candidates if self._route is not None else []
        inside = [one for one in candidates if self.names(one.endpoint) is not None]
        names = sorted({one.endpoint.public_name for one in inside})
        self.fingerprints = {name: self._fingerprint(name, inside) for name in names}
        self._mark_epoch()

    def _fingerprint(self, name: str, candidates: list[Candidate]) -> str:
        """Return what a deployment says of itself: each of its addresses, where they differ."""
        mine = [one for one in candidates if one.endpoint.public_name == name]
        said = sorted({one.system_fingerprint if one.endpoint.served else NOT_HEARD for one in mine})
        return " ".join([*said, *([self.versions[name]] if name in self.versions else [])])

    def _mark_epoch(self) -> None:
        said = [f"{name}={fingerprint}" for name, fingerprint in self.fingerprints.items()]
        self.epoch = digest(self.definition.run, str(self.buckets), *said)
        self.epochs.pop(self.epoch, None)  # the last one is never the oldest
        self.epochs[self.epoch] = self.epoch_note
        while len(self.epochs) > MOST_EPOCHS:
            self.epochs.pop(next(iter(self.epochs)))

    def epochs_of(self, fields: Iterable[str]) -> dict[str, EpochNote]:
        """Return the epochs that fields are of, and the present one, if all of its engines have been heard."""
        ids = {field.partition("/")[0] for field in fields}
        if self.fingerprints and not any(NOT_HEARD in one for one in self.fingerprints.values()):
            ids.add(self.epoch)
        return {epoch: self.epochs[epoch] for epoch in ids if epoch in self.epochs}

    @property
    def epoch_note(self) -> EpochNote:
        """What is noted of the epoch that it is in."""
        slots = {}
        for arm, endpoints in (("control", self.control), ("treatment", self.treatment)):
            known = [one.deployment.slots for one in endpoints]
            if known and all(known):
                slots[arm] = sum(known)
        name = stage_name(self.settings, self.stage)
        return EpochNote(
            buckets=self.buckets, stage=name, fingerprints=self.fingerprints, slots=slots, began=0.0, slo=self.slo_ttft
        )

    def unit(self, parts: Iterable[bytes], context: "RequestContext") -> DrawnUnit | None:
        """Return the unit of a request, whose conversation `parts` tell; None if it names no session."""
        kind, tenant = self.settings.unit, context.principal.tenant
        if kind == "conversation":
            return self._hash.of(tenant, parts)
        if kind == "session":
            session = context.headers.get(SESSION)
            return self._hash.of(tenant, (session,)) if session else None
        return self._hash.of(tenant, ((context.principal.id if kind == "key" else context.id).encode(),))

    def draw(self, unit: DrawnUnit, parts: Iterable[bytes], context: "RequestContext", may_shadow: bool) -> Assignment:
        """Return the place of a request that nothing keeps out."""
        arm: Arm = "treatment" if unit.bucket < self.buckets else "control"
        endpoints = self.treatment if arm == "treatment" else self.control
        place = Assignment(self, endpoints, self.epoch, arm, None, unit, len(context.body))
        if may_shadow and arm == "control" and context.principal.may_shadow and self.settings.shadow:
            self._draw_shadow(place, parts, context)
        return place

    def _draw_shadow(self, place: Assignment, parts: Iterable[bytes], context: "RequestContext") -> None:
        """Note what is asked for beside; drawn by the conversation, so that it is in the shadow as a whole."""
        unit = place.unit
        if self.settings.unit != "conversation":
            unit = self._hash.of(context.principal.tenant, parts)
        if unit.draw < self.settings.shadow:
            place.conversation, place.shadow = unit, "triple" if unit.is_third else "pair"

    def outside(self, why: Exclusion, free: bool = False) -> Assignment:
        """Return the place of a request that is in no arm: the control answers it, unless it is `free` to go anywhere.

        Where a pin or a capability says who can answer, it is free; else nobody is sent to the treatment unasked.
        """
        return Assignment(self, NONE if free else self.control, self.epoch, None, why)

    def names(self, endpoint: Endpoint) -> Arm | None:
        """Return which arm a deployment is in."""
        return "control" if endpoint in self.control else "treatment" if endpoint in self.treatment else None
