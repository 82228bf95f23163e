"""Ready flight: identical requests share one upstream answer, and nothing is left behind, however they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from time import process_time

import pytest

from backends.base import Call, Event
from backends.schema import Answer, ChunkChoice, Delta, Usage
from gateway.cache.single_flight import FlightReader, Flights
from gateway.http.errors import EngineFailed, InvalidRequest, PointsmanError, RateLimited, ShuttingDown
from gateway.proxy import parse
from gateway.proxy.sources import Ready
from tests.support.harness import CHAT, until

KEY = b"k"
USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)


def call(number: int = 0) -> Call:
    return parse.chat(json.dumps(CHAT | {"stream": True}).encode(), f"{number:032d}", 1_700_000_000 + number)


def chunk(text: str) -> Answer[ChunkChoice]:
    choice = ChunkChoice(index=0, delta=Delta(content=text), logprobs=None, finish_reason=None)
    return Answer(id="leader", object="chat.completion.chunk", created=1, model="m", choices=[choice])


@dataclass
class Upstream:
    """An engine that a test plays: each `say` is a batch; `end` ends well, `fail` does not."""

    said: asyncio.Queue[Sequence[Event] | PointsmanError] = field(default_factory=asyncio.Queue)
    opened: int = 0
    closed: int = 0
    usage: Usage | None = None
    ended: bool = False
    kept: list[tuple[list[Event], Usage | None]] = field(default_factory=list)

    async def open(self) -> None:
        self.opened += 1

    def say(self, *texts: str) -> None:
        self.said.put_nowait([chunk(text) for text in texts])

    def end(self) -> None:
        self.said.put_nowait(())

    def fail(self, error: PointsmanError) -> None:
        self.said.put_nowait(error)

    async def read(self) -> Sequence[Event]:
        said = await self.said.get()
        if isinstance(said, PointsmanError):
            raise said
        if not said:
            self.usage = USAGE
        return said

    def worked(self) -> Usage | None:
        return self.usage

    def close(self) -> None:
        self.closed += 1

    def keep(self, events: Sequence[Event], usage: Usage | None) -> None:
        self.kept.append((list(events), usage))

    async def join(self, flights: Flights[Upstream], number: int = 0) -> FlightReader[Upstream]:
        return await flights.join(KEY, call(number), self)


@pytest.fixture
async def flights() -> AsyncIterator[Flights[Upstream]]:
    """Every test ends with the tasks that it began with."""
    before = asyncio.all_tasks()
    made: Flights[Upstream] = Flights()
    yield made
    await settle()
    assert made.tasks == 0
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def texts(events: Sequence[Event]) -> str:
    return "".join(event.choices[0].delta.content for event in events if isinstance(event, Answer))


async def rest(reader: FlightReader[Upstream]) -> str:
    """Read to the end, and leave."""
    told = ""
    try:
        while events := await reader.read():
            told += texts(events)
        return told
    finally:
        reader.close()


async def test_readers_share_one_answer_the_past_replayed_and_the_rest_live(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    engine.say("a", "b")
    leader = await engine.join(flights)
    assert texts(await leader.read()) == "ab"
    engine.say("c")
    assert texts(await leader.read()) == "c"
    late = await engine.join(flights, 7)
    assert (leader.is_leader, late.is_leader) == (True, False)
    assert texts(await late.read()) == "abc"
    waiting = asyncio.ensure_future(late.read())
    await settle()
    assert not waiting.done()
    engine.say("d")
    assert texts(await waiting) == "d"
    engine.end()
    assert await rest(leader) == "d"
    assert await rest(late) == ""
    assert leader.usage == late.usage == USAGE
    assert (engine.opened, engine.closed) == (1, 1)
    assert [(texts(events), usage) for events, usage in engine.kept] == [("abcd", USAGE)]


async def test_a_follower_gets_the_chunks_under_its_own_head(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    engine.said.put_nowait([chunk("a"), {"id": "leader", "created": 1, "model": "m", "choices": [], "mood": "good"}])
    leader = await engine.join(flights)
    follower = await engine.join(flights, 7)
    whose = call(7)
    one, other = await follower.read()
    assert isinstance(one, Answer)
    assert isinstance(other, dict)
    assert (one.id, one.created, one.model) == (whose.id, whose.created, whose.model)
    assert other == {"id": whose.id, "created": whose.created, "model": whose.model, "choices": [], "mood": "good"}
    (first, _) = await leader.read()
    assert isinstance(first, Answer)
    assert first.id == "leader"
    leader.close()
    follower.close()


async def test_a_source_that_says_its_end_with_the_last_chunks_says_it_to_all(flights: Flights[Upstream]) -> None:
    engine = Upstream(usage=USAGE, ended=True)
    engine.say("a")
    leader, follower = await asyncio.gather(engine.join(flights), engine.join(flights, 1))
    for reader in (leader, follower):
        assert texts(await reader.read()) == "a"
        assert reader.ended
        assert reader.usage == USAGE
        reader.close()


async def test_a_thousand_identical_requests_make_one_upstream_call_at_little_cost(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    began = process_time()
    joining = [asyncio.ensure_future(engine.join(flights, number)) for number in range(1000)]
    await settle()
    engine.say("0")
    reading = [asyncio.ensure_future(rest(reader)) for reader in await asyncio.gather(*joining)]
    for number in range(1, 20):
        engine.say(str(number % 10))
        await settle()
    engine.end()
    assert set(await asyncio.gather(*reading)) == {"01234567890123456789"}
    assert (engine.opened, engine.closed, len(engine.kept)) == (1, 1, 1)
    assert process_time() - began < 2.0


async def test_a_flight_goes_on_when_its_leader_leaves_and_ends_with_its_last_reader(
    flights: Flights[Upstream],
) -> None:
    engine = Upstream()
    engine.say("a")
    leader, follower = await asyncio.gather(engine.join(flights), engine.join(flights, 1))
    leader.close()
    leader.close()  # twice counts once
    engine.say("b")
    await settle()
    assert texts(await follower.read()) == "ab"
    assert engine.closed == 0
    follower.close()
    await settle()
    assert (engine.closed, engine.kept) == (1, [])


async def test_whoever_comes_after_the_last_has_left_leads_anew(flights: Flights[Upstream]) -> None:
    engine, other = Upstream(), Upstream()
    engine.say("a")
    (await engine.join(flights)).close()
    other.say("b")
    other.end()
    reader = await other.join(flights)  # the first flight's task has not even ended
    assert reader.is_leader
    assert await rest(reader) == "b"
    await settle()


async def test_requests_that_leave_while_they_wait_end_the_flight(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    joining = [asyncio.ensure_future(engine.join(flights, number)) for number in range(3)]
    await settle()
    for one in joining:
        one.cancel()
    await asyncio.gather(*joining, return_exceptions=True)
    await settle()
    assert (engine.opened, engine.closed, flights.tasks) == (1, 1, 0)


async def test_a_request_that_leaves_before_its_flight_has_begun_asks_nothing(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    joining = asyncio.ensure_future(engine.join(flights))
    asyncio.get_running_loop().call_soon(joining.cancel)
    await asyncio.gather(joining, return_exceptions=True)
    await settle()
    assert (engine.opened, engine.closed) in ((0, 0), (1, 1))


async def test_a_leader_that_fails_first_lets_exactly_one_follower_lead(flights: Flights[Upstream]) -> None:
    broken, sound = Upstream(), Upstream()
    leading = asyncio.ensure_future(broken.join(flights))
    await settle()
    following = [asyncio.ensure_future(sound.join(flights, number)) for number in range(1, 50)]
    await settle()
    broken.fail(EngineFailed("It broke."))
    sound.say("a")
    sound.end()
    with pytest.raises(EngineFailed):
        await leading
    readers = await asyncio.gather(*following)
    assert [await rest(reader) for reader in readers] == ["a"] * 49
    assert sum(reader.is_leader for reader in readers) == 1
    assert (broken.opened, sound.opened) == (1, 1)
    assert broken.kept == []


async def test_when_the_second_leader_fails_too_all_are_told(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    joining = [asyncio.ensure_future(engine.join(flights, number)) for number in range(50)]
    await settle()
    engine.fail(EngineFailed("It broke."))
    engine.fail(EngineFailed("It broke again."))
    outcomes = await asyncio.gather(*joining, return_exceptions=True)
    assert all(isinstance(outcome, EngineFailed) for outcome in outcomes)
    assert sorted({str(outcome) for outcome in outcomes}) == ["It broke again.", "It broke."]
    assert len({id(outcome) for outcome in outcomes}) == 2
    assert engine.opened == 2


@pytest.mark.parametrize(("error", "leaders"), [
    (InvalidRequest("No."), 1), (ShuttingDown("Bye."), 1), (RateLimited("Later."), 2), (EngineFailed("It broke."), 2),
])  # fmt: skip
async def test_a_fault_of_the_requests_own_is_told_to_all_at_once(
    flights: Flights[Upstream], error: PointsmanError, leaders: int
) -> None:
    engine = Upstream()
    joining = [asyncio.ensure_future(engine.join(flights, number)) for number in range(5)]
    await settle()
    engine.fail(error)
    engine.fail(error)
    assert await asyncio.gather(*joining, return_exceptions=True) == [error] * 5
    assert engine.opened == leaders


async def test_an_answer_that_breaks_is_broken_for_all_who_had_begun_and_kept_by_nobody(
    flights: Flights[Upstream],
) -> None:
    engine, sound = Upstream(), Upstream()
    engine.say("a")
    leader, follower = await asyncio.gather(engine.join(flights), engine.join(flights, 1))
    assert texts(await follower.read()) == "a"
    error = EngineFailed("It broke.")
    engine.fail(error)
    for reader in (leader, follower):
        with pytest.raises(EngineFailed) as caught:
            await rest(reader)
        assert caught.value is error
    sound.say("b")
    sound.end()
    assert await rest(await sound.join(flights)) == "b"
    assert engine.kept == []


async def test_a_slow_reader_holds_nobody_up_and_reads_the_rest_at_once(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    engine.say("a")
    leader, slow = await asyncio.gather(engine.join(flights), engine.join(flights, 1))
    for text in "bcdef":
        engine.say(text)
    engine.end()
    assert await rest(leader) == "abcdef"
    assert texts(await slow.read()) == "abcdef"
    slow.close()


async def test_it_is_kept_before_anybody_hears_of_the_end(flights: Flights[Upstream]) -> None:
    engine = Upstream(usage=USAGE, ended=True)
    engine.say("a")
    reader = await engine.join(flights)
    assert len(engine.kept) == 1
    reader.close()


async def test_a_shutdown_ends_all_flights_and_tells_their_readers() -> None:
    flights: Flights[Upstream] = Flights()
    engine = Upstream()
    engine.say("a")
    reader = await engine.join(flights)
    await flights.close()
    assert texts(await reader.read()) == "a"
    with pytest.raises(PointsmanError, match="shutting down"):
        await reader.read()
    assert engine.closed == 1


async def test_other_keys_are_other_flights(flights: Flights[Upstream]) -> None:
    one, other = Upstream(), Upstream()
    for engine in (one, other):
        engine.say("a")
        engine.end()
    first = await flights.join(b"1", call(), one)
    second = await flights.join(b"2", call(), other)
    assert first.is_leader
    assert second.is_leader
    assert (await rest(first), await rest(second)) == ("a", "a")


async def test_a_whole_answer_is_one_batch() -> None:
    kept: list[Sequence[Event]] = []

    class Whole(Ready):
        async def open(self) -> None:
            pass

        def keep(self, events: Sequence[Event], _: Usage | None) -> None:
            kept.append(list(events))

    flights: Flights[Whole] = Flights()
    whole = chunk("all of it")
    readers = await asyncio.gather(*(flights.join(KEY, call(number), Whole([whole], USAGE)) for number in range(3)))
    for reader in readers:
        (answer,) = await reader.read()
        assert texts([answer]) == "all of it"
        assert reader.ended
        reader.close()
    assert kept == [[whole]]


async def test_what_is_read_is_there_to_be_asked_about(flights: Flights[Upstream]) -> None:
    engine = Upstream()
    engine.say("a")
    leader, follower = await asyncio.gather(engine.join(flights), engine.join(flights, 1))
    assert leader.source is follower.source is engine
    leader.close()
    follower.close()
    await until(lambda: flights.tasks == 0)
