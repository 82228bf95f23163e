"""A store of experiments in memory, which a test can take away."""

from __future__ import annotations

from gateway.experiments.store.base import NOW, StoreUnavailable, Telling


class MemoryStore:
    """Holds what several keepers tell, by a clock of its own. While `down` it is not to be had.

    `deaf`: it takes what it is told, and who told it does not hear so.
    """

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.down = self.deaf = False
        self.told: list[Telling] = []
        self._sums: dict[str, dict[str, int]] = {}
        self._notes: dict[str, dict[str, str]] = {}
        self._places: set[tuple[str, str, str, int]] = set()

    async def open(self) -> None:
        """Be there, or not."""
        self._check()

    async def close(self) -> None:
        """Do nothing."""

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("the test has taken it away")

    async def tell(self, telling: Telling) -> None:
        """Take a telling, once."""
        self._check()
        notes = self._notes.setdefault(telling.name, {})
        told = f"told/{telling.teller}"
        if telling.number > int(notes.get(told, "-1")):
            self._take(telling, notes)
            notes[told] = str(telling.number)
        if self.deaf:
            raise StoreUnavailable("the answer was lost")

    def _take(self, telling: Telling, notes: dict[str, str]) -> None:
        self.told.append(telling)
        sums = self._sums.setdefault(telling.name, {})
        for field, by in telling.sums.items():
            sums[field] = sums.get(field, 0) + by
        for first in telling.firsts:
            place = (telling.name, telling.maps, first.kind, first.place)
            if place not in self._places:
                self._places.add(place)
                sums[first.field] = sums.get(first.field, 0) + 1
        notes.update(telling.notes)
        notes.update(dict.fromkeys(telling.stamps, repr(self.now)))
        for name, text in telling.marks.items():
            notes.setdefault(name, text.replace(NOW, repr(self.now)))

    def note(self, experiment: str, name: str, text: str) -> None:
        """Write a note, as another program may."""
        self._notes.setdefault(experiment, {})[name] = text

    async def notes(self, name: str) -> tuple[float, dict[str, str]]:
        """Return the time and the notes."""
        self._check()
        return self.now, dict(self._notes.get(name, {}))

    async def sums(self, name: str) -> dict[str, int]:
        """Return all numbers."""
        self._check()
        return dict(self._sums.get(name, {}))

    async def names(self) -> list[str]:
        """Return the names."""
        self._check()
        return sorted(self._notes)
