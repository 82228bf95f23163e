"""Of identical requests in flight, one asks; the others read along: the past replayed, the rest live.

A flight runs in a task of its own, so that it goes on when the request that began it leaves; when its last reader has
left, it ends, and the engine's work with it. It reads as fast as the engine writes, into a log that lasts as long as
its readers do: a slow one holds nobody up, and the log is no larger than the answer.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

from backends.base import Call, Event
from backends.schema import Usage
from gateway.cache.entry import headed
from gateway.http.errors import RETRY_AFTER, Internal, PointsmanError, RateLimited, ShuttingDown
from gateway.proxy.sources import Source

LEADERS = 2  # requests that try, one after the other: each has retries of its own


class Shareable(Source, Protocol):
    """An answer that several requests may share."""

    async def open(self) -> None:
        """Ask for it. Raises PointsmanError."""

    def keep(self, events: Sequence[Event], usage: Usage | None) -> None:
        """Keep it: it came to its end."""


S = TypeVar("S", bound=Shareable)


class Flight(Generic[S]):
    """One upstream answer and who reads it. `gone` is told once nobody may join any more."""

    def __init__(self, key: bytes, source: S, gone: "Callable[[Flight[S]], None]") -> None:
        self.key = key
        self.source = source
        self.log: list[Event] = []
        self.usage: Usage | None = None
        self.ended = False  # well or not
        self.error: Exception | None = None
        self.readers = 0
        self.gone = gone
        self._waiting: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Read the whole answer, and have it kept before anybody hears of its end."""
        try:
            await self.source.open()
            try:
                await self._read(self.source)
                self.usage = self.source.usage
                self.source.keep(self.log, self.usage)
            finally:
                self.source.close()
        except asyncio.CancelledError:
            self.error = ShuttingDown("The gateway is shutting down.", headers={"retry-after": RETRY_AFTER})
            raise
        except Exception as error:
            self.error = error
        finally:
            self.ended = True
            self.gone(self)
            self._wake()

    async def _read(self, source: S) -> None:
        while batch := await source.read():
            self.log += batch
            if source.ended:  # the end can go out with the last chunks
                return
            self._wake()

    async def news(self) -> None:
        """Wait until there is more in the log, or the end."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        await waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


class FlightReader(Generic[S]):
    """One request's view of a flight, a Source. `is_leader` says whether it was the one that asked."""

    def __init__(self, flight: Flight[S], call: Call, is_leader: bool, leave: Callable[[Flight[S]], None]) -> None:
        self.is_leader = is_leader
        self.usage: Usage | None = None
        self.ended = False
        self._flight = flight
        self._call = call
        self._leave: Callable[[Flight[S]], None] | None = leave
        self._place = 0
        flight.readers += 1

    @property
    def source(self) -> S:
        """What the flight reads."""
        return self._flight.source

    async def begin(self) -> None:
        """Wait for the first chunks, so that a failure before them can still be told by a status."""
        flight = self._flight
        while not flight.log and not flight.ended:
            await flight.news()
        self._check()

    async def read(self) -> Sequence[Event]:
        """Return all that is new, at the end nothing. Raises PointsmanError, the same for every reader."""
        flight = self._flight
        while self._place == len(flight.log) and not flight.ended:
            await flight.news()
        events = flight.log[self._place :]
        self._place += len(events)
        if not events:
            self._check()
        if flight.ended and flight.error is None:
            self.usage = flight.usage
            self.ended = True
        return events if self.is_leader else [headed(event, self._call) for event in events]

    def close(self) -> None:
        """Read no more; the flight of a last reader ends."""
        if self._leave is not None:
            self._leave(self._flight)
            self._leave = None

    def _check(self) -> None:
        if self._flight.error is not None:
            raise self._flight.error.with_traceback(None)  # which would grow with each reader


class Flights(Generic[S]):
    """The flights of this process, by key: a call's digest, and what else keeps answers apart (whole or streamed)."""

    def __init__(self) -> None:
        self._flying: dict[bytes, Flight[S]] = {}
        self._tasks: dict[Flight[S], asyncio.Task[None]] = {}

    @property
    def flying(self) -> Collection[Flight[S]]:
        """Those that may be joined."""
        return self._flying.values()

    @property
    def tasks(self) -> int:
        """How many tasks run."""
        return len(self._tasks)

    async def join(
        self, key: bytes, call: Call, source: S, joined: Callable[[S], None] = lambda _: None
    ) -> FlightReader[S]:
        """Return a reader of the flight of that key, its first chunks there.

        If there is none, this request leads one, with its own source. `joined` is told of the source that is waited
        for. A leader that fails before this request has read anything lets one of the followers lead, unless the fault
        is the request's own. Raises PointsmanError.
        """
        for leaders in range(1, LEADERS + 1):
            flight = self._flying.get(key)
            is_leader = flight is None
            if flight is None:
                flight = self._start(key, source)
            reader = FlightReader(flight, call, is_leader, self._left)
            joined(flight.source)
            try:
                await reader.begin()
                return reader
            except BaseException as error:
                reader.close()
                if is_leader or leaders == LEADERS or not _worth_another(error):
                    raise
        raise AssertionError("the last leader's error is raised")

    async def close(self) -> None:
        """End all flights."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: bytes, source: S) -> Flight[S]:
        flight = Flight(key, source, self._gone)
        self._flying[key] = flight
        task = self._tasks[flight] = asyncio.create_task(flight.run())
        task.add_done_callback(lambda _: self._tasks.pop(flight))
        return flight

    def _left(self, flight: Flight[S]) -> None:
        flight.readers -= 1
        if not flight.readers and not flight.ended:
            self._gone(flight)
            self._tasks[flight].cancel()

    def _gone(self, flight: Flight[S]) -> None:
        if self._flying.get(flight.key) is flight:
            del self._flying[flight.key]


def _worth_another(error: BaseException) -> bool:
    """Whether another request could fare better: not if it is the request itself that is wrong, nor at the end."""
    if isinstance(error, PointsmanError) and not isinstance(error, ShuttingDown):
        return error.status >= Internal.status or error.status == RateLimited.status
    return False
