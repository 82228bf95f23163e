"""Who gets a place, who waits and for how long, who is turned away, and that no place is ever lost."""

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from gateway import config
from gateway.access.principal import Tier
from gateway.http.errors import Unavailable
from gateway.proxy.admission import Admission
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate

Taking = asyncio.Task[Candidate]


def candidate(name: str = "a", max_in_flight: int = 0) -> Candidate:
    row = config.DeploymentConfig(name=name, engine="vllm", url=f"http://{name}", max_in_flight=max_in_flight)
    return Candidate(Endpoint(row, config.BreakerConfig(), 0.0), "m", None)


def admission(in_all: int = 1, queue: int = 8, patience: float = 30.0) -> Admission:
    return Admission(config.AdmissionConfig(max_in_flight=in_all, queue=queue, queue_timeout=patience))


def take(doors: Admission, candidates: Sequence[Candidate], tier: Tier = "priority", new: bool = True) -> Taking:
    return asyncio.create_task(doors.acquire(candidates, tier, new))


async def settle() -> None:
    """Let everybody run who can."""
    for _ in range(6):
        await asyncio.sleep(0)


def leave(doors: Admission, held: Candidate) -> None:
    doors.release(held)
    doors.leave()


async def filled(doors: Admission, candidates: Sequence[Candidate]) -> None:
    for _ in range(doors.bounds.max_in_flight):
        await doors.acquire(candidates, "priority", True)


async def test_no_more_are_in_flight_than_in_all() -> None:
    doors, one = admission(in_all=3), candidate()
    tasks = [take(doors, [one]) for _ in range(5)]
    await settle()
    assert (doors.in_flight, one.endpoint.in_flight, doors.waiting) == (3, 3, 2)
    leave(doors, one)
    await settle()
    assert (doors.in_flight, one.endpoint.in_flight, doors.waiting) == (3, 3, 1)
    assert sum(task.done() for task in tasks) == 4
    tasks[-1].cancel()
    await settle()


async def test_no_more_are_in_flight_at_a_deployment_and_the_next_one_with_room_is_taken() -> None:
    doors, one, two = admission(in_all=100), candidate("a", 2), candidate("b", 1)
    taken = [await doors.acquire([one, two], "priority", True) for _ in range(3)]
    assert taken == [one, one, two]
    task = take(doors, [one, two])
    await settle()
    assert doors.waiting == 1
    leave(doors, two)
    assert await task is two


async def test_a_deployment_without_a_bound_takes_all() -> None:
    doors, one = admission(in_all=1000), candidate("a", 0)
    await filled(doors, [one])
    assert one.endpoint.in_flight == 1000


async def test_who_waits_for_one_deployment_does_not_hold_up_who_waits_for_another() -> None:
    doors, one, two = admission(in_all=100), candidate("a", 1), candidate("b", 1)
    await doors.acquire([one], "priority", True)
    await doors.acquire([two], "priority", True)
    first, second = take(doors, [one]), take(doors, [two])
    await settle()
    leave(doors, two)
    await settle()
    assert (first.done(), second.done()) == (False, True)
    assert await doors.acquire([candidate("c")], "priority", True)
    leave(doors, one)
    assert await first is one


async def test_places_are_given_to_the_better_tier_and_within_it_in_turn() -> None:
    doors, one = admission(in_all=1), candidate()
    await filled(doors, [one])
    order: list[str] = []

    async def asks(name: str, tier: Tier) -> None:
        held = await doors.acquire([one], tier, True)
        order.append(name)
        leave(doors, held)

    tiers: list[Tier] = ["flex", "priority", "flex", "priority", "priority"]
    async with asyncio.TaskGroup() as group:
        for place, tier in enumerate(tiers):
            group.create_task(asks(f"{tier} {place}", tier))
        await settle()
        leave(doors, one)
    assert order == ["priority 1", "priority 3", "priority 4", "flex 0", "flex 2"]


async def test_whoever_comes_as_a_place_frees_up_does_not_overtake_whoever_waits() -> None:
    doors, one = admission(in_all=1), candidate()
    await filled(doors, [one])
    waiting = take(doors, [one], "flex")
    await settle()
    leave(doors, one)  # nobody has run since: the place has been given all the same
    late = take(doors, [one], "priority")
    await settle()
    assert (waiting.done(), late.done()) == (True, False)
    late.cancel()
    await settle()


async def test_a_full_queue_turns_away_the_youngest_of_the_lower_tier() -> None:
    doors, one = admission(in_all=1, queue=2), candidate()
    await filled(doors, [one])
    old, young = take(doors, [one], "flex"), take(doors, [one], "flex")
    await settle()
    urgent = take(doors, [one], "priority")
    await settle()
    assert (old.done(), young.done(), urgent.done()) == (False, True, False)
    with pytest.raises(Unavailable) as raised:
        await young
    assert int(raised.value.headers["retry-after"]) >= 1
    another = take(doors, [one], "flex")
    await settle()
    with pytest.raises(Unavailable):
        await another
    more = take(doors, [one], "priority")
    await settle()
    with pytest.raises(Unavailable):
        await old
    assert (doors.waiting, doors.shed) == (2, 3)
    for task in (urgent, more):
        task.cancel()
    await settle()


