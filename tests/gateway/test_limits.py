"""A key's limits: in memory against a clock that the test sets, in Redis against real servers that are killed."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from math import floor
from pathlib import Path
from time import monotonic

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.limits import Limiter, RateLimitLease, make
from gateway.access.limits import redis as in_redis
from gateway.access.limits.headers import format_duration
from gateway.access.limits.memory import InMemoryLimiter
from gateway.access.limits.quota import Quota
from gateway.access.limits.redis import Redis
from gateway.access.principal import Principal
from gateway.config.tables import LimitsConfig
from gateway.http.errors import RateLimited, Unavailable
from tests.support.harness import until
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


def figures(standing: RateLimitLease) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in standing.headers(standing.at)}


# In memory and in Redis alike


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give Redis time, for tests of what it counts: the machine that runs them may be busy."""
    monkeypatch.setattr(in_redis, "DEADLINE", 5.0)


@pytest.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, tmp_path: Path, unhurried: None) -> AsyncIterator[Limiter]:
    with nullcontext() if request.param == "memory" else RedisServer(tmp_path) as given:
        url = given.url if isinstance(given, RedisServer) else ""
        made = make(LimitsConfig(store=request.param, url=url), 1, monotonic)
        await made.open()
        yield made
        await made.close()


async def test_a_key_without_limits_is_never_refused_and_told_nothing(limiter: Limiter) -> None:
    standings = await entered(limiter, Principal(id="free"), 300)
    assert len(standings) == 300
    assert {tuple(one.headers(NOW)) for one in standings} == {()}


async def test_exactly_as_many_requests_as_the_limit_are_let_in(limiter: Limiter) -> None:
    assert len(await entered(limiter, Principal(id="k", requests_per_minute=40), 100)) == 40


async def test_keys_do_not_count_against_each_other(limiter: Limiter) -> None:
    for name in ("one", "two"):
        assert len(await entered(limiter, Principal(id=name, requests_per_minute=3), 5)) == 3


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


async def test_a_standing_counts_its_own_request(limiter: Limiter) -> None:
    said = figures(await limiter.enter(ALL, NOW))
    assert said["x-ratelimit-limit-requests"] == "5"
    assert said["x-ratelimit-remaining-requests"] == "4"
    assert said["x-ratelimit-limit-tokens"] == said["x-ratelimit-remaining-tokens"] == "1000"
    assert said["x-ratelimit-reset-tokens"] == "0s"


async def test_a_request_refused_for_places_or_tokens_takes_no_request(limiter: Limiter) -> None:
    first, second = await entered(limiter, ALL, 10)
    for standing in (first, second):
        limiter.leave(standing, 400, NOW)
    await _settled(limiter)
    third = await limiter.enter(ALL, NOW)
    assert figures(third)["x-ratelimit-remaining-requests"] == "2"
    limiter.leave(third, 200, NOW)
    await _settled(limiter)
    error = await refused(limiter, ALL)
    assert (error.type, error.headers["x-ratelimit-remaining-requests"]) == ("tokens", "2")


async def test_a_request_refused_for_requests_takes_no_place(limiter: Limiter) -> None:
    principal = Principal(id="k", requests_per_minute=1, max_in_flight=1)
    standing = await limiter.enter(principal, NOW)
    limiter.leave(standing, 0, NOW)
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
    standing = await limiter.enter(principal, NOW)
    if principal.tokens_per_minute:
        limiter.leave(standing, 7, NOW)
    await _settled(limiter)
    error = await refused(limiter, principal)
    assert (error.status, error.code, error.type) == (429, "rate_limit_exceeded", kind)
    assert said in error.message
    assert 1 <= int(error.headers["retry-after"]) <= 121


