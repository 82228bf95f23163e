"""Where a client's chunks come from: an engine, several engines, another request's answer, the cache."""

from collections.abc import Sequence
from typing import Protocol

from backends.base import Event
from backends.schema import Usage


class Source(Protocol):
    """Read batch by batch. `usage` is known at the end; `ended` may say so before an empty batch does."""

    @property
    def usage(self) -> Usage | None:
        """What was counted."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last batch has been read."""
        ...

    async def read(self) -> Sequence[Event]:
        """Return the next batch, never empty; at the end, an empty one. Raises PointsmanError."""
        ...

    def close(self) -> None:
        """Stop the engine's work, if it is not done."""
        ...


class Through:
    """A source in front of another; what is read of it may be changed, or noted, on the way."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def usage(self) -> Usage | None:
        """The source's."""
        return self._source.usage

    @property
    def ended(self) -> bool:
        """Whether the source has."""
        return self._source.ended

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        return await self._source.read()

    def close(self) -> None:
        """Stop the engine's work."""
        self._source.close()


class Ready:
    """The source of what is there already, in one batch: a whole answer, or the chunks of one that was kept."""

    def __init__(self, events: Sequence[Event], usage: Usage | None) -> None:
        self.usage = usage
        self.ended = True
        self._events = events

    async def read(self) -> Sequence[Event]:
        """Return all of it, once."""
        events, self._events = self._events, ()
        return events

    def close(self) -> None:
        """Do nothing: there is no work to stop."""
