"""A key's limits: in memory against a clock that the test sets, in Redis against real servers that are killed."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from math import floor
from pathlib import Path
from time import monotonic

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.limits import Limiter, RateLimitLease, make
from gateway.access.limits.headers import format_duration
from gateway.access.limits.memory import InMemoryLimiter
from gateway.access.limits.quota import Quota
from gateway.access.limits.redis import WHILE_DOWN, RedisLimiter, WhenDown
from gateway.access.principal import Principal
from gateway.config.tables import LimitsConfig
from gateway.http.errors import RateLimited, Unavailable
from gateway.redis.client import MAX_CONCURRENT, RedisClient
from tests.support.harness import until
from tests.support.processes import become
from tests.support.redis_server import RedisServer

NOW = 50.0  # of the monotonic clock
ALL = Principal(id="k", requests_per_minute=5, tokens_per_minute=1000, max_in_flight=2)


async def entered(limiter: Limiter, principal: Principal, times: int, now: float = NOW) -> list[RateLimitLease]:
    """Let as many requests in as the limits allow, of so many that come at once."""
    tried = await asyncio.gather(*(limiter.enter(principal, now) for _ in range(times)), return_exceptions=True)
    assert all(isinstance(one, RateLimitLease | RateLimited) for one in tried), tried
    return [one for one in tried if isinstance(one, RateLimitLease)]


async def refused(limiter: Limiter, principal: Principal, now: float = NOW) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await limiter.enter(principal, now)
    return caught.value


def figures(lease: RateLimitLease) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in lease.headers(lease.at)}


# In memory and in Redis alike


UNHURRIED = 5.0  # seconds for Redis, in tests of what it counts: the machine that runs them may be busy


def redis_limiter(
    url: str, when_down: WhenDown = "open", deadline: float = UNHURRIED, retry_interval: float = 0.05, **how: float
) -> RedisLimiter:
    client = RedisClient(url, "limits", WHILE_DOWN[when_down], deadline, retry_interval, connect_timeout=20.0)
    return RedisLimiter(client, when_down, **how)


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Limiter]:
    with nullcontext() if request.param == "memory" else RedisServer(tmp_path) as given:
        url = given.url if isinstance(given, RedisServer) else ""
        made = make(LimitsConfig(store=request.param, url=url), 1, monotonic)
        if isinstance(made, RedisLimiter):
            made.client.deadline, made.client.retry_interval = UNHURRIED, 0.05
        await made.open()
        await until(lambda: made.up)  # a machine may be too busy for its first answer
        yield made
        await made.close()


async def test_a_key_without_limits_is_never_refused_and_told_nothing(limiter: Limiter) -> None:
    leases = await entered(limiter, Principal(id="free"), 300)
    assert len(leases) == 300
    assert {tuple(one.headers(NOW)) for one in leases} == {()}


async def test_exactly_as_many_requests_as_the_limit_are_let_in(limiter: Limiter) -> None:
    assert len(await entered(limiter, Principal(id="k", requests_per_minute=40), 100)) == 40


async def test_keys_do_not_count_against_each_other(limiter: Limiter) -> None:
    for name in ("one", "two"):
        assert len(await entered(limiter, Principal(id=name, requests_per_minute=3), 5)) == 3


async def test_keys_of_a_tenant_share_its_counters_and_each_has_its_own_limits(limiter: Limiter) -> None:
    """Also a key without limits is counted, where another has some: it is never refused, and the other one is."""
    old, new = (Principal(id=name, tenant="t {}", requests_per_minute=limit) for name, limit in (("o", 3), ("n", 5)))
    assert len(await entered(limiter, old, 9)) == 3
    assert len(await entered(limiter, new, 9)) == 2
    free = Principal(id="f", tenant="t {}", tenant_limited=True)
    assert len(await entered(limiter, free, 9)) == 9
    later = Principal(id="l", tenant="t {}", requests_per_minute=15)
    assert figures(await limiter.enter(later, NOW))["x-ratelimit-remaining-requests"] == "0"
    assert len(await entered(limiter, Principal(id="o", requests_per_minute=3), 9)) == 3, (
        "without a tenant it is another"
    )


async def test_keys_of_a_tenant_share_its_tokens(limiter: Limiter) -> None:
    one, other, free = (
        Principal(id="one", tenant="t", tokens_per_minute=100),
        Principal(id="other", tenant="t", tokens_per_minute=1000),
        Principal(id="free", tenant="t", tenant_limited=True),
    )
    limiter.leave(await limiter.enter(free, NOW), 150, NOW)
    await _settled(limiter)
    assert (await refused(limiter, one)).headers["x-ratelimit-remaining-tokens"] == "0"
    assert figures(await limiter.enter(other, NOW))["x-ratelimit-remaining-tokens"] == "850"


async def test_keys_of_a_tenant_share_its_places_in_flight(limiter: Limiter) -> None:
    one, other = (Principal(id=name, tenant="t", max_in_flight=2) for name in ("one", "other"))
    (lease,) = await entered(limiter, Principal(id="free", tenant="t", tenant_limited=True), 1)
    assert len(await entered(limiter, one, 5)) == 1
    await refused(limiter, other)
    limiter.leave(lease, 0, NOW)
    await _settled(limiter)
    assert len(await entered(limiter, other, 5)) == 1


async def test_a_look_says_how_the_limits_stand_and_counts_nothing(limiter: Limiter) -> None:
    first, second = await entered(limiter, ALL, 2)
    limiter.leave(first, 1000, NOW)
    await _settled(limiter)
    for _ in range(9):
        lease = await limiter.look(ALL, NOW)
        said = figures(lease)
        assert (said["x-ratelimit-remaining-requests"], said["x-ratelimit-remaining-tokens"]) == ("3", "0")
        limiter.leave(lease, 0, NOW)
    limiter.leave(second, 0, NOW)


async def test_tokens_may_be_debited_after_the_request_has_left(limiter: Limiter) -> None:
    principal = Principal(id="k", tokens_per_minute=1000, max_in_flight=1)
    lease = await limiter.enter(principal, NOW)
    limiter.leave(lease, 0, NOW)
    await _settled(limiter)
    other = await limiter.enter(principal, NOW)
    limiter.leave(lease, 300, NOW)
    await _settled(limiter)
    await refused(limiter, principal)  # the other one's place is still taken
    limiter.leave(other, 0, NOW)
    await _settled(limiter)
    assert figures(await limiter.look(principal, NOW))["x-ratelimit-remaining-tokens"] == "700"


async def test_a_place_in_flight_is_free_again_once_its_request_has_left(limiter: Limiter) -> None:
    principal = Principal(id="k", max_in_flight=2)
    first, _ = await entered(limiter, principal, 5)
    limiter.leave(first, 0, NOW)
    await _settled(limiter)
    assert len(await entered(limiter, principal, 5)) == 1


async def test_tokens_are_debited_at_the_end_and_only_some_have_to_be_left_before(limiter: Limiter) -> None:
    principal = Principal(id="k", tokens_per_minute=1000)
    one, two = await entered(limiter, principal, 2)
    limiter.leave(one, 999, NOW)
    await _settled(limiter)
    last = await limiter.enter(principal, NOW)
    assert figures(last)["x-ratelimit-remaining-tokens"] == "1"
    limiter.leave(two, 5000, NOW)  # more than there were
    await _settled(limiter)
    error = await refused(limiter, principal)
    assert error.message.startswith("Rate limit reached for this key on tokens per min (TPM): Limit 1000, Used 5999.")
    assert error.headers["x-ratelimit-remaining-tokens"] == "0"


async def test_a_lease_counts_its_own_request(limiter: Limiter) -> None:
    said = figures(await limiter.enter(ALL, NOW))
    assert said["x-ratelimit-limit-requests"] == "5"
    assert said["x-ratelimit-remaining-requests"] == "4"
    assert said["x-ratelimit-limit-tokens"] == said["x-ratelimit-remaining-tokens"] == "1000"
    assert said["x-ratelimit-reset-tokens"] == "0s"


async def test_a_request_refused_for_places_or_tokens_takes_no_request(limiter: Limiter) -> None:
    first, second = await entered(limiter, ALL, 10)
    for lease in (first, second):
        limiter.leave(lease, 400, NOW)
    await _settled(limiter)
    third = await limiter.enter(ALL, NOW)
    assert figures(third)["x-ratelimit-remaining-requests"] == "2"
    limiter.leave(third, 200, NOW)
    await _settled(limiter)
    error = await refused(limiter, ALL)
    assert (error.type, error.headers["x-ratelimit-remaining-requests"]) == ("tokens", "2")


async def test_a_request_refused_for_requests_takes_no_place(limiter: Limiter) -> None:
    principal = Principal(id="k", requests_per_minute=1, max_in_flight=1)
    lease = await limiter.enter(principal, NOW)
    limiter.leave(lease, 0, NOW)
    await _settled(limiter)
    for _ in range(3):
        assert (await refused(limiter, principal)).message.startswith("Rate limit reached for this key on requests per")


@pytest.mark.parametrize(
    ("principal", "kind", "said"),
    [
        (Principal(id="k", requests_per_minute=1), "requests", "on requests per min (RPM): Limit 1, Used 1. Please"),
        (Principal(id="k", tokens_per_minute=1), "tokens", "on tokens per min (TPM): Limit 1, Used 7. Please"),
        (Principal(id="k", max_in_flight=1), "requests", "on requests in flight: Limit 1, Used 1. Please"),
    ],
    ids=["requests", "tokens", "in flight"],
)
async def test_a_refusal_is_a_429_in_openai_s_words(
    limiter: Limiter, principal: Principal, kind: str, said: str
) -> None:
    lease = await limiter.enter(principal, NOW)
    if principal.tokens_per_minute:
        limiter.leave(lease, 7, NOW)
    await _settled(limiter)
    error = await refused(limiter, principal)
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", kind)
    assert said in error.message
    assert 1 <= int(error.headers["retry-after"]) <= 121


async def _settled(limiter: Limiter) -> None:
    """Wait until Redis was told of the requests that left."""
    if isinstance(limiter, RedisLimiter):
        await until(lambda: not limiter.leaving)


# The figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0, "0s"),
        (0.0002, "1ms"),
        (0.012, "12ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (9.816, "9.816s"),
        (59.7, "59.7s"),
        (60, "1m0s"),
        (72.25, "1m12.25s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86399.999, "23h59m59.999s"),
    ],
)
def test_a_duration_is_spelled_as_openai_does(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("requests", "tokens", "later", "headers"),
    [
        (None, None, 0, {}),
        (Quota(3, 0, 0, 1, 100), None, 0, {"limit-requests": "3", "remaining-requests": "2", "reset-requests": "40s"}),
        (Quota(3, 0, 0, 1, 100), None, 40.5, {"reset-requests": "0s"}),
        (None, Quota(900, 0, 0, 0, 0), 0, {"limit-tokens": "900", "remaining-tokens": "900", "reset-tokens": "0s"}),
        (None, Quota(900, 600, 30, 0, 90), 0, {"remaining-tokens": "600", "reset-tokens": "29.9s"}),
        (None, Quota(900, 0, 0, 6000, 120), 1, {"remaining-tokens": "0", "reset-tokens": "1m58.99s"}),
        (Quota(1, 0, 0, 1, 61), Quota(1, 0, 0, 0, 0), 0.5, {"reset-requests": "500ms", "reset-tokens": "0s"}),
    ],
)
def test_the_headers_of_a_lease(
    requests: Quota | None, tokens: Quota | None, later: float, headers: dict[str, str]
) -> None:
    said = RateLimitLease("k", NOW, requests, tokens).headers(NOW + later)
    told = {name.decode().removeprefix("x-ratelimit-"): value.decode() for name, value in said}
    assert told | headers == told
    assert {name.rpartition("-")[2] for name in told} == {
        name for name, quota in (("requests", requests), ("tokens", tokens)) if quota
    }


# In memory

DEBITS = st.lists(st.tuples(st.floats(0, 70), st.integers(1, 400)), min_size=1, max_size=30)


@given(DEBITS)
def test_after_retry_after_a_request_is_let_in_and_not_much_before(debits: list[tuple[float, int]]) -> None:
    async def hold() -> None:
        limiter, principal, now = InMemoryLimiter(monotonic), Principal(id="k", tokens_per_minute=300), NOW
        for gap, tokens in debits:
            now += gap
            limiter.leave(RateLimitLease("k", now, tokens=Quota(300, 0, 0, 0, 0)), tokens, now)
            try:
                await limiter.enter(principal, now)
            except RateLimited as error:
                wait = int(error.headers["retry-after"])
                if wait > 1:
                    await refused(limiter, principal, now + wait - 1.01)
                now += wait
                await limiter.enter(principal, now)

    asyncio.run(hold())


@given(DEBITS)
def test_after_the_reset_all_is_left_again(debits: list[tuple[float, int]]) -> None:
    async def hold() -> None:
        limiter, principal, now = InMemoryLimiter(monotonic), Principal(id="k", tokens_per_minute=10**6), NOW
        for gap, tokens in debits:
            now += gap
            limiter.leave(await limiter.enter(principal, now), tokens, now)
        quota = (await limiter.enter(principal, now)).tokens
        assert quota is not None
        after = (await limiter.enter(principal, now + quota.reset + 0.001)).tokens
        assert after is not None
        assert after.remaining == 10**6

    asyncio.run(hold())


@pytest.mark.parametrize(("workers", "share"), [(1, 10), (3, 4), (10, 1), (16, 1)])
async def test_each_worker_enforces_its_share_rounded_up(workers: int, share: int) -> None:
    for principal in (Principal(id="a", requests_per_minute=10), Principal(id="b", max_in_flight=10)):
        assert len(await entered(make(LimitsConfig(), workers, monotonic), principal, 20)) == share


@pytest.mark.parametrize("gap", [1, 15, 30, 59, 61, 119, 121, 3600])
async def test_no_minute_has_more_than_the_limit_whenever_the_next_burst_comes(gap: int) -> None:
    limiter, principal = InMemoryLimiter(monotonic), Principal(id="k", requests_per_minute=6)
    assert len(await entered(limiter, principal, 9, NOW + 45)) == 6
    let_in = len(await entered(limiter, principal, 9, NOW + 45 + gap))
    assert let_in <= 6
    assert (let_in == 6) == (gap >= 119)  # a sliding window counts for two minutes, ever less


async def test_memory_forgets_what_counts_no_more_and_nothing_else() -> None:
    limiter = InMemoryLimiter(monotonic)
    for number in range(500):
        principal = Principal(id=str(number), requests_per_minute=9, tokens_per_minute=9, max_in_flight=9)
        limiter.leave(await limiter.enter(principal, NOW), 5, NOW)
    await limiter.enter(Principal(id="at work", max_in_flight=1), NOW)
    limiter.sweep(NOW + 119)
    assert len(limiter._counts) == 501
    limiter.sweep(NOW + 121)
    assert list(limiter._counts) == ["at work"]


# In Redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as made:
        yield made


@asynccontextmanager
async def opened(limiter: RedisLimiter, up: bool = True) -> AsyncIterator[None]:
    """Connect a limiter, and see that it knows whether Redis is there."""
    await limiter.open()
    try:
        await until(lambda: limiter.up is up)  # a machine may be too busy for its first answer
        yield
    finally:
        await limiter.close()


@pytest.fixture
async def gateways(server: RedisServer) -> AsyncIterator[tuple[RedisLimiter, RedisLimiter]]:
    one, other = redis_limiter(server.url), redis_limiter(server.url)
    async with opened(one), opened(other):
        yield one, other


@pytest.mark.parametrize(
    "principal",
    [Principal(id="k", requests_per_minute=40), Principal(id="k", max_in_flight=40)],
    ids=["requests", "in flight"],
)
async def test_two_gateways_on_one_redis_share_a_limit_exactly(
    gateways: tuple[RedisLimiter, RedisLimiter], principal: Principal
) -> None:
    one, two = await asyncio.gather(*(entered(gateway, principal, 50) for gateway in gateways))
    assert len(one) + len(two) == 40
    assert one
    assert two


async def test_tokens_debited_by_one_gateway_are_missing_at_the_other(
    gateways: tuple[RedisLimiter, RedisLimiter],
) -> None:
    principal = Principal(id="k", tokens_per_minute=100)
    gateways[0].leave(await gateways[0].enter(principal, NOW), 100, NOW)
    await _settled(gateways[0])
    assert (await refused(gateways[1], principal)).type == "tokens"


async def test_the_permits_of_a_gateway_that_was_killed_come_back(server: RedisServer) -> None:
    killed, living = (redis_limiter(server.url, permit_ttl=1.5) for _ in range(2))
    principal = Principal(id="k", max_in_flight=2)
    async with opened(killed), opened(living):
        await killed.enter(principal, NOW)
        await living.enter(principal, NOW)
        await refused(living, principal)

        async def back() -> int:
            await living.renew()
            return len(await entered(living, principal, 5))

        await become(back, 1)


async def test_the_permits_of_a_gateway_that_lives_are_renewed_even_if_redis_lost_them(server: RedisServer) -> None:
    one, other = (redis_limiter(server.url, permit_ttl=1.5) for _ in range(2))
    principal = Principal(id="k", max_in_flight=1)
    async with opened(one), opened(other):
        lease = await one.enter(principal, NOW)
        redis.Redis(port=server.port).flushall()
        for _ in range(4):
            await one.renew()
            await asyncio.sleep(0.5)
            await refused(other, principal)
        one.leave(lease, 0, NOW)
        await _settled(one)
        await one.renew()
        await other.enter(principal, NOW)


async def test_permits_are_renewed_while_it_runs(server: RedisServer) -> None:
    limiter = redis_limiter(server.url, permit_ttl=60.0, renew_interval=0.01)
    async with opened(limiter):
        await limiter.enter(Principal(id="k", max_in_flight=1), NOW)
        client = redis.Redis(port=server.port)
        client.flushall()
        running = asyncio.ensure_future(limiter.run())
        await until(lambda: client.exists("pointsman:limits:{k}:leases"))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("steps", range(12))
async def test_a_request_cancelled_on_entry_keeps_no_permit(server: RedisServer, steps: int) -> None:
    principal = Principal(id="k", max_in_flight=1)
    one, other = redis_limiter(server.url, deadline=0.5), redis_limiter(server.url)
    async with opened(one), opened(other):
        entering = asyncio.ensure_future(one.enter(principal, NOW))
        for _ in range(steps):
            await asyncio.sleep(0.0001)
        if entering.cancel():
            await asyncio.gather(entering, return_exceptions=True)
        else:
            one.leave(await entering, 0, NOW)
        await _settled(one)
        await other.enter(principal, NOW)


async def test_a_killed_redis_lets_requests_in_uncounted_and_counts_again_once_it_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    limiter, principal = redis_limiter(server.url), Principal(id="k", requests_per_minute=1)
    async with opened(limiter):
        await limiter.enter(principal, NOW)
        server.kill()
        caplog.clear()
        with caplog.at_level(logging.INFO, "pointsman"):
            for _ in range(20):
                limiter.leave(await limiter.enter(principal, NOW), 7, NOW)
            assert (limiter.up, limiter.unchecked) == (False, 20)
            server.start()
            await until(lambda: limiter.up)
            assert figures(await limiter.enter(principal, NOW))["x-ratelimit-remaining-requests"] == "0"
            await refused(limiter, principal)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("limits: Redis does not answer, requests are let in unchecked: ")
    assert messages[1] == "limits: Redis answers again"


async def test_a_killed_redis_refuses_where_it_is_told_to_until_it_is_back(server: RedisServer) -> None:
    limiter, principal = redis_limiter(server.url, "closed"), Principal(id="k", requests_per_minute=1)
    server.kill()
    async with opened(limiter, up=False):
        for _ in range(5):
            with pytest.raises(Unavailable) as caught:
                await limiter.enter(principal, NOW)
            assert caught.value.headers == {"retry-after": "1"}
        assert (limiter.up, limiter.unchecked) == (False, 0)
        await limiter.enter(Principal(id="free"), NOW)  # there is nothing to count
        server.start()
        await until(lambda: limiter.up)
        assert len(await entered(limiter, principal, 1)) == 1


@pytest.mark.parametrize("when_down", ["open", "closed"])
async def test_while_redis_is_down_lists_and_keys_without_limits_are_never_refused(when_down: WhenDown) -> None:
    limiter = redis_limiter("redis://127.0.0.1:9", when_down)
    async with opened(limiter, up=False):
        assert figures(await limiter.look(ALL, NOW)) == {}
        await limiter.enter(Principal(id="free", tenant="t", tenant_limited=True), NOW)
        assert limiter.unchecked == 0


async def test_a_redis_that_refuses_to_count_is_not_up_until_it_counts(server: RedisServer) -> None:
    """A server without memory answers, and yet limits nothing: the gauge says so, and the log once."""
    limiter, principal = redis_limiter(server.url), Principal(id="k", requests_per_minute=1000)
    async with opened(limiter):
        client = redis.Redis(port=server.port)
        client.config_set("maxmemory", 1)
        await entered(limiter, principal, 10)
        assert (limiter.up, limiter.unchecked, limiter.client.up) == (False, 10, True)
        client.config_set("maxmemory", 0)
        await limiter.enter(principal, NOW)
        assert (limiter.up, limiter.unchecked) == (True, 10)


async def test_a_redis_that_hangs_costs_the_deadline_a_few_times_and_then_nothing(server: RedisServer) -> None:
    limiter = redis_limiter(server.url)
    principal = Principal(id="k", requests_per_minute=1000, max_in_flight=9)
    async with opened(limiter):
        held = (await entered(limiter, principal, 1))[0]
        limiter.client.deadline = 0.05
        before = limiter.client.health.errors
        server.signal(signal.SIGSTOP)
        assert len(await entered_in_turn(limiter, principal, 20)) == 20
        assert not limiter.up
        assert limiter.client.health.errors - before in (3, 4)  # with a probe that was under way
        limiter.leave(held, 7, NOW)
        await _settled(limiter)
        assert limiter.client.health.errors - before in (3, 4)
        limiter.client.deadline = UNHURRIED
        server.signal(signal.SIGCONT)
        await until(lambda: limiter.up)
        for name in ("a", "b", "c"):  # and nobody gets the late answers
            told = figures(await limiter.enter(Principal(id=name, requests_per_minute=7), NOW))
            assert told["x-ratelimit-remaining-requests"] == "6"


async def entered_in_turn(limiter: Limiter, principal: Principal, times: int) -> list[RateLimitLease]:
    return [await limiter.enter(principal, NOW) for _ in range(times)]


async def test_a_redis_that_hangs_at_the_start_is_left_after_a_moment(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    client = RedisClient(server.url, "limits", WHILE_DOWN["open"], 0.05, connect_timeout=0.1)
    limiter = RedisLimiter(client, "open")
    async with opened(limiter, up=False):
        await entered(limiter, Principal(id="k", requests_per_minute=1), 3)
        assert limiter.unchecked == 3


async def test_a_burst_while_redis_hangs_waits_for_little_more_than_one_deadline(server: RedisServer) -> None:
    limiter = redis_limiter(server.url, retry_interval=60.0)  # no question but the burst's
    async with opened(limiter):
        limiter.client.deadline = 0.05
        before = limiter.client.health.errors
        server.signal(signal.SIGSTOP)
        tasks = len(asyncio.all_tasks())
        leases = await entered(limiter, Principal(id="k", requests_per_minute=1000), 500)
        assert len(leases) == limiter.unchecked == 500
        assert limiter.client.health.errors - before <= MAX_CONCURRENT  # those that were asked at once
        await until(lambda: len(asyncio.all_tasks()) == tasks)  # no question is left hanging
        server.signal(signal.SIGCONT)


async def test_a_cluster_counts_all_three_limits_of_a_key(tmp_path: Path) -> None:
    with RedisServer(tmp_path, cluster=True) as server:
        limiter = redis_limiter(f"redis+cluster://127.0.0.1:{server.port}")
        async with opened(limiter):
            assert len(await entered(limiter, ALL, 5)) == 2
            lease = await limiter.enter(Principal(id="other", tokens_per_minute=10), NOW)
            limiter.leave(lease, 10, NOW)
            await _settled(limiter)
            await refused(limiter, Principal(id="other", tokens_per_minute=10))
            assert limiter.up


def test_used_is_the_current_window_and_the_share_of_the_previous_one() -> None:
    assert Quota(10, 7, 30.0, 2, 90.0).used == floor(3.5) + 2
