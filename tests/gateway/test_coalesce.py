"""Single flight over real sockets: identical requests share one upstream call, however each of them ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway import config
from tests.support.caching import FULL, MEMORY, STREAMED, crowd, gated, given_back, joined, keeping, plain, said
from tests.support.clock import Clock, pass_until
from tests.support.harness import (
    CHAT,
    END,
    STREAM,
    Asked,
    Gateway,
    Script,
    begun,
    chunk,
    events,
    hangs,
    head,
    piece,
    says,
    settled,
    streamed,
    until,
)
from tests.support.pairs import pair
from tests.support.raw_client import Client, connected
from tests.support.scrape import scraped

ONCE = config.RetriesConfig(attempts=1)


async def alone(port: int, body: dict[str, Any]) -> httpx.Response:
    """Ask on a connection of its own; httpx takes 20 s for a thousand of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(data) + data)
    start, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = start.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    if headers.pop("transfer-encoding", ""):
        rest = unchunked(rest)
    return httpx.Response(int(status.split()[1]), headers=headers, content=rest)


def unchunked(data: bytes) -> bytes:
    """Return what HTTP's chunks hold."""
    held = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        held += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return held


@asynccontextmanager
async def reading(front: Gateway, body: dict[str, Any] = STREAMED) -> AsyncIterator[AsyncIterator[bytes]]:
    """Ask for a stream; give what comes, the beginning of which has been read and is left out."""
    async with front.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        parts = answer.aiter_bytes()
        await anext(parts)
        yield parts


async def everybody(front: Gateway, count: int) -> None:
    """Wait until so many requests read along."""
    assert front.services.cache is not None
    flights = front.services.cache.flights
    await until(lambda: sum(flight.readers for flight in flights.flying) == count)


@pytest.mark.parametrize(
    ("wholes", "streams", "calls"), [(1000, 0, 1), (0, 1000, 1), (500, 500, 2)], ids=["whole", "streamed", "both"]
)
async def test_a_thousand_identical_requests_make_one_upstream_call_each_kind(
    wholes: int, streams: int, calls: int
) -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate)) as (front, behind):
        bodies = [CHAT] * wholes + [STREAMED] * streams
        asking = [asyncio.ensure_future(alone(front.port, body)) for body in bodies]
        await until(lambda: sum(one.cache != "" for one in front.services.sweep.open) >= 1000)
        gate.set()
        told = await asyncio.gather(*asking)
        assert len(behind.asked) == calls
    texts = [(joined(plain(answer)), body is STREAMED) for answer, body in zip(told, bodies, strict=True)]
    assert all(text == (*FULL[:3], streams) for text, streams in texts)
    words = [said(answer) for answer in told]
    assert (words.count("miss"), words.count("coalesced")) == (calls, 1000 - calls)
    assert len({answer.headers["x-request-id"] for answer in told}) == 1000


async def test_who_comes_late_gets_the_past_and_then_the_rest() -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate)) as (front, behind), reading(front) as leader:
        late = asyncio.ensure_future(front.post(STREAMED))
        await everybody(front, 2)
        gate.set()
        answer = await late
        rest = b"".join([part async for part in leader])
    assert len(behind.asked) == 1
    assert said(answer) == "coalesced"
    assert (answer.headers["x-pointsman-engine"], "age" in answer.headers) == ("cache", False)
    assert joined(plain(answer)) == FULL
    assert rest.endswith(b"[DONE]\n\n")


async def test_a_leader_that_leaves_does_not_end_what_others_read() -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate)) as (front, behind):
        async with reading(front):
            late = asyncio.ensure_future(front.post(STREAMED))
            await everybody(front, 2)
        await everybody(front, 1)
        gate.set()
        assert joined(plain(await late)) == FULL
        assert (len(behind.asked), behind.left) == (1, 0)
        assert said(await front.post(STREAMED)) == "hit"


@pytest.mark.parametrize("streaming", [True, False])
async def test_when_the_last_reader_has_left_the_engine_is_stopped_and_no_time_need_pass(streaming: bool) -> None:
    script = hangs(head() + piece(STREAM[0]) if streaming else b"")
    async with keeping(script, clock=Clock()) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=STREAMED)) for _ in range(3)]
        await everybody(front, 3)
        for one in asking[:2]:
            one.cancel()
        await everybody(front, 1)
        await settled()
        assert behind.left == 0
        asking[2].cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await until(lambda: behind.left == 1)
        await given_back(front)
        figures = await scraped(front.client)
    assert figures.sum("pointsman_requests_total", outcome="client_left") == 3
    assert len(behind.asked) == 1


