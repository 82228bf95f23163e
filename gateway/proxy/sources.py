"""Where a client's chunks come from: an engine, several engines, another request's answer, the cache."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from backends import estimate, functions
from backends.base import Call, Event, UpstreamRequest
from backends.choices import merged_usage, merged_work
from backends.estimate import Written
from backends.named import with_nulls
from backends.schema import Usage


class OpenAnswer(Protocol):
    """An engine's answer that has begun, in whichever form its surface sends it on."""

    def worked(self) -> Usage | None:
        """Return the tokens that have been worked so far: the engine's own figures, or an Estimate until they come.

        The prompt's are -1 where the engine has not said them (see `RequestContext.estimate_prompt`). None: no work.
        """
        ...

    def close(self) -> None:
        """Stop the engine's work, if it is not done."""
        ...


class Source(OpenAnswer, Protocol):
    """An answer in chunks, read batch by batch. `ended` may tell of the end before an empty batch does."""

    @property
    def usage(self) -> Usage | None:
        """What the engine itself has counted; it is known at the end."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the last batch has been read."""
        ...

    async def read(self) -> Sequence[Event]:
        """Return the next batch, never empty; at the end, an empty one. Raises PointsmanError."""
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

    def worked(self) -> Usage | None:
        """Return what the source has."""
        return self._source.worked()

    def close(self) -> None:
        """Stop the engine's work."""
        self._source.close()


class LegacyFunctions(Through):
    """A source whose chunks say functions for tools, as the client did."""

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        return functions.events(await super().read())


class NamedFields(Through):
    """A source whose chunks have the null fields that the client asked for by name."""

    def __init__(self, source: Source, call: Call) -> None:
        super().__init__(source)
        self._call = call

    async def read(self) -> Sequence[Event]:
        """Return the next batch."""
        return [with_nulls(self._call, event) for event in await super().read()]


class Ready:
    """The source of what is there already, in one batch: a whole answer, or the chunks of one that was kept."""

    def __init__(self, events: Sequence[Event], usage: Usage | None) -> None:
        self.usage = usage
        self.ended = True
        self._events = events
        self._unread = events

    async def read(self) -> Sequence[Event]:
        """Return all of it, once."""
        events, self._unread = self._unread, ()
        return events

    def worked(self) -> Usage | None:
        """Return all of the usage."""
        if not self._events:
            return None
        if estimate.is_told(self.usage):
            return self.usage
        return estimate.whole(self.usage, Written(self._events).tokens)

    def close(self) -> None:
        """Do nothing: there is no work to stop."""


class MergedSource:
    """Several sources read side by side; chunks come as they come, each with its choice's index."""

    def __init__(self, sources: Sequence[Source], requests: list[UpstreamRequest]) -> None:
        self.usage: Usage | None = None
        self.ended = False
        self._sources = sources
        self._requests = requests
        self._reads: dict[asyncio.Task[Sequence[Event]], Source] = {
            asyncio.ensure_future(source.read()): source for source in sources
        }

    async def read(self) -> Sequence[Event]:
        """Return the batch of whichever source has one first."""
        while self._reads:
            done, _ = await asyncio.wait(self._reads, return_when=asyncio.FIRST_COMPLETED)
            events: list[Event] = []
            for task in done:
                source = self._reads.pop(task)
                batch = task.result()
                if batch:
                    events += batch
                    self._reads[asyncio.ensure_future(source.read())] = source
            if events:
                return events
        self.usage = merged_usage([source.usage for source in self._sources], self._requests)
        return ()

    def worked(self) -> Usage | None:
        """Return the sum of what is known, as some choices end before others."""
        return merged_work([source.worked() for source in self._sources], self._requests)

    def close(self) -> None:
        """Stop all of them."""
        for task in self._reads:
            task.cancel()
        for source in self._sources:
            source.close()
