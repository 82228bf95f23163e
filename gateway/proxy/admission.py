"""How much is in flight, in all and at each deployment, and who waits for room.

A request holds a place in all from its first try to its end, and a place at a deployment for each try: both are given
back when the answer has ended, streams included. Who finds no room waits in one bounded queue, the better tier first,
and is given the first place that frees up where it may go; nobody can overtake, as whoever waits could not go before.
When the queue is full, or the wait too long, it is 503: the lower tier is shed first.
"""

import asyncio
import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.access.principal import Tier
from gateway.config import AdmissionConfig
from gateway.http.errors import RETRY_AFTER, Unavailable
from gateway.upstream.models import Candidate

RANK: dict[Tier, int] = {"priority": 0, "flex": 1}


@dataclass(slots=True, order=True)
class Waiter:
    """A request that waits: for a place in all if it is new, and for one at any of its deployments."""

    rank: int
    number: int
    new: bool = field(compare=False)
    candidates: Sequence[Candidate] = field(compare=False)
    place: "asyncio.Future[Candidate]" = field(compare=False)


class Admission:
    """The places of one worker."""

    def __init__(self, bounds: AdmissionConfig) -> None:
        self.bounds = bounds
        self.in_flight = 0
        self.shed = 0  # requests that were turned away
        self._waiting: list[Waiter] = []
        self._number = 0

    def follow(self, bounds: AdmissionConfig) -> None:
        """Take over changed bounds: who waits is given the room that there is now."""
        self.bounds = bounds
        self.call_up()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    async def take(self, candidates: Sequence[Candidate], tier: Tier, new: bool) -> Candidate:
        """Take a place at the first of the deployments that has one, and if `new` one in all. Raises Unavailable."""
        found = self._room(candidates, new)
        return self._seat(found, new) if found else await self._wait(candidates, RANK[tier], new)

    def take_now(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Take a place at one of the deployments for a request that has one already, if there is room now."""
        found = self._room(candidates, new=False)
        return found and self._seat(found, new=False)

    def join(self, candidate: Candidate) -> None:
        """Take a permit at a deployment whether or not there is room: for what an attempt there waits for."""
        self._seat(candidate, new=False)

    def give_back(self, candidate: Candidate) -> None:
        """Give back a place at a deployment."""
        candidate.endpoint.in_flight -= 1
        if self._waiting:
            self.call_up()

    def leave(self) -> None:
        """Give back a place in all."""
        self.in_flight -= 1
        if self._waiting:
            self.call_up()

    def call_up(self) -> None:
        """Give places to those who wait, as far as there are any."""
        for waiter in list(self._waiting):
            found = None if waiter.place.done() else self._room(waiter.candidates, waiter.new)
            if found:
                self._waiting.remove(waiter)
                waiter.place.set_result(self._seat(found, waiter.new))

    def _room(self, candidates: Sequence[Candidate], new: bool) -> Candidate | None:
        if new and self.in_flight >= self.bounds.max_in_flight:
            return None
        for candidate in candidates:
            endpoint = candidate.endpoint
            if not endpoint.max_in_flight or endpoint.in_flight < endpoint.max_in_flight:
                return candidate
        return None

    def _seat(self, candidate: Candidate, new: bool) -> Candidate:
        self.in_flight += new
        candidate.endpoint.in_flight += 1
        return candidate

    async def _wait(self, candidates: Sequence[Candidate], rank: int, new: bool) -> Candidate:
        self._number += 1
        waiter = Waiter(rank, self._number, new, candidates, asyncio.get_running_loop().create_future())
        bisect.insort(self._waiting, waiter)
        if len(self._waiting) > self.bounds.queue:
            self._turn_away(self._waiting.pop())
        try:
            async with asyncio.timeout(self.bounds.queue_timeout):
                return await waiter.place
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, TimeoutError):
                self.shed += 1
                raise _no_room("There was no room for the request in time.") from error
            raise

    def _turn_away(self, waiter: Waiter) -> None:
        self.shed += 1
        if not waiter.place.done():  # it may have been cancelled in the same moment
            waiter.place.set_exception(_no_room("There is no room for the request, and too many wait already."))

    def _withdraw(self, waiter: Waiter) -> None:
        """Take out a request that waits no longer; a place that it was given in the same moment goes to the next."""
        place = waiter.place
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif not place.cancelled() and place.done() and place.exception() is None:
            self.in_flight -= waiter.new
            self.give_back(place.result())


def _no_room(why: str) -> Unavailable:
    return Unavailable(why, headers={"retry-after": RETRY_AFTER})
