"""How a store is told and read, and how an old one becomes a new one.

A telling is taken once, all of it or nothing: who has told it and is not sure that it arrived tells it again, by the
same number. Its time is the store's own, so that gateways whose clocks disagree agree all the same.
"""

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from gateway.config import ExperimentsConfig
from gateway.experiments.tally import First

SCHEMA = 2
SCHEMA_NOTE = "schema"
NOW = "@now"  # in a mark: the store's time
TOLD = "told/"  # a note of each teller: the number of the last telling that was taken


class StoreUnavailable(Exception):
    """The store cannot be told or read now; the message says why."""


class Telling(Struct, frozen=True, kw_only=True):
    """What one worker tells of one experiment.

    `sums` are added. `firsts` are counted where they are the first of their kind, in maps that are called after `maps`.
    `notes` take the place of those before; `marks` are notes that stay as they were first written. `stamps` are notes
    that become the store's time (Unix seconds); in a mark `@now` does.
    """

    name: str
    teller: str
    number: int
    sums: Mapping[str, int] = {}
    firsts: tuple[First, ...] = ()
    maps: str = ""
    notes: Mapping[str, str] = {}
    marks: Mapping[str, str] = {}
    stamps: tuple[str, ...] = ()


class RecordStore(Protocol):
    """A record's place. All raise StoreUnavailable."""

    async def open(self) -> None:
        """Connect, and bring what is there up to this version; a store that is not there is tried again later."""
        ...

    async def close(self) -> None:
        """End the connections."""
        ...

    async def tell(self, telling: Telling) -> None:
        """Take a telling, once."""
        ...

    async def notes(self, name: str) -> tuple[float, dict[str, str]]:
        """Return the store's time (Unix seconds), and the notes of an experiment."""
        ...

    async def sums(self, name: str) -> dict[str, int]:
        """Return all numbers of an experiment by their fields."""
        ...

    async def names(self) -> list[str]:
        """Return the names of all experiments that were ever told of."""
        ...


def make(config: ExperimentsConfig) -> RecordStore:
    """Return the store that is configured; nothing is opened yet. Raises ValueError if the URL is none."""
    if config.store == "redis":
        from gateway.experiments.store.redis import shared_store  # noqa: PLC0415  (Redis's client takes 0.3 s)

        return shared_store(config.url)
    from gateway.experiments.store.sqlite import SqliteStore  # noqa: PLC0415  (who has no experiment needs none)

    return SqliteStore(config.file)