@pytest.mark.parametrize(("body", "kind"), [(CHAT, "whole"), (STREAMED, "streamed")])
async def test_a_leader_that_fails_lets_a_follower_lead(body: dict[str, Any], kind: str) -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate, "500 x"), retries=ONCE) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=body)) for _ in range(20)]
        await everybody(front, 20)
        gate.set()
        told = await asyncio.gather(*asking)
        await given_back(front)
        figures = await scraped(front.client)
    assert sorted(answer.status_code for answer in told) == [200] * 19 + [502]
    assert len(behind.asked) == 2
    (failed,) = (answer for answer in told if answer.status_code == 502)
    assert (said(failed), failed.headers["x-pointsman-engine"]) == ("miss", "vllm")
    assert figures.sum("pointsman_requests_total", engine="vllm", outcome="engine_error") == 1
    assert figures.sum("pointsman_requests_total", engine="vllm", outcome="ok") == 1
    assert figures.sum("pointsman_requests_total", engine="cache", outcome="ok") == 18
    assert figures.sum("pointsman_cache_requests_total", result="coalesced") == 18
    assert figures.sum("pointsman_retries_total") == 0


async def test_a_request_that_is_wrong_is_wrong_for_all_and_asked_once() -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate, "400 x")) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT)) for _ in range(20)]
        await everybody(front, 20)
        gate.set()
        told = await asyncio.gather(*asking)
    assert {(answer.status_code, answer.json()["error"]["message"]) for answer in told} == {(400, "no such thing")}
    assert len(behind.asked) == 1


async def test_a_stream_that_breaks_is_broken_for_all_its_readers() -> None:
    gate = asyncio.Event()

    async def breaks(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]) + piece(STREAM[1]))
        await gate.wait()
        raise ConnectionError

    async with keeping(breaks) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=STREAMED)) for _ in range(3)]
        await everybody(front, 3)
        await until(lambda: begun(front) == 3)
        gate.set()
        told = [events((await one).content) for one in asking]
        assert front.services.cache is not None
        assert front.services.cache.store.held().entries == 0
    for one in told:
        assert one[-1]["error"]["code"] == "engine_error"
        assert "data: [DONE]" not in one
    assert len(behind.asked) == 1


async def test_retries_of_a_flight_are_counted_once_and_nobody_sees_them() -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate, "500 x")) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT)) for _ in range(10)]
        await everybody(front, 10)
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {200}
        await given_back(front)
        figures = await scraped(front.client)
    assert len(behind.asked) == 2
    assert figures.sum("pointsman_retries_total", cause="engine_error") == 1
    assert figures.sum("pointsman_overhead_seconds_count", stage="queue") == 1
    assert figures.sum("pointsman_overhead_seconds_count", stage="first_byte") == 1


async def test_of_coalesced_streams_only_the_leaders_is_a_sample_of_the_engines_latency() -> None:
    clock = Clock()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await everybody(front, 5)
        clock.now += 0.25
        writer.write(head() + piece(STREAM[0]))
        await until(lambda: begun(front) == 5)
        clock.now += 0.125
        writer.write(b"".join(piece(one) for one in STREAM[1:]) + END)
        await writer.drain()

    async with keeping(slow, clock=clock) as (front, _), crowd(front) as client:
        await asyncio.gather(*(client.post("/v1/chat/completions", json=STREAMED) for _ in range(5)))
        await given_back(front)
        figures = await scraped(front.client)
    first, each = "gen_ai_server_time_to_first_token_seconds", "gen_ai_server_time_per_output_token_seconds"
    assert (figures.sum(f"{first}_count"), figures.sum(f"{each}_count")) == (1, 1)
    assert figures.sum(f"{first}_sum") == 0.25
    assert figures.sum(f"{each}_sum") == 0.125


async def test_a_slow_reader_holds_nobody_up_and_gets_all_of_it() -> None:
    long = [chunk({"content": "x" * 1000}) for _ in range(3000)]
    gate = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]))
        await gate.wait()
        writer.write(b"".join(piece(one) for one in (*long, *STREAM[1:])) + END)
        await writer.drain()

    async with keeping(script) as (front, behind), reading(front) as slow:
        quick = asyncio.ensure_future(front.post(STREAMED))
        await everybody(front, 2)
        gate.set()
        answer = await quick
        rest = b"".join([part async for part in slow])
    assert len(joined(plain(answer))[0]) == 3_000_000 + len("Grüße dir")
    assert rest.count(b"data: ") == len(long) + 4
    assert len(behind.asked) == 1


