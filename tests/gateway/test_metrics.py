"""What `/metrics` says after requests over real sockets: each is counted once, however it ends, and nothing else is."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from backends.loads import Load
from gateway import config
from gateway.observe.gauges import KINDS, GaugeCollector
from gateway.observe.labels import OPERATIONS, operation
from gateway.observe.metrics import Metrics
from gateway.observe.worker_snapshots import STALE, GaugeReading, WorkerSnapshots
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
    configured,
    cuts,
    engine,
    gateway,
    hangs,
    head,
    over,
    piece,
    says,
    settled,
    streamed,
    until,
    whole,
)
from tests.support.keys import GOOD, PLAIN, ring
from tests.support.processes import answers, become, eventually, served, workers, written
from tests.support.scrape import Figures, scraped

STREAMED = CHAT | {"stream": True}
BUSY = {"error": {"message": "busy", "type": "Service Unavailable", "param": None, "code": 503}}
TIMES = config.TimeoutsConfig(first_event=5, between_events=5, keep_alive=0.1)
ONCE = config.RetriesConfig(attempts=1)


async def counted(front: Gateway, count: int = 1) -> Figures:
    """Wait until as many requests have ended, and no more are open."""
    await until(lambda: not front.services.sweep.open)
    figures = await scraped(front.client)
    assert figures.sum("pointsman_requests_total") == count
    return figures


# --- how a request ends ---------------------------------------------------------------------------------------

GONE = piece(STREAM[0])
# what the engine says, what is asked for, the outcome and the type of the error
ENDS: dict[str, tuple[Script, dict[str, Any], str, str]] = {
    "a whole answer": (says(whole(ANSWER)), CHAT, "ok", ""),
    "a stream": (says(streamed(*STREAM)), STREAMED, "ok", ""),
    "an unknown model": (says(b""), CHAT | {"model": "nobody's"}, "client_error", "model_not_found"),
    "a request that is none": (says(b""), {"model": MODEL}, "client_error", "invalid_request_error"),
    "an engine that failed": (says(whole(FAILED, "500 x")), CHAT, "engine_error", "engine_error"),
    "an engine that is busy": (says(whole(BUSY, "503 x")), CHAT, "overloaded", "overloaded"),
    "an engine's limit": (says(whole(BUSY, "429 x")), CHAT, "rate_limited", "rate_limit_exceeded"),
    "a stream that was cut": (cuts(head() + GONE), STREAMED, "engine_error", "engine_error"),
    "a stream that never began": (hangs(), STREAMED, "timeout", "engine_timeout"),
    "a stream that stalled": (hangs(head() + GONE), STREAMED, "timeout", "engine_timeout"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_each_way_to_end_is_counted_once_by_its_outcome(end: str) -> None:
    script, body, outcome, error = ENDS[end]
    clock = Clock()
    async with over(script, clock=clock, timeouts=TIMES, retries=ONCE) as (front, behind):
        async with asking(front, body) as asked:
            if outcome == "timeout":
                await until(lambda: behind.asked)
                await settled()  # what it says has come
                clock.now += 6
            await asked
        figures = await counted(front)
    assert figures.sum("pointsman_requests_total", operation="chat", outcome=outcome) == 1
    assert figures.sum("gen_ai_server_request_duration_seconds_count", error_type=error) == 1
    assert figures.sum("gen_ai_server_request_duration_seconds_count") == 1
    assert figures.sum("gen_ai_server_time_to_first_token_seconds_count") == (end == "a stream")


async def test_an_engine_that_cannot_be_reached_is_counted_as_that() -> None:
    async with over(says(b"")) as (front, behind):
        behind.stop()
        await front.post(CHAT)
        figures = await counted(front)
    assert figures.sum("pointsman_requests_total", outcome="unreachable", deployment="vllm") == 1
    assert figures.sum("pointsman_deployment_up", deployment="vllm", engine="vllm") == 0


def post(body: bytes, length: int) -> bytes:
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (length, body)


WHOLE = msgspec.json.encode(CHAT)
STREAMING = msgspec.json.encode(STREAMED)


@pytest.mark.parametrize(
    ("sent", "script"),
    [
        (post(WHOLE[:10], len(WHOLE)), hangs()),
        (post(WHOLE, len(WHOLE)), hangs()),
        (post(STREAMING, len(STREAMING)), hangs()),
        (post(STREAMING, len(STREAMING)), hangs(head() + GONE)),
    ],
    ids=["within its body", "before a whole answer", "before a stream", "within a stream"],
)
async def test_a_client_that_leaves_is_counted_once_and_leaves_nothing_in_flight(sent: bytes, script: Script) -> None:
    async with over(script) as (front, behind):
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(sent)
        whole_body = sent.endswith(b"}")
        await until(lambda: behind.asked if whole_body else front.services.sweep.open)
        writer.close()
        figures = await counted(front)
    assert figures.sum("pointsman_requests_total", operation="chat", outcome="client_left") == 1
    assert figures.sum("pointsman_in_flight") == figures.sum("pointsman_deployment_in_flight") == 0


async def test_a_wrong_method_and_a_list_of_models_are_counted_and_what_operators_ask_is_not() -> None:
    async with over(says(b"")) as (front, _):
        for path in ("/healthz", "/health", "/ping", "/readyz", "/metrics"):
            assert (await front.client.get(path)).status_code == 200
        await front.client.get("/v1/models")
        await front.client.get("/v1/chat/completions")
        figures = await counted(front, 2)
    assert figures.sum("pointsman_requests_total", operation="models", outcome="ok") == 1
    assert figures.sum("pointsman_requests_total", operation="chat", outcome="client_error") == 1


# --- what is counted of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_measured_in_time_and_tokens(stream: bool) -> None:
    clock = Clock()

    async def script(asked: Any, writer: asyncio.StreamWriter) -> None:
        clock.now += 0.25
        writer.write(head() + piece(STREAM[0]) if stream else whole(ANSWER))
        if stream:
            await until(lambda: begun(front))
            clock.now += 0.125
            writer.write(b"".join(piece(one) for one in STREAM[1:]) + b"0\r\n\r\n")
        await writer.drain()

    async with over(script, clock=clock) as (front, _):
        await front.post(CHAT | {"stream": stream})
        figures = await counted(front)
    of = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "vllm", "gen_ai_request_model": MODEL}
    assert figures.sum("gen_ai_client_token_usage_sum", **of, gen_ai_token_type="input") == USAGE["prompt_tokens"]
    assert figures.sum("gen_ai_client_token_usage_sum", **of, gen_ai_token_type="output") == USAGE["completion_tokens"]
    of["deployment"] = "vllm"
    total = figures.sum("gen_ai_server_request_duration_seconds_sum", **of, error_type="")
    first = figures.sum("gen_ai_server_time_to_first_token_seconds_sum", **of)
    after = figures.sum("gen_ai_server_time_per_output_token_seconds_sum", **of)
    assert (total, first, after) == ((0.375, 0.25, 0.125) if stream else (0.25, 0, 0))
    for stage in ("parse", "route", "queue", "translate", "first_byte"):
        assert figures.sum("pointsman_overhead_seconds_count", stage=stage) == 1, stage
        took = figures.sum("pointsman_overhead_seconds_sum", stage=stage)
        assert took == (0.25 if stage == "first_byte" else 0), stage
    duration = [
        value
        for (name, labels), value in figures.samples.items()
        if name == "gen_ai_server_request_duration_seconds_bucket" and "+Inf" in dict(labels).values()
    ]
    assert duration == [1]


async def test_a_comment_before_the_first_event_is_not_taken_for_it() -> None:
    clock = Clock()

    async def script(asked: Any, writer: asyncio.StreamWriter) -> None:
        clock.now += 1
        await until(lambda: begun(front))
        clock.now += 0.5
        writer.write(streamed(*STREAM))
        await writer.drain()

    async with over(script, clock=clock, timeouts=config.TimeoutsConfig(keep_alive=1)) as (front, _):
        assert (await front.post(STREAMED)).content.startswith(b": keep-alive")
        figures = await counted(front)
    assert figures.sum("gen_ai_server_time_to_first_token_seconds_sum") == 1.5
    assert figures.sum("pointsman_overhead_seconds_sum", stage="first_byte") == 1.5
    assert figures.sum("pointsman_overhead_seconds_count", stage="translate") == 0  # the head went out before


async def test_a_try_that_another_followed_is_counted_by_its_cause() -> None:
    async with engine(says(whole(FAILED, "500 x"))) as bad, engine(says(whole(ANSWER))) as good:
        deployments = [
            config.DeploymentConfig(name=name, engine="vllm", url=url, weight=weight)
            for name, url, weight in (("bad", bad.url, 1.0), ("good", good.url, 1e-9))
        ]
        given = checked(config.Config(models=[config.ModelConfig(name=MODEL, deployments=deployments)]))
        async with gateway(given) as front:
            assert (await front.post(CHAT)).status_code == 200
            figures = await counted(front)
    assert figures.sum("pointsman_retries_total", deployment="bad", cause="engine_error") == 1
    assert figures.sum("pointsman_retries_total") == 1
    assert figures.sum("pointsman_requests_total", deployment="good", outcome="ok") == 1


async def test_requests_over_their_keys_limit_and_without_room_are_counted_apart() -> None:
    bounds = config.AdmissionConfig(max_in_flight=1, queue=0)
    async with over(hangs(head() + GONE), admission=bounds) as (front, behind):
        front.services.keyring = ring(msgspec.structs.replace(PLAIN, requests_per_minute=2))
        async with front.client.stream("POST", "/v1/chat/completions", json=STREAMED, headers={"x-api-key": GOOD}):
            await until(lambda: behind.asked)
            assert (await front.post(CHAT, x_api_key=GOOD)).status_code == 503
            assert (await front.post(CHAT, x_api_key=GOOD)).status_code == 429
            assert (await front.post(CHAT)).status_code == 401
            figures = await scraped(front.client)
    assert figures.sum("pointsman_shed_total") == 1
    assert figures.sum("pointsman_limited_total", limit="requests") == figures.sum("pointsman_limited_total") == 1
    assert figures.sum("pointsman_in_flight") == figures.sum("pointsman_deployment_in_flight") == 1
    assert figures.sum("pointsman_requests_total") == 3  # the stream is not over
    assert figures.sum("pointsman_overhead_seconds_count", stage="auth") == 1  # of those, who may ask


# --- labels ---------------------------------------------------------------------------------------------------


async def test_nothing_that_a_client_can_invent_becomes_a_label() -> None:
    evil = 'evil"}\n1'
    async with over(says(whole(ANSWER))) as (front, _):
        await front.post(CHAT)
        before = (await counted(front)).values()
        for number in range(5):
            await front.post(CHAT | {"model": f"{evil}{number}"}, x_pointsman_engine=f"evil{number}")
            await front.post(CHAT, x_pointsman_engine=f"evil{number}", authorization=f"Bearer evil{number}")
            await front.post({"model": f"{evil}{number}", "input": "x"}, "/v1/embeddings")
            await front.client.get(f"/v1/models/evil{number}")
            await front.client.get(f"/v1/models/{MODEL}/?evil={number}")
            await front.client.get(f"/evil{number}")
            await front.client.request(f"EVIL{number}", "/v1/models")
        await until(lambda: not front.services.sweep.open)
        figures = await scraped(front.client)
    words = {"client_error", "model_not_found", "invalid_request_error", "embeddings", "models", "chat", "ok"}
    assert figures.values() - before <= words
    assert not any("evil" in value for value in figures.values())


@pytest.mark.parametrize(
    ("path", "does"),
    [
        *OPERATIONS.items(),
        ("/v1/chat/completions/", "chat"),
        ("/v1/models/a/b", "models"),
        ("/metrics", ""),
        ("/readyz/", ""),
        ("/nonsense", "other"),
    ],
)
def test_what_a_path_does(path: str, does: str) -> None:
    assert operation(path) == does


# --- this moment ----------------------------------------------------------------------------------------------


async def test_the_engines_own_figures_have_one_name_and_are_gone_when_the_engine_is() -> None:
    async with engine(says(b"")) as vllm, engine(says(b"")) as tgi, gateway(configured(vllm.url, tgi.url)) as front:
        await front.services.prober.close()  # whose checks would read other figures
        one, other = front.services.catalog.endpoints
        one.figures = Load(running=2.0, waiting=1.0, kv_use=0.5, prefix_queries=10.0, prefix_hits=5.0)
        other.figures = Load(running=3.0, waiting=0.0)
        figures = await scraped(front.client)
        one.mark_down("it is gone")
        later = await scraped(front.client)
    assert figures.sum("pointsman_engine_running", engine="vllm") == 2
    assert figures.sum("pointsman_engine_running", engine="tgi") == 3
    assert figures.sum("pointsman_engine_kv_use_ratio") == 0.5
    assert figures.sum("pointsman_engine_prefix_hits_total", deployment="vllm") == 5
    assert figures.sum("pointsman_deployment_up") == 2
    assert later.sum("pointsman_engine_running", engine="vllm") == 0
    assert later.sum("pointsman_deployment_up", deployment="vllm") == 0


async def test_an_open_breaker_shows() -> None:
    rules = config.BreakerConfig(failures=1, open=60.0, most_open=60.0)
    async with over(cuts(b"not HTTP"), breaker=rules, retries=ONCE) as (front, _):
        before = await scraped(front.client)
        await front.post(CHAT)
        after = await counted(front)
    assert before.sum("pointsman_breaker_open", deployment="vllm") == 0
    assert after.sum("pointsman_breaker_open", deployment="vllm") == 1


async def test_it_is_prometheus_text_that_needs_no_key() -> None:
    async with over(says(b"")) as (front, _):
        front.services.keyring = ring(PLAIN)
        answer = await front.client.get("/metrics")
        assert (await front.client.head("/metrics")).content == b""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family.type for family in text_string_to_metric_families(answer.text)}
    assert families["pointsman_requests"] == "counter"
    assert families["gen_ai_client_token_usage"] == "histogram"
    assert {name.removesuffix("_total") for name in KINDS} <= set(families)


def test_a_new_connection_is_a_stage_of_its_own() -> None:
    @dataclass
    class Nothing:
        shed = unchecked = 0

    metrics = Metrics(tuple, Nothing(), Nothing(), lambda: 0.0)
    metrics.connected(0.002)
    figures = Figures(asyncio.run(metrics.text()).decode())
    assert figures.sum("pointsman_overhead_seconds_count", stage="connect") == 1


# --- several workers ------------------------------------------------------------------------------------------


def test_workers_in_flight_are_added_up_and_what_all_see_alike_is_not(tmp_path: Path) -> None:
    one, other = WorkerSnapshots(tmp_path), WorkerSnapshots(tmp_path)
    labels = ("v", "vllm")
    one.put(
        [GaugeReading("pointsman_in_flight", (), 2.0), GaugeReading("pointsman_engine_running", labels, 7.0)], 100.0
    )
    other.put(
        [GaugeReading("pointsman_in_flight", (), 3.0), GaugeReading("pointsman_engine_running", labels, 6.0)], 100.0
    )
    live = GaugeCollector()
    live.readings = one.all(100.0 + STALE / 2)
    found = {sample.name: sample.value for family in live.collect() for sample in family.samples}
    assert found == {"pointsman_in_flight": 5.0, "pointsman_engine_running": 7.0}


def test_a_worker_that_has_not_written_for_a_while_is_gone(tmp_path: Path) -> None:
    one, other, third = WorkerSnapshots(tmp_path), WorkerSnapshots(tmp_path), WorkerSnapshots(tmp_path)
    one.put([GaugeReading("pointsman_in_flight", (), 2.0)], 100.0)
    other.put([GaugeReading("pointsman_in_flight", (), 3.0)], 100.0)
    third.put([GaugeReading("pointsman_in_flight", (), 4.0)], 104.0)
    third.leave()
    one.put([GaugeReading("pointsman_in_flight", (), 1.0)], 104.0)
    assert one.all(100.0 + STALE) == [GaugeReading("pointsman_in_flight", (), 1.0)]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_worker_that_cannot_write_says_so_once_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    board = WorkerSnapshots(tmp_path / "gone")
    for _ in range(3):
        board.put([GaugeReading("pointsman_in_flight", (), 2.0)], 100.0)
    assert board.all(100.0) == []
    assert [record.getMessage() for record in caplog.records if "No such file" in record.getMessage()] != []
    assert len(caplog.records) == 1


@asynccontextmanager
async def two_workers(tmp_path: Path) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(engine(answers()))
        file = tmp_path / "pointsman.toml"
        file.write_text(written({"m": {"v": behind.url}}))
        front = await stack.enter_async_context(served(file, "--workers", "2"))
        await eventually(lambda: front.said.count("v at ") == 2)
        yield front


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="workers are found by /proc")
async def test_any_worker_answers_for_all_and_what_a_killed_one_counted_stays(tmp_path: Path) -> None:
    count = 40
    async with two_workers(tmp_path) as front:
        for _ in range(count // 2):
            await asyncio.gather(front.chat("m"), front.chat("m", stream=True))

        async def requests() -> float:
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.port}", trust_env=False, verify=False)
            async with client:
                return (await scraped(client)).sum("pointsman_requests_total", outcome="ok")

        await become(requests, count)  # each worker counts what has ended once in a moment
        assert {await requests() for _ in range(8)} == {count}
        seen = front.said.count("v at ")  # each worker says what it serves, again after an engine was late for it
        os.kill(min(workers(front)), signal.SIGKILL)
        assert {await requests() for _ in range(4)} == {count}
        await eventually(lambda: front.said.count("v at ") > seen)
        await front.chat("m")
        await become(requests, count + 1)
        assert {await requests() for _ in range(8)} == {count + 1}
