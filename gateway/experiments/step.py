"""The step of the pipeline that gives a request its place in the experiment of its model."""

from collections.abc import Iterable
from typing import Protocol

from gateway.experiments.assignment import Assignment
from gateway.experiments.live import LiveExperiment
from gateway.http.context import RequestContext
from gateway.upstream.models import Candidate, ModelRoute


class Assignable(Protocol):
    """What a surface's work tells of itself (`proxy.pipeline.Work`)."""

    def conversation(self) -> Iterable[bytes] | None:
        """Return what tells its conversation from others, in parts; None if it asks for no answer of a model's."""
        ...

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the deployments that can do what is asked. Raises PointsmanError if there are none."""
        ...


def assign(
    work: Assignable,
    live: LiveExperiment,
    route: ModelRoute,
    pin: str | None,
    may_shadow: bool,
    context: RequestContext,
) -> Assignment:
    """Return a request's place. Raises PointsmanError if no deployment can do what it asks for.

    `may_shadow`: its surface can be shadowed.
    """
    live.follow(route)
    if pin is not None:
        return live.outside("pin", free=True)
    if live.held:
        return live.outside("held")
    conversation = work.conversation()
    if conversation is None:
        return live.outside("no answer")
    able = work.able(route, pin)
    if len(able) < len(route.candidates) and not _holds_both(able, live):
        return live.outside("capability", free=True)
    unit = live.unit(conversation, context)
    return live.outside("session") if unit is None else live.draw(unit, conversation, context, may_shadow)


def note_first(candidate: Candidate, context: RequestContext) -> None:
    """Note who is asked first: where none of the arm's deployments can be, that is the arm's failure."""
    assignment = context.assignment
    if assignment is not None and assignment.arm is not None and candidate.endpoint not in assignment.endpoints:
        assignment.down = True


def _holds_both(able: list[Candidate], live: LiveExperiment) -> bool:
    """Whether all deployments of both arms are among those."""
    return (live.control | live.treatment) <= {candidate.endpoint for candidate in able}
