"""What requests say of the arm that they were drawn for: whoever answered, and however they ended."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from gateway import config
from gateway.experiments.record import Record
from gateway.experiments.statistics.arms import Split
from gateway.experiments.statistics.means import UNANSWERED
from gateway.experiments.statistics.scaled import scaled
from tests.support.clock import Clock
from tests.support.engine_answers import FAILED, WRONG
from tests.support.experiments import WHOLE_CONTROL, WHOLE_TREATMENT, trial
from tests.support.harness import (
    ANSWER,
    CHAT,
    STREAM,
    Asked,
    Script,
    asking,
    hangs,
    head,
    leave,
    says,
    streamed,
    until,
    whole,
)

GOOD, BAD = says(whole(ANSWER)), says(whole(FAILED, "500 Internal Server Error"))
STREAMS = says(streamed(*STREAM))
STREAMED = CHAT | {"stream": True}
ONCE = config.RetriesConfig(attempts=1)


async def cut_stream(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Break off before the first event."""
    writer.write(head())
    await writer.drain()
    writer.close()
    raise ConnectionError


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    return {"experiments": config.ExperimentsConfig(file=str(tmp_path / "e.sqlite3"))}


def said(record: Record, *events: str) -> dict[str, tuple[int, int]]:
    """Return how often each event was counted in either arm."""
    splits = {event: Split() for event in events}
    for event in events:
        for epoch in record.epochs:
            splits[event] += epoch.split("event", event)
    return {event: (split.control, split.treatment) for event, split in splits.items()}


async def test_an_answer_is_counted_with_its_times_in_its_arm_and_bucket(kept: Any) -> None:
    async with trial(STREAMS, STREAMS, **kept) as made:
        for number in range(8):
            turns = [{"role": "user", "content": f"question {number}"}]
            for _ in range(2):
                await made.front.post(STREAMED | {"messages": turns})
        record = await made.recorded()
    (epoch,) = record.mixed
    n, units = epoch.split("n"), epoch.split("unit")
    assert (n.total, units.total) == (16, 8)
    assert n == Split(2 * units.control, 2 * units.treatment)
    for metric in ("ttft", "itl", "e2e"):
        for arm, count in (("control", n.control), ("treatment", n.treatment)):
            buckets = epoch.buckets("mean", metric, arm)
            assert sum(sums.n for sums in buckets.values()) == count
            assert all((bucket < epoch.note.buckets) is (arm == "treatment") for bucket in buckets)
            assert epoch.histogram(metric, arm).n == count
    assert record.words("served", "control") == ({"old": n.control} if n.control else {})


@pytest.mark.parametrize(
    ("control", "treatment", "body", "events", "answered"),
    [
        (GOOD, GOOD, CHAT, {"error": (0, 0), "seen_error": (0, 0), "unfinished": (0, 0)}, 200),
        (GOOD, BAD, CHAT, {"error": (0, 1), "seen_error": (0, 0)}, 200),
        (BAD, GOOD, CHAT, {"error": (0, 0), "seen_error": (0, 0)}, 200),
        (BAD, BAD, CHAT, {"error": (0, 0), "seen_error": (0, 1)}, 502),
        (says(b"not HTTP"), says(b"not HTTP"), CHAT, {"error": (0, 1), "seen_error": (0, 1)}, 502),
        (GOOD, says(whole(WRONG, "400 Bad Request")), CHAT, {"error": (0, 0), "refused": (0, 1)}, 400),
        (STREAMS, cut_stream, STREAMED, {"error": (0, 1), "seen_error": (0, 0)}, 200),
    ],
    ids=["good", "rescued", "not asked", "both alike", "both broken", "refused", "broken stream"],
)  # fmt: skip
async def test_an_error_is_the_arms_first_attempts_by_the_engines_fault_whoever_rescued_it(
    control: Script, treatment: Script, body: Any, events: dict[str, tuple[int, int]], answered: int, kept: Any
) -> None:
    async with trial(control, treatment, weights=WHOLE_TREATMENT, **kept) as made:
        assert (await made.front.post(body)).status_code == answered
        record = await made.recorded()
    assert said(record, *events) == events
    assert record.total("n", "treatment") == 1


async def test_a_request_that_the_other_arm_answered_counts_where_it_was_drawn(kept: Any) -> None:
    async with trial(STREAMS, BAD, weights=WHOLE_TREATMENT, **kept) as made:
        await made.front.post(STREAMED)
        record = await made.recorded()
    assert record.total("crossed", "treatment") == 1
    assert record.words("served", "treatment") == {"old": 1}
    (epoch,) = record.epochs
    assert epoch.histogram("ttft", "treatment").n == 1
    assert epoch.histogram("ttft", "control").n == 0


