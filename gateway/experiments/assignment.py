"""A request's place in an experiment: the arm that it was drawn for, or why it has none."""

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from gateway.experiments.unit import DrawnUnit
from gateway.upstream.endpoints import Endpoint

if TYPE_CHECKING:
    from gateway.experiments.live import LiveExperiment

Arm = Literal["control", "treatment"]
Shadow = Literal["", "pair", "triple"]
# Why a request is in no arm, all of it known before anything is drawn; a cached answer is told from the account.
Exclusion = Literal["pin", "capability", "session", "no answer", "held", "cache"]

ARM_HEADER = b"x-pointsman-arm"
ARMS: tuple[Arm, Arm] = ("control", "treatment")
NOBODY = DrawnUnit(0)


class Assignment(Struct, eq=False):
    """`endpoints` are asked before all others: the arm's.

    `epoch` is the experiment's when the arm was drawn. `size` is the request's body in bytes, which is known before.
    `shadow` says which answers are asked for beside the client's, as its `conversation` was drawn. `down`: none of the
    arm's deployments could be asked.
    """

    live: "LiveExperiment"
    endpoints: frozenset[Endpoint]
    epoch: str
    arm: Arm | None = None
    excluded: Exclusion | None = None
    unit: DrawnUnit = NOBODY
    size: int = 0
    conversation: DrawnUnit = NOBODY
    shadow: Shadow = ""
    down: bool = False

    @property
    def cache_arm(self) -> str:
        """What of it the key of a cached answer holds: answers are shared within an arm of one experiment alone."""
        return f"{self.live.definition.id}/{self.arm}" if self.arm else ""