async def test_without_a_queue_nobody_waits() -> None:
    doors, one = admission(in_all=1, queue=0), candidate()
    await filled(doors, [one])
    with pytest.raises(Unavailable):
        await doors.acquire([one], "priority", True)
    assert (doors.waiting, doors.shed, doors.in_flight) == (0, 1, 1)


async def test_nobody_waits_longer_than_the_deadline() -> None:
    doors, one = admission(in_all=1, patience=0.05), candidate()
    await filled(doors, [one])
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable) as raised:
        await doors.acquire([one], "priority", True)
    assert asyncio.get_running_loop().time() - began > 0.04
    assert "retry-after" in raised.value.headers
    assert (doors.waiting, doors.shed, doors.in_flight) == (0, 1, 1)


async def test_a_second_try_needs_a_place_at_a_deployment_and_none_in_all() -> None:
    doors, one = admission(in_all=1), candidate("a", 2)
    await filled(doors, [one])
    assert await doors.acquire([one], "priority", False) is one
    assert (doors.in_flight, one.endpoint.in_flight) == (1, 2)
    again = take(doors, [one], new=False)
    await settle()
    doors.release(one)
    assert await again is one
    assert doors.in_flight == 1


async def test_a_hedge_is_given_what_is_free_now_or_nothing() -> None:
    doors, one, two = admission(in_all=1), candidate("a", 1), candidate("b", 1)
    await filled(doors, [one])
    assert doors.try_acquire([one]) is None
    assert doors.try_acquire([]) is None
    assert doors.try_acquire([one, two]) is two
    assert (doors.in_flight, two.endpoint.in_flight) == (1, 1)


async def test_a_wider_bound_calls_up_those_who_wait() -> None:
    doors, one = admission(in_all=1), candidate()
    await filled(doors, [one])
    tasks = [take(doors, [one]) for _ in range(3)]
    await settle()
    doors.follow(config.AdmissionConfig(max_in_flight=3))
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    tasks[-1].cancel()
    await settle()


@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_who_is_cancelled_as_the_place_comes_leaves_it_to_the_next(steps: int, cancelled_first: bool) -> None:
    doors, one = admission(in_all=1), candidate()
    await filled(doors, [one])
    leaving, staying = take(doors, [one]), take(doors, [one])
    await settle()
    if cancelled_first:
        leaving.cancel()
    leave(doors, one)
    for _ in range(steps):
        await asyncio.sleep(0)
    leaving.cancel()
    await settle()
    if leaving.cancelled():
        assert await staying is one
    else:  # it had it already, and ran
        assert not cancelled_first
        assert not staying.done()
        leave(doors, one)
    await settle()
    assert (doors.in_flight, one.endpoint.in_flight, doors.waiting) == (1, 1, 0)
    assert staying.done()


async def test_who_is_cancelled_as_the_queue_overflows_does_not_harm_who_came() -> None:
    doors, one = admission(in_all=1, queue=1), candidate()
    await filled(doors, [one])
    leaving = take(doors, [one], "flex")
    await settle()
    coming = take(doors, [one], "priority")
    leaving.cancel()  # it has not run yet when the other comes
    await settle()
    assert leaving.cancelled()
    assert not coming.done()
    leave(doors, one)
    assert await coming is one
    assert (doors.in_flight, doors.waiting) == (1, 0)


async def test_the_deadline_and_a_place_in_the_same_moment_lose_nothing() -> None:
    """Which of them wins is left open: whatever the machine makes of these times, each place is given back."""
    doors, one = admission(in_all=1, patience=0.03), candidate()
    for early in (0.0, 0.0005, 0.001):
        held = await doors.acquire([one], "priority", True)
        waiting = take(doors, [one])
        await asyncio.sleep(0.03 - early)
        leave(doors, held)
        (found,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(found, Candidate):
            leave(doors, found)
        assert (doors.in_flight, one.endpoint.in_flight, doors.waiting) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_is_taken_cancelled_and_given_back_all_is_free_in_the_end(seed: int) -> None:
    random = Random(seed)
    doors, candidates = (
        admission(random.randint(1, 4), random.randint(0, 4)),
        [candidate("a", 1), candidate("b", 2), candidate("c", 0)],
    )
    tasks: list[asyncio.Task[None]] = []

    async def request(tier: Tier) -> None:
        """Take a place, and then another, as a retry does; give back whatever it holds, however it ends."""
        began = False
        try:
            for _ in range(random.randint(1, 3)):
                mine = random.sample(candidates, random.randint(1, 2))
                held = await doors.acquire(mine, tier, not began)
                began = True
                try:
                    for _ in range(random.randint(0, 3)):
                        await asyncio.sleep(0)
                finally:
                    doors.release(held)
        except Unavailable:
            pass
        finally:
            if began:
                doors.leave()

    for _ in range(150):
        match random.randint(0, 3):
            case 0 | 1:
                tasks.append(asyncio.create_task(request(random.choice(["priority", "flex"]))))
            case 2 if tasks:
                random.choice(tasks).cancel()
            case _:
                await asyncio.sleep(0)
        assert doors.in_flight <= doors.bounds.max_in_flight
        assert doors.waiting <= doors.bounds.queue
        assert all(0 <= one.endpoint.in_flight <= (one.endpoint.max_in_flight or 99) for one in candidates)
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(one) for one in ended} <= {type(None), asyncio.CancelledError}
    assert (doors.in_flight, doors.waiting) == (0, 0)
    assert [one.endpoint.in_flight for one in candidates] == [0, 0, 0]
