"""The same thing of both arms, and how many of something fell to each."""

from typing import Generic, TypeVar

from msgspec import Struct

Item_co = TypeVar("Item_co", covariant=True)


class Arms(Struct, Generic[Item_co], frozen=True):
    """One thing of the control and the same of the treatment."""

    control: Item_co
    treatment: Item_co


class Split(Struct, frozen=True):
    """How many of something fell to each arm: units, a unit's first errors, heads and tails of a coin."""

    control: int = 0
    treatment: int = 0

    def __add__(self, other: "Split") -> "Split":
        """Merge with the counts of another worker or gateway, exactly."""
        return Split(self.control + other.control, self.treatment + other.treatment)

    @property
    def total(self) -> int:
        """The count of both arms."""
        return self.control + self.treatment


class Stratum(Struct, frozen=True):
    """What fell to each arm while the chance of the treatment was `share`: an epoch of the plan.

    For a coin the share is 1/2. For events over unequal exposures it is the treatment's part of all exposure. Raises
    ValueError where it is not above 0 and below 1: with nothing on one side there is nothing to compare.
    """

    split: Split
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share: a number above 0 and below 1 was expected, not {self.share}")
