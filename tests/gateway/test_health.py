"""Health checks: each engine is checked in a task of its own, which outlives whatever happens to one check."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import cast

import pytest

from gateway import config
from gateway.server.supervise import TaskSupervisor
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.health import HealthChecker
from gateway.upstream.request_writer import RequestWriter
from tests.support.harness import ANSWER, Gateway, configured, gateway, over, read_request, says, until, whole


@asynccontextmanager
async def checking(front: Gateway, interval: float) -> AsyncIterator[tuple[HealthChecker, Endpoint]]:
    """Check the gateway's engines by another checker, whose tasks are started again at once."""
    supervisor = TaskSupervisor(monotonic, lambda _: asyncio.sleep(0.01))
    services = front.services
    health = config.HealthConfig(interval=interval)
    checker = HealthChecker(services.catalog, services.upstream, health, monotonic, supervisor.start)
    try:
        yield checker, services.catalog.endpoints[0]
    finally:
        await supervisor.stop()


async def test_a_fault_in_checking_one_engine_is_logged_and_does_not_end_the_checks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with over(says(whole(ANSWER))) as (front, _), checking(front, 0.01) as (checker, endpoint):
        requests, endpoint.requests = endpoint.requests, cast(RequestWriter, None)
        checker.refresh()
        await until(lambda: not endpoint.up)
        assert "internal error" in endpoint.reason_down
        endpoint.requests = requests
        await until(lambda: endpoint.up)
    assert "background task health check of vllm died" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_changed_interval_holds_at_once_for_an_engine_that_waits_for_its_next_check() -> None:
    async with over(says(whole(ANSWER))) as (front, _), checking(front, 3600.0) as (checker, endpoint):
        await front.services.prober.close()
        checker.refresh()
        endpoint.up = False
        await until(lambda: endpoint.up)  # and now it waits for an hour
        endpoint.up = False
        checker.follow(config.HealthConfig(interval=0.01))
        await until(lambda: endpoint.up)
        endpoint.up = False
        await until(lambda: endpoint.up)


async def test_an_engine_that_is_not_well_is_down_and_the_reason_names_what_was_asked() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole({"error": {"message": "loading", "code": 503}}, "503 Service Unavailable"))
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with gateway(configured(url), ready=False) as front:
            (endpoint,) = front.services.catalog.endpoints
            await until(
                lambda: endpoint.reason_down.startswith(f"health check failed: GET {url}/health: The engine is busy")
            )
            assert not endpoint.up