async def test_a_client_that_left_before_its_first_token_waited_at_least_so_long(kept: Any) -> None:
    async with trial(hangs(), hangs(), weights=WHOLE_CONTROL, **kept) as made:
        async with asking(made.front, STREAMED) as task:
            await until(lambda: made.control.asked)
            await leave(task)
        record = await made.recorded()
    (epoch,) = record.epochs
    assert said(record, "left", "error") == {"left": (1, 0), "error": (0, 0)}
    histogram = epoch.histogram("ttft", "control")
    assert (sum(histogram.left.values()), sum(histogram.done.values()), histogram.failed) == (1, 0, 0)


async def test_a_failure_is_an_endless_time_and_a_long_one_in_the_mean(kept: Any) -> None:
    async with trial(BAD, BAD, weights=WHOLE_CONTROL, retries=ONCE, **kept) as made:
        await made.front.post(STREAMED)
        record = await made.recorded()
    (epoch,) = record.epochs
    assert [epoch.histogram(metric, "control").failed for metric in ("ttft", "e2e")] == [1, 1]
    (sums,) = epoch.buckets("mean", "ttft", "control").values()
    assert sums.y == scaled(math.log(UNANSWERED))


async def test_a_first_token_after_the_limit_is_late(kept: Any) -> None:
    clock, go_on = Clock(), asyncio.Event()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(streamed(*STREAM))
        await writer.drain()

    async with trial(slow, slow, clock, weights=WHOLE_CONTROL, slo_ttft=2.0, **kept) as made:
        for wait in (1.0, 3.0):
            go_on.clear()
            async with asking(made.front, STREAMED) as task:
                await until(lambda: made.control.asked)
                clock.now += wait
                go_on.set()
                await task
            made.control.asked.clear()
        assert said(await made.recorded(), "late") == {"late": (1, 0)}


async def test_an_event_counts_once_for_its_unit_and_each_time_beside(kept: Any) -> None:
    async with trial(GOOD, BAD, weights=WHOLE_TREATMENT, **kept) as made:
        for number in (1, 1, 1, 2):
            await made.front.post(CHAT | {"messages": [{"role": "user", "content": f"{number}"}]})
        record = await made.recorded()
    assert record.total("event", "error", "treatment") == 4
    assert record.total("first", "error", "treatment") == 2


async def test_where_each_request_is_a_unit_all_of_them_count(kept: Any) -> None:
    async with trial(GOOD, BAD, weights=WHOLE_TREATMENT, unit="request", **kept) as made:
        for _ in range(3):
            await made.front.post(CHAT)
        record = await made.recorded()
    assert record.total("first", "error", "treatment") == record.total("unit", "treatment") == 3


@pytest.mark.parametrize(
    ("more", "headers", "why"),
    [({}, {"x-pointsman-engine": "vllm"}, "pin"), ({"unit": "session"}, {}, "session")],
)
async def test_what_is_kept_out_is_counted_with_its_reason(more: Any, headers: Any, why: str, kept: Any) -> None:
    async with trial(GOOD, GOOD, **more, **kept) as made:
        await made.front.client.post("/v1/chat/completions", json=CHAT, headers=headers)
        await made.front.post({"model": "tiny", "prompt": "hi"}, "/tokenize")
        record = await made.recorded()
    assert record.words("excluded") == {why: 1, "no answer": 1}
    assert record.total("n", "control") + record.total("n", "treatment") == 0


async def test_a_cached_answer_and_a_shared_one_are_kept_out(kept: Any) -> None:
    cache = config.CacheConfig(store="memory")
    async with trial(STREAMS, STREAMS, weights=WHOLE_CONTROL, cache=cache, **kept) as made:
        for _ in range(3):
            await made.front.post(STREAMED)
        record = await made.recorded()
    assert record.words("excluded") == {"cache": 2}
    assert record.total("n", "control") == 1


async def test_an_arm_whose_deployments_cannot_be_asked_has_failed(kept: Any) -> None:
    async with trial(GOOD, GOOD, weights=WHOLE_TREATMENT, **kept) as made:
        made.front.services.catalog.endpoints[1].mark_down("gone")
        made.treatment.ailing |= {"/health"}
        assert (await made.front.post(CHAT)).status_code == 200
        record = await made.recorded()
    assert said(record, "error", "seen_error") == {"error": (0, 1), "seen_error": (0, 0)}