# --- time, and its end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "times"),
    [
        (hangs(), config.TimeoutsConfig(first_event=5, keep_alive=0.1)),
        (hangs(head() + piece(STREAM[0])), config.TimeoutsConfig(between_events=5, keep_alive=0.1)),
        (hangs(head() + piece(STREAM[0])), config.TimeoutsConfig(total=5, keep_alive=0.1)),
    ],
    ids=["first event", "between events", "total"],
)
async def test_all_who_read_are_told_of_an_engine_that_is_silent(script: Script, times: config.TimeoutsConfig) -> None:
    clock = Clock()
    async with keeping(script, clock=clock, timeouts=times, retries=ONCE) as (front, behind), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(front.port)) for _ in range(5)]
        for client in clients:
            client.send(STREAMED)
        await everybody(front, 5)
        await settled()  # what the engine says has come
        clock.now += 1
        for client in clients:
            await client.head()
            while await client.chunk() != b": keep-alive\n\n":
                pass
        ends = [asyncio.ensure_future(end(client)) for client in clients]
        await pass_until(clock, lambda: all(one.done() for one in ends))  # one of those without an event asks again
        told = [await one for one in ends]
        await until(lambda: behind.left == len(behind.asked))
    assert {one["error"]["code"] for one in told} == {"engine_timeout"}
    assert len(behind.asked) <= 2


async def end(client: Client) -> Any:
    """Read a stream to its end; return its last event."""
    last = b""
    while part := await client.chunk():
        last = part
    return events(last)[-1]


async def test_whoever_waits_is_told_that_the_connection_lives_though_nobody_has_answered() -> None:
    gate = asyncio.Event()

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(streamed(*STREAM))
        await writer.drain()

    times = config.TimeoutsConfig(keep_alive=0.05)
    async with keeping(late, timeouts=times) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=STREAMED)) for _ in range(3)]
        await until(lambda: [one.status for one in front.services.sweep.open].count(200) == 3)
        gate.set()
        told = await asyncio.gather(*asking)
    assert sorted(map(said, told)) == ["coalesced", "coalesced", "miss"]
    for answer in told:
        assert answer.content.startswith(b": keep-alive\n\n")
        assert events(answer.content)[-1] == "data: [DONE]"
    assert len(behind.asked) == 1


async def test_the_gateways_end_is_the_flights_too_and_nobody_asks_again() -> None:
    async with keeping(hangs(head() + piece(STREAM[0]))) as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=STREAMED)) for _ in range(3)]
        waiting = [asyncio.ensure_future(client.post("/v1/chat/completions", json=CHAT)) for _ in range(3)]
        await until(lambda: len(behind.asked) == 2)
        await everybody(front, 6)
        await until(lambda: begun(front) == 3)
        front.services.stop()
        streams, wholes = await asyncio.gather(*asking), await asyncio.gather(*waiting)
        await until(lambda: behind.left == 2)
        await given_back(front)
    assert {events(answer.content)[-1]["error"]["code"] for answer in streams} == {"shutting_down"}
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in wholes} == {(503, "shutting_down")}
    assert len(behind.asked) == 2


async def test_nobody_of_a_better_tier_waits_in_the_queue_of_a_lower_one() -> None:
    gate = asyncio.Event()
    async with keeping(gated(gate)) as (front, behind), crowd(front) as client:
        bodies = [CHAT, CHAT | {"service_tier": "flex"}] * 2
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=body)) for body in bodies]
        await everybody(front, 4)
        gate.set()
        await asyncio.gather(*asking)
    assert len(behind.asked) == 2


async def test_a_flight_is_hedged_as_a_request_is() -> None:
    async with pair(hangs(), says(streamed(*STREAM)), ("vllm", "vllm"), hedge_after=0.05, cache=MEMORY) as these:
        async with crowd(these.front) as client:
            told = await asyncio.gather(*(client.post("/v1/chat/completions", json=STREAMED) for _ in range(5)))
        assert {joined(plain(answer))[0] for answer in told} == {"Grüße dir"}
        assert (len(these.first.asked), len(these.second.asked)) == (1, 1)
        await until(lambda: these.first.left == 1)
        await given_back(these.front)
        figures = await scraped(these.front.client)
    assert figures.sum("pointsman_retries_total", deployment="first", cause="hedged") == 1


async def test_choices_that_come_of_several_requests_are_shared_and_kept_as_one_answer() -> None:
    gate = asyncio.Event()
    body = STREAMED | {"n": 2, "seed": 1, "temperature": 1}
    async with keeping(gated(gate), "tgi") as (front, behind), crowd(front) as client:
        asking = [asyncio.ensure_future(client.post("/v1/chat/completions", json=body)) for _ in range(3)]
        await everybody(front, 3)
        gate.set()
        told = await asyncio.gather(*asking)
        again = await front.post(body)
        assert len(behind.asked) == 2
    assert said(again) == "hit"
    for answer in (*told, again):
        text, reasons, usage, done = joined(plain(answer))
        assert (sorted(text), reasons, done) == (sorted("Grüße dir" * 2), ["stop", "stop"], True)
        assert usage == joined(plain(told[0]))[2]
