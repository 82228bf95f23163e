"""What a request that has ended says of the arm that it was drawn for, whoever answered it in the end.

Nothing that happens after the draw takes a request out: one that another arm rescued, that failed or was left counts
where it was drawn, with its whole time or as an endless one.
"""

import math
from typing import Literal

from gateway.experiments.assignment import Arm, Assignment
from gateway.experiments.statistics.means import UNANSWERED
from gateway.experiments.statistics.quantiles import SHORTEST
from gateway.experiments.statistics.quantiles import bucket as time_bucket
from gateway.experiments.tally import Tally
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import Blame, ClientDisconnected, PointsmanError, blame, outcome
from gateway.proxy.verdict import agreed

Ending = Literal["done", "left", "failed", "refused"]

REFUSED = ("client_error", "rate_limited")


def observe(context: RequestContext, assignment: Assignment, ended: float) -> None:
    """Count a request that ended at a monotonic time."""
    live = assignment.live
    tally, epoch, arm = live.tally, assignment.epoch, assignment.arm
    excluded = "cache" if context.cache in ("hit", "coalesced") else assignment.excluded
    if excluded is not None or arm is None:
        tally.count(epoch, "excluded", excluded or "held")
        return
    if not context.attempts and not assignment.down:
        tally.count(epoch, "excluded", "not begun")
        return
    tally.count(epoch, "n", arm)
    Observation(context, assignment, arm, tally, ended).count()


class Observation:
    """One request of one arm, on its way into the tally."""

    def __init__(self, context: RequestContext, assignment: Assignment, arm: Arm, tally: Tally, ended: float) -> None:
        self._context = context
        self._assignment = assignment
        self._arm = arm
        self._tally = tally
        self._ended = ended
        self._bucket = str(assignment.unit.bucket)
        self._z = math.log(max(assignment.size, 1))

    def count(self) -> None:
        """Count all there is to say."""
        self._once("unit")
        self._served()
        ending = self._ending()
        if _failed_in_arm(self._context, self._assignment):
            self._event("error")
        if ending in ("failed", "refused"):
            self._event("seen_error" if ending == "failed" else "refused")
        if ending != "done":
            self._once("first/unfinished")
        self._times(ending)

    def _ending(self) -> Ending:
        failure = self._context.failure
        if failure is None:
            return "done"
        if isinstance(failure, ClientDisconnected):
            return "left"
        return "refused" if outcome(failure) in REFUSED else "failed"

    def _served(self) -> None:
        endpoint = self._context.endpoint
        if endpoint is None:
            return
        self._tally.count(self._assignment.epoch, "served", self._arm, endpoint.public_name)
        if endpoint not in self._assignment.endpoints:
            self._tally.count(self._assignment.epoch, "crossed", self._arm)

    def _times(self, ending: Ending) -> None:
        context, timing = self._context, self._context.timing
        if ending == "refused":
            return
        first, usage = timing.first_event_at, context.usage
        written = usage.completion_tokens if usage is not None else 0
        if context.streamed:
            took = (first or self._ended) - timing.began
            self._time("ttft", "done" if first else ending, took)
            if not first and ending == "left":
                self._event("left")
            if first or ending == "failed":
                self._late(took if first else math.inf)
            if first and ending == "done" and written > 1:
                self._time("itl", "done", (timing.received_at - first) / (written - 1))
        if written > 0 or ending != "done":
            self._time("e2e", ending, (timing.received_at if ending == "done" else self._ended) - timing.began)

    def _late(self, took: float) -> None:
        """Count a first token that came too late, or never; nobody knows of one that a client did not wait for."""
        limit = self._assignment.live.slo_ttft
        if limit is None:
            return
        late = took > limit
        self._sample("late", float(late))
        if late:
            self._event("late")

    def _time(self, metric: str, ending: Ending, took: float) -> None:
        """Count a time; one that nobody knows is a long one in the means."""
        epoch, arm = self._assignment.epoch, self._arm
        took = max(took, SHORTEST)
        self._sample(metric, math.log(took if ending == "done" else max(took, UNANSWERED)))
        if ending == "failed":
            self._tally.count(epoch, "hist", metric, arm, "failed")
        else:
            self._tally.count(epoch, "hist", metric, arm, ending, str(time_bucket(took)))

    def _sample(self, metric: str, value: float) -> None:
        self._tally.mean((self._assignment.epoch, "mean", metric, self._arm, self._bucket), value, self._z)

    def _event(self, name: str) -> None:
        self._tally.count(self._assignment.epoch, "event", name, self._arm)
        self._once(f"first/{name}")

    def _once(self, kind: str) -> None:
        """Count something once for its unit; each request is a unit where the file says so."""
        assignment = self._assignment
        field = (assignment.epoch, kind, self._arm)
        if assignment.live.settings.unit == "request":
            self._tally.count(*field)
        else:
            self._tally.once(kind, assignment.unit.place, *field)


def _failed_in_arm(context: RequestContext, assignment: Assignment) -> bool:
    """Whether the arm failed the request at its first attempt there, by the engine's fault, rescued or not."""
    first = _first_inside(context, assignment)
    if first is None or first.failure is None:
        return first is None and assignment.down
    whose = blame(first.failure)
    if whose is Blame.CONNECTION:
        return True
    tries = [(attempt.candidate.endpoint, attempt.failure) for attempt in context.attempts]
    return (
        whose is Blame.ANSWER and isinstance(first.failure, PointsmanError) and type(first.failure) is not agreed(tries)
    )


def _first_inside(context: RequestContext, assignment: Assignment) -> Attempt | None:
    inside = (one for one in context.attempts if one.candidate.endpoint in assignment.endpoints)
    return next(inside, None)
