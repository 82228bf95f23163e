"""How much is in flight, in all and at each deployment, and who waits for room.

A request holds a permit of the worker's from its first attempt to its end, and a permit of a deployment for each
attempt: both are released when the answer has ended, streams included. Without room a request waits in one bounded
queue, the better tier first, and gets the first permit that is released where it may go. Nobody overtakes: whoever
waits could not go before. When the queue is full, or the wait too long, it is 503: the lower tier is shed first.
"""

import asyncio
import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.access.principal import Tier
from gateway.config import AdmissionConfig
from gateway.http.errors import RETRY_AFTER, Unavailable
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate

RANK: dict[Tier, int] = {"priority": 0, "flex": 1}


@dataclass(slots=True, order=True)
class Waiter:
    """A request that waits: for a permit of the worker's if it is new, and for one of any of its deployments."""

    rank: int
    number: int
    new: bool = field(compare=False)
    candidates: Sequence[Candidate] = field(compare=False)
    permit: "asyncio.Future[Candidate]" = field(compare=False)


class Admission:
    """The permits of one worker."""

    def __init__(self, bounds: AdmissionConfig) -> None:
        self.bounds = bounds
        self.in_flight = 0
        self.shed = 0  # requests that were turned away
        self._waiting: list[Waiter] = []
        self._number = 0

    def follow(self, bounds: AdmissionConfig) -> None:
        """Take over changed bounds: who waits is given the room that there is now."""
        self.bounds = bounds
        self.admit_waiting()

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def waiting_for(self, endpoints: Sequence[Endpoint]) -> int:
        """How many requests wait for room at any of these deployments."""
        return sum(any(one.endpoint in endpoints for one in waiter.candidates) for waiter in self._waiting)

    async def acquire(self, candidates: Sequence[Candidate], tier: Tier, new: bool) -> Candidate:
        """Acquire a permit of the first deployment with room, if `new` the worker's, too. Raises Unavailable."""
        found = self._find_room(candidates, new)
        return self._grant(found, new) if found else await self._wait(candidates, RANK[tier], new)

    def try_acquire(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """Acquire a permit of one of the deployments, if there is room now, for a request that has the worker's."""
        found = self._find_room(candidates, new=False)
        return found and self._grant(found, new=False)

    def join(self, candidate: Candidate) -> None:
        """Take a permit at a deployment whether or not there is room: for what an attempt there waits for."""
        self._grant(candidate, new=False)

    def release(self, candidate: Candidate) -> None:
        """Release a permit of a deployment."""
        candidate.endpoint.in_flight -= 1
        if self._waiting:
            self.admit_waiting()

    def leave(self) -> None:
        """Release a permit of the worker's."""
        self.in_flight -= 1
        if self._waiting:
            self.admit_waiting()

    def admit_waiting(self) -> None:
        """Grant permits to those who wait, as far as there is room."""
        for waiter in list(self._waiting):
            found = None if waiter.permit.done() else self._find_room(waiter.candidates, waiter.new)
            if found:
                self._waiting.remove(waiter)
                waiter.permit.set_result(self._grant(found, waiter.new))

    def _find_room(self, candidates: Sequence[Candidate], new: bool) -> Candidate | None:
        if new and self.in_flight >= self.bounds.max_in_flight:
            return None
        for candidate in candidates:
            endpoint = candidate.endpoint
            if not endpoint.max_in_flight or endpoint.in_flight < endpoint.max_in_flight:
                return candidate
        return None

    def _grant(self, candidate: Candidate, new: bool) -> Candidate:
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
                return await waiter.permit
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, TimeoutError):
                self.shed += 1
                raise _no_room("There was no room for the request in time.") from error
            raise

    def _turn_away(self, waiter: Waiter) -> None:
        self.shed += 1
        if not waiter.permit.done():  # it may have been cancelled in the same moment
            waiter.permit.set_exception(_no_room("There is no room for the request, and too many wait already."))

    def _withdraw(self, waiter: Waiter) -> None:
        """Take out a request that waits no longer; a permit granted to it in the same moment goes to the next."""
        permit = waiter.permit
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif not permit.cancelled() and permit.done() and permit.exception() is None:
            self.in_flight -= waiter.new
            self.release(permit.result())


def _no_room(why: str) -> Unavailable:
    return Unavailable(why, headers={"retry-after": RETRY_AFTER})
