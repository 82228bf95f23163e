"""`[telemetry] tgi_names`: requests counted under TGI's names, with TGI's definitions; and how full a model is."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from backends.loads import Load
from gateway import config
from gateway.observe.saturation import GAUGE
from gateway.observe.tgi_names import DURATION, TgiGauges
from gateway.observe.worker_snapshots import GaugeReading
from tests.support.clock import Clock
from tests.support.engine_answers import FAILED
from tests.support.harness import (
    ANSWER,
    CHAT,
    MODEL,
    STREAM,
    USAGE,
    Gateway,
    Script,
    asking,
    begun,
    checked,
    engine,
    gateway,
    hangs,
    head,
    over,
    piece,
    says,
    until,
    whole,
)
from tests.support.scrape import Figures, scraped

ON = config.TelemetryConfig(tgi_names=True)
ONCE = config.RetriesConfig(attempts=1)
BUSY = {"error": {"message": "busy", "type": "Service Unavailable", "param": None, "code": 503}}


async def ended(front: Gateway) -> Figures:
    """Wait until no request is open, and look."""
    await until(lambda: not front.services.sweep.open)
    return await scraped(front.client)


async def test_they_are_not_there_unless_asked_for() -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        await front.post(CHAT)
        figures = await ended(front)
    assert not [name for name, _ in figures.samples if name.startswith("tgi_")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_good_answer_is_measured_as_tgi_does_it(stream: bool) -> None:
    """The time per token is that of the engine, prefill included, over all tokens; the rest adds up to the whole."""
    clock = Clock()

    async def script(asked: Any, writer: asyncio.StreamWriter) -> None:
        clock.now += 0.25
        writer.write(head() + piece(STREAM[0]) if stream else whole(ANSWER))
        if stream:
            await until(lambda: begun(front))
            clock.now += 0.125
            writer.write(b"".join(piece(one) for one in STREAM[1:]) + b"0\r\n\r\n")
        await writer.drain()

    async with over(script, clock=clock, telemetry=ON) as (front, _):
        await front.post(CHAT | {"stream": stream})
        figures = await ended(front)
    took = 0.375 if stream else 0.25
    assert figures.sum("tgi_request_count") == figures.sum("tgi_request_success") == 1
    assert figures.sum("tgi_request_failure") == 0
    assert figures.sum("tgi_request_duration_sum") == figures.sum("tgi_request_inference_duration_sum") == took
    assert figures.sum("tgi_request_queue_duration_sum") == figures.sum("tgi_request_validation_duration_sum") == 0
    assert figures.sum("tgi_request_mean_time_per_token_duration_sum") == took / USAGE["completion_tokens"]
    assert figures.sum("tgi_request_input_length_sum") == USAGE["prompt_tokens"]
    assert figures.sum("tgi_request_generated_tokens_sum") == USAGE["completion_tokens"]


# what the engine says, what is asked for, TGI's word for it
FAILURES: dict[str, tuple[Script, dict[str, Any], str]] = {
    "a bad request": (says(b""), {"model": MODEL}, "validation"),
    "a busy engine": (says(whole(BUSY, "503 x")), CHAT, "overloaded"),
    "a failed generation": (says(whole(FAILED, "500 x")), CHAT, "generation"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_is_counted_by_tgis_word_and_has_no_duration(failure: str) -> None:
    script, body, word = FAILURES[failure]
    async with over(script, telemetry=ON, retries=ONCE) as (front, _):
        await front.post(body)
        figures = await ended(front)
    assert figures.sum("tgi_request_count") == figures.sum("tgi_request_failure", err=word) == 1
    assert figures.sum("tgi_request_success") == figures.sum("tgi_request_duration_count") == 0


async def test_what_is_no_generation_is_not_counted() -> None:
    """TGI counts requests for text alone: not lists, and no embeddings, which it does not serve."""
    async with over(says(whole({})), telemetry=ON) as (front, _):
        await front.client.get("/v1/models")
        await front.post({"model": MODEL, "input": "x"}, "/v1/embeddings")
        figures = await ended(front)
    assert figures.sum("tgi_request_count") == 0


def test_the_buckets_of_durations_are_tgis() -> None:
    """TGI: 35 bounds, each 1.5 times the one before, from 0.15 ms (router/src/server.rs)."""
    assert len(DURATION) == 35
    assert DURATION[0] == pytest.approx(0.00015)
    assert {round(after / before, 9) for before, after in pairwise(DURATION)} == {1.5}


def test_the_queue_is_what_waits_here_and_at_the_engines_whichever_worker_is_asked() -> None:
    """Each worker's own queue counts, and each engine's once, as all workers ask the same engine."""
    a, b = ("a", "vllm"), ("b", "tgi")
    read = [
        GaugeReading("pointsman_waiting", (), 2.0),
        GaugeReading("pointsman_waiting", (), 1.0),
        GaugeReading("pointsman_engine_waiting", a, 4.0),
        GaugeReading("pointsman_engine_waiting", a, 5.0),
        GaugeReading("pointsman_engine_waiting", b, 7.0),
        GaugeReading("pointsman_engine_running", b, 3.0),
    ]
    found = {sample.name: sample.value for family in TgiGauges(lambda: read).collect() for sample in family.samples}
    assert found == {"tgi_queue_size": 15.0, "tgi_batch_current_size": 3.0}


# --- how full a model is ----------------------------------------------------------------------------------------


def deployed(url: str, **more: Any) -> config.Config:
    """Return the configuration of a model with one vLLM, and one that gets no traffic."""
    deployments = [
        config.DeploymentConfig(name="busy", engine="vllm", url=url, **more),
        config.DeploymentConfig(name="idle", engine="vllm", url=url, weight=0.0),
    ]
    bounds = config.AdmissionConfig(max_in_flight=2)
    return checked(config.Config(models=[config.ModelConfig(name=MODEL, deployments=deployments)], admission=bounds))


async def test_a_model_is_as_full_as_what_is_in_flight_and_waits_over_its_slots() -> None:
    async with engine(hangs(head() + piece(STREAM[0]))) as behind, gateway(deployed(behind.url, slots=4)) as front:
        assert (await scraped(front.client)).sum(GAUGE, model=MODEL, over="slots") == 0
        async with asking(front, CHAT | {"stream": True}), asking(front, CHAT | {"stream": True}):
            await until(lambda: len(behind.asked) == 2)
            async with asking(front, CHAT):  # there is no room for it
                await until(lambda: front.services.admission.waiting)
                figures = await scraped(front.client)
    assert figures.sum(GAUGE, model=MODEL, over="slots") == 3 / 4


async def test_without_slots_it_is_over_what_was_last_sustained_and_unknown_before() -> None:
    async with engine(hangs(head() + piece(STREAM[0]))) as behind, gateway(deployed(behind.url)) as front:
        endpoint = front.services.catalog.endpoints[0]
        endpoint.figures = Load(running=3.0, waiting=0.0)
        assert not [labels for name, labels in (await scraped(front.client)).samples if name == GAUGE]
        endpoint.figures = Load(running=8.0, waiting=2.0)
        await scraped(front.client)
        endpoint.figures = Load(running=1.0, waiting=0.0)
        async with asking(front, CHAT | {"stream": True}):
            await until(lambda: behind.asked)
            figures = await scraped(front.client)
    assert figures.sum(GAUGE, model=MODEL, over="sustained") == 1 / 8
