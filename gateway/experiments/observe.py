"""What a request that has ended says of the arm that it was drawn for, whoever answered it in the end.

Nothing that happens after the draw takes a request out: one that another arm rescued, that failed or was left counts
where it was drawn, with its whole time or as an endless one.
"""

import math
from typing import Literal

from gateway.experiments.assignment import Arm, Assignment
from gateway.experiments.statistics.means import UNANSWERED
from gateway.experiments.statistics.quantiles import GROWTH, SHORTEST
from gateway.experiments.statistics.scaled import scaled
from gateway.experiments.tally import ExperimentTally
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import Blame, ClientDisconnected, PointsmanError, blame, outcome
from gateway.proxy.verdict import agreed

Ending = Literal["done", "left", "failed", "refused"]

LOG_GROWTH, LOG_UNANSWERED = math.log(GROWTH), math.log(UNANSWERED)
REFUSED = ("client_error", "rate_limited")


def observe(context: RequestContext, assignment: Assignment, ended: float) -> None:
    """Count a request that ended at a monotonic time."""
    tally, epoch, arm = assignment.live.tally, assignment.epoch, assignment.arm
    if context.cache in ("hit", "coalesced"):
        tally.count(epoch, "excluded", "cache")
    elif arm is None:
        tally.count(epoch, "excluded", assignment.excluded or "held")
    elif not context.attempts and not assignment.down:
        tally.count(epoch, "excluded", "not begun")
    else:
        Observation(context, assignment, arm, tally, ended).count()


class Observation:
    """One request of one arm, on its way into the tally."""

    __slots__ = ("_arm", "_assignment", "_bucket", "_context", "_ended", "_epoch", "_tally", "_z")

    def __init__(
        self, context: RequestContext, assignment: Assignment, arm: Arm, tally: ExperimentTally, ended: float
    ) -> None:
        self._context = context
        self._assignment = assignment
        self._arm = arm
        self._tally = tally
        self._epoch = assignment.epoch
        self._ended = ended
        self._bucket = assignment.unit.bucket
        self._z = scaled(math.log(max(assignment.size, 1)))

    def count(self) -> None:
        """Count all there is to say."""
        context, epoch, arm = self._context, self._epoch, self._arm
        self._tally.count(epoch, "n", arm)
        self._once("unit")
        endpoint = context.endpoint
        if endpoint is not None:
            self._tally.count(epoch, "served", arm, endpoint.public_name)
            if endpoint not in self._assignment.endpoints:
                self._tally.count(epoch, "crossed", arm)
        ending = _ending(context.failure)
        if context.failure is not None or len(context.attempts) > 1 or self._assignment.down:
            self._count_troubles(ending)
        if ending != "refused":
            self._count_times(ending)

    def _count_troubles(self, ending: Ending) -> None:
        if _failed_in_arm(self._context, self._assignment):
            self._event("error")
        if ending in ("failed", "refused"):
            self._event("seen_error" if ending == "failed" else "refused")
        if ending != "done":
            self._once("first/unfinished")

    def _count_times(self, ending: Ending) -> None:
        timing, usage = self._context.timing, self._context.usage
        began, first = timing.began, timing.first_event_at
        written = usage.completion_tokens if usage is not None else 0
        if self._context.streamed:
            self._time("ttft", "done" if first else ending, (first or self._ended) - began)
            if first or ending == "failed":
                self._late(first - began if first else math.inf)
            elif ending == "left":
                self._event("left")
            if first and ending == "done" and written > 1:
                self._time("itl", "done", (timing.received_at - first) / (written - 1))
        if written > 0 or ending != "done":
            self._time("e2e", ending, (timing.received_at if ending == "done" else self._ended) - began)

    def _late(self, took: float) -> None:
        """Count a first token that came too late, or never; nobody knows of one that a client did not wait for."""
        limit = self._assignment.live.slo_ttft
        if limit is None:
            return
        late = took > limit
        self._tally.times[self._epoch, "late", self._arm].add(self._bucket, scaled(float(late)), self._z)
        if late:
            self._event("late")

    def _time(self, metric: str, ending: Ending, took: float) -> None:
        """Count a time; one that nobody knows is a long one in the means."""
        times = self._tally.times[self._epoch, metric, self._arm]
        log = math.log(max(took, SHORTEST))
        times.add(self._bucket, scaled(log if ending == "done" else max(log, LOG_UNANSWERED)), self._z)
        if ending == "failed":
            times.failed += 1
            return
        counts = times.done if ending == "done" else times.left
        number = math.ceil(log / LOG_GROWTH)  # `statistics.quantiles.bucket`, of the logarithm that is there already
        counts[number] = counts.get(number, 0) + 1

    def _event(self, name: str) -> None:
        self._tally.count(self._epoch, "event", name, self._arm)
        self._once(f"first/{name}")

    def _once(self, kind: str) -> None:
        """Count something once for its unit; each request is a unit where the file says so."""
        if self._assignment.live.settings.unit == "request":
            self._tally.count(self._epoch, kind, self._arm)
        else:
            self._tally.once(kind, self._assignment.unit.place, self._epoch, kind, self._arm)


def _ending(failure: BaseException | None) -> Ending:
    if failure is None:
        return "done"
    if isinstance(failure, ClientDisconnected):
        return "left"
    return "refused" if outcome(failure) in REFUSED else "failed"


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
