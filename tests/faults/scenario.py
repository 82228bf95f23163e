"""A gateway in the test's own process, whose clients are counted, and which has to be clean when they are gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any

from gateway import config
from gateway.access.limits import Limiter
from gateway.access.limits.memory import InMemoryLimiter
from gateway.access.limits.redis import RedisLimiter
from gateway.http.context import RequestContext
from gateway.observe.logs import RequestLog
from tests.faults.totals import totals
from tests.support.harness import PATIENCE, Gateway, gateway
from tests.support.raw_client import Answer, Client, connected

TESTS = str(Path(__file__).parents[1])


class Ledger(set[RequestContext]):
    """The open requests, which remembers how many were opened and how many were closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0
        self.closed = 0

    def add(self, context: RequestContext) -> None:
        """Open one."""
        self.opened += context not in self
        super().add(context)

    def discard(self, context: object) -> None:
        """Close one; closing it twice counts twice."""
        self.closed += 1
        super().discard(context)


class Lines(BytesIO):
    """The log of requests, of which only the number of lines is kept."""

    count = 0

    def write(self, data: Any) -> int:
        """Count the lines."""
        self.count += bytes(data).count(b"\n")
        return len(data)


@dataclass
class Scenario:
    """A running gateway. `sent` counts the requests that clients sent, each of which is to be accounted for once."""

    front: Gateway
    ledger: Ledger
    lines: Lines
    before: set[asyncio.Task[Any]]
    sent: int = 0
    clients: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def client(self, body: Any = None, **how: Any) -> Client:
        """Connect a client that lives as long as the scenario; with a body, it asks at once."""
        client = await self.clients.enter_async_context(connected(self.front.port))
        if body is not None:
            self.send(client, body, **how)
        return client

    def send(self, client: Client, body: Any, **how: Any) -> None:
        """Send a request."""
        self.sent += 1
        client.send(body, **how)

    async def ask(self, body: Any, **how: Any) -> Answer:
        """Ask on a connection of its own, and read the answer."""
        async with connected(self.front.port) as client:
            self.send(client, body, **how)
            return await client.answer()

    async def left(self) -> dict[str, float]:
        """Return what is still held, or not accounted for."""
        services = self.front.services
        services.records.flush()
        counts = {
            "tasks": len(self.tasks()),
            "requests open": len(services.sweep.open),
            "places": services.admission.in_flight,
            "requests that wait": services.admission.waiting,
            "places at deployments": sum(endpoint.in_flight for endpoint in services.catalog.endpoints),
            "places of keys": _places(services.limiter),
            "connections in use": sum(connection.busy for connection in services.upstream.connections),
            "not opened": self.sent - self.ledger.opened,
            "not closed": self.sent - self.ledger.closed,
            "not counted": self.sent - totals(await services.metrics.text())["pointsman_requests_total"],
            "not logged": self.sent - self.lines.count,
        }
        return {name: count for name, count in counts.items() if count}

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return the tasks that requests have begun, those of the test and its engines aside."""
        since = asyncio.all_tasks() - self.before
        return {task for task in since if not _of_the_test(task)}


def _places(limiter: Limiter) -> int:
    if isinstance(limiter, InMemoryLimiter):
        return sum(counts.in_flight for counts in limiter._counts.values())
    assert isinstance(limiter, RedisLimiter)
    return sum(map(len, limiter.permits.values()))


def _of_the_test(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(TESTS)


async def assert_clean(scenario: Scenario) -> None:
    """See that nothing is left of any request before long, and that each is accounted for once."""
    ends = monotonic() + PATIENCE
    while left := await scenario.left():
        assert monotonic() < ends, f"{PATIENCE:g} s later there is still {left}, {scenario.tasks()}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def scenario(
    given: config.Config, ready: bool = True, clock: Callable[[], float] = monotonic
) -> AsyncIterator[Scenario]:
    """Run a gateway; at the end it has to be clean."""
    async with gateway(given, ready, clock) as front:
        ledger = Ledger()
        front.services.sweep.open = ledger
        lines = Lines()
        front.services.records.log = RequestLog(lines)
        made = Scenario(front, ledger, lines, asyncio.all_tasks())
        async with made.clients:
            yield made
        await assert_clean(made)