async def _settled(limiter: Limiter) -> None:
    """Wait until Redis was told of the requests that left."""
    if isinstance(limiter, Redis):
        await until(lambda: not limiter._leaving)


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
def test_the_headers_of_a_standing(
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
        limiter, principal, now = InMemoryLimiter(), Principal(id="k", tokens_per_minute=300), NOW
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
        limiter, principal, now = InMemoryLimiter(), Principal(id="k", tokens_per_minute=10**6), NOW
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
    limiter, principal = InMemoryLimiter(), Principal(id="k", requests_per_minute=6)
    assert len(await entered(limiter, principal, 9, NOW + 45)) == 6
    let_in = len(await entered(limiter, principal, 9, NOW + 45 + gap))
    assert let_in <= 6
    assert (let_in == 6) == (gap >= 119)  # a sliding window counts for two minutes, ever less


async def test_memory_forgets_what_counts_no_more_and_nothing_else() -> None:
    limiter = InMemoryLimiter()
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


@pytest.fixture
async def gateways(server: RedisServer) -> AsyncIterator[tuple[Redis, Redis]]:
    made = Redis(server.url, "open", monotonic), Redis(server.url, "open", monotonic)
    for one in made:
        await one.open()
    yield made
    for one in made:
        await one.close()


@pytest.mark.parametrize(
    "principal",
    [Principal(id="k", requests_per_minute=40), Principal(id="k", max_in_flight=40)],
    ids=["requests", "in flight"],
)
async def test_two_gateways_on_one_redis_share_a_limit_exactly(
    gateways: tuple[Redis, Redis], principal: Principal, unhurried: None
) -> None:
    one, two = await asyncio.gather(*(entered(gateway, principal, 50) for gateway in gateways))
    assert len(one) + len(two) == 40
    assert one
    assert two


async def test_tokens_debited_by_one_gateway_are_missing_at_the_other(
    gateways: tuple[Redis, Redis], unhurried: None
) -> None:
    principal = Principal(id="k", tokens_per_minute=100)
    gateways[0].leave(await gateways[0].enter(principal, NOW), 100, NOW)
    await _settled(gateways[0])
    assert (await refused(gateways[1], principal)).type == "tokens"


async def test_the_places_of_a_gateway_that_was_killed_come_back(
    gateways: tuple[Redis, Redis], monkeypatch: pytest.MonkeyPatch, unhurried: None
) -> None:
    monkeypatch.setattr(in_redis, "LEASE", 400)
    killed, living = gateways
    principal = Principal(id="k", max_in_flight=2)
    await killed.enter(principal, NOW)
    await living.enter(principal, NOW)
    await refused(living, principal)
    for _ in range(3):
        await asyncio.sleep(0.15)
        await living.renew(NOW)
    assert len(await entered(living, principal, 5)) == 1


async def test_the_places_of_a_gateway_that_lives_are_renewed_even_if_redis_lost_them(
    server: RedisServer, gateways: tuple[Redis, Redis], monkeypatch: pytest.MonkeyPatch, unhurried: None
) -> None:
    monkeypatch.setattr(in_redis, "LEASE", 300)
    principal = Principal(id="k", max_in_flight=1)
    standing = await gateways[0].enter(principal, NOW)
    redis.Redis(port=server.port).flushall()
    for _ in range(4):
        await gateways[0].renew(NOW)
        await asyncio.sleep(0.1)
        await refused(gateways[1], principal)
    gateways[0].leave(standing, 0, NOW)
    await _settled(gateways[0])
    await gateways[0].renew(NOW)
    await gateways[1].enter(principal, NOW)


@pytest.mark.parametrize("steps", range(12))
async def test_a_request_cancelled_on_entry_keeps_no_place(
    server: RedisServer, gateways: tuple[Redis, Redis], steps: int
) -> None:
    principal = Principal(id="k", max_in_flight=1)
    entering = asyncio.ensure_future(gateways[0].enter(principal, NOW))
    for _ in range(steps):
        await asyncio.sleep(0.0001)
    if entering.cancel():
        await asyncio.gather(entering, return_exceptions=True)
    else:
        gateways[0].leave(await entering, 0, NOW)
    await _settled(gateways[0])
    await gateways[1].enter(principal, NOW)


async def test_a_killed_redis_lets_requests_in_uncounted_and_counts_again_once_it_is_back(
    server: RedisServer, gateways: tuple[Redis, Redis], caplog: pytest.LogCaptureFixture
) -> None:
    limiter, principal = gateways[0], Principal(id="k", requests_per_minute=1)
    await limiter.enter(principal, NOW)
    server.kill()
    with caplog.at_level(logging.INFO, "pointsman"):
        for _ in range(20):
            limiter.leave(await limiter.enter(principal, NOW), 7, NOW)
        assert (limiter.up, limiter.unchecked) == (False, 20)
        server.start()
        await limiter.enter(principal, NOW + 0.5)  # too early to ask
        assert (limiter.up, limiter.unchecked) == (False, 21)
        assert figures(await limiter.enter(principal, NOW + 2))["x-ratelimit-remaining-requests"] == "0"
        assert limiter.up
        await refused(limiter, principal, NOW + 2)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("limits: Redis does not answer, requests are let in unchecked: ")
    assert said[1] == "limits: Redis answers again"


async def test_a_killed_redis_refuses_where_it_is_told_to_until_it_is_back(server: RedisServer) -> None:
    limiter, principal = Redis(server.url, "closed", monotonic), Principal(id="k", requests_per_minute=1)
    server.kill()
    for _ in range(5):
        with pytest.raises(Unavailable) as caught:
            await limiter.enter(principal, NOW)
        assert caught.value.headers == {"retry-after": "1"}
    assert (limiter.up, limiter.unchecked) == (False, 0)
    await limiter.enter(Principal(id="free"), NOW)  # there is nothing to count
    server.start()
    assert len(await entered(limiter, principal, 1, NOW + 2)) == 1
    await limiter.close()


async def test_a_redis_that_hangs_costs_the_deadline_a_few_times_and_then_nothing(
    server: RedisServer, gateways: tuple[Redis, Redis]
) -> None:
    limiter, principal = gateways[0], Principal(id="k", requests_per_minute=1000, max_in_flight=9)
    held = await limiter.enter(principal, NOW)
    server.signal(signal.SIGSTOP)
    took = []
    for _ in range(20):
        began = monotonic()
        await limiter.enter(principal, NOW)
        took.append(monotonic() - began)
    assert all(0.04 < one < 0.2 for one in took[:3])
    assert max(took[3:]) < 0.02
    began = monotonic()
    limiter.leave(held, 7, NOW)
    assert monotonic() - began < 0.02
    server.signal(signal.SIGCONT)
    for name in ("a", "b", "c"):  # and nobody gets the late answers
        said = figures(await limiter.enter(Principal(id=name, requests_per_minute=7), NOW + 2))
        assert said["x-ratelimit-remaining-requests"] == "6"
    assert limiter.up


async def test_a_redis_that_hangs_holds_the_start_up_no_longer_than_a_second(server: RedisServer) -> None:
    server.signal(signal.SIGSTOP)
    limiter, began = Redis(server.url, "open", monotonic), monotonic()
    await limiter.open()
    assert monotonic() - began < 1.5
    await entered(limiter, Principal(id="k", requests_per_minute=1), 3)
    assert limiter.unchecked == 3
    await limiter.close()


async def test_a_burst_while_redis_hangs_waits_little_longer_than_one_deadline(
    server: RedisServer, gateways: tuple[Redis, Redis]
) -> None:
    await gateways[0].enter(Principal(id="k", requests_per_minute=1000), NOW)
    server.signal(signal.SIGSTOP)
    began, tasks = monotonic(), len(asyncio.all_tasks())
    standings = await entered(gateways[0], Principal(id="k", requests_per_minute=1000), 500)
    assert monotonic() - began < 0.4
    assert len(standings) == gateways[0].unchecked == 500
    await until(lambda: len(asyncio.all_tasks()) == tasks)  # no question is left hanging
    server.signal(signal.SIGCONT)


async def test_a_cluster_counts_all_three_limits_of_a_key(tmp_path: Path, unhurried: None) -> None:
    with RedisServer(tmp_path, cluster=True) as server:
        limiter = Redis(f"redis+cluster://127.0.0.1:{server.port}", "open", monotonic)
        await limiter.open()
        assert len(await entered(limiter, ALL, 5)) == 2
        standing = await limiter.enter(Principal(id="other", tokens_per_minute=10), NOW)
        limiter.leave(standing, 10, NOW)
        await _settled(limiter)
        await refused(limiter, Principal(id="other", tokens_per_minute=10))
        assert limiter.up
        await limiter.close()


def test_used_is_the_current_window_and_the_share_of_the_previous_one() -> None:
    assert Quota(10, 7, 30.0, 2, 90.0).used == floor(3.5) + 2


async def test_it_is_known_whether_redis_answers_although_no_request_asks(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_redis, "RETRY_INTERVAL", 0.02)
    limiter = Redis(server.url, "open", monotonic)
    await limiter.open()
    looking = asyncio.ensure_future(limiter.run())
    server.kill()
    await until(lambda: not limiter.up)
    server.start()
    await until(lambda: limiter.up)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await limiter.close()
