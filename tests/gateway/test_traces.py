"""Traces through the whole gateway: a real collector, a scripted engine, and each way that a request can end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway import config
from gateway.config.tables import TelemetryConfig
from tests.support.collector import Collector, attributes, over_http
from tests.support.harness import (
    ANSWER,
    CHAT,
    STREAM,
    TEXT,
    USAGE,
    Engine,
    Gateway,
    Script,
    configured,
    cuts,
    engine,
    gateway,
    hangs,
    head,
    of,
    piece,
    says,
    streamed,
    until,
    whole,
)

CLIENT = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


@contextlib.asynccontextmanager
async def traced(
    script: Script, kind: str = "vllm", timeouts: config.TimeoutsConfig | None = None, **telemetry: Any
) -> AsyncIterator[tuple[Gateway, Engine, Collector]]:
    """Run the gateway over one engine, with a collector; the spans are there when it has ended."""
    with over_http() as collector:
        told = TelemetryConfig(otlp_endpoint=collector.url, **telemetry)
        async with engine(script) as behind, gateway(of(behind, kind, timeouts=timeouts, telemetry=told)) as front:
            yield front, behind, collector


def pair(collector: Collector) -> tuple[Span, Span]:
    """Return the span of the only request and that of its only try."""
    server, tried = collector.spans
    return server, tried


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_the_engines_span_is_the_child_of_the_try_and_the_try_of_the_clients(kind: str) -> None:
    async with traced(says(whole(ANSWER)), kind) as (front, behind, collector):
        answer = await front.post(CHAT, traceparent=f"00-{CLIENT}-{CALLER}-01", tracestate="a=1")
        assert answer.status_code == 200
    server, tried = pair(collector)
    assert server.parent_span_id.hex() == CALLER
    assert tried.parent_span_id == server.span_id
    told = behind.asked[0].headers
    assert told["traceparent"] == f"00-{CLIENT}-{tried.span_id.hex()}-01"
    assert told["tracestate"] == "a=1"


async def test_the_traces_id_is_the_requests_where_the_client_has_none() -> None:
    async with traced(says(whole(ANSWER))) as (front, _, collector):
        answer = await front.post(CHAT)
    assert {span.trace_id.hex() for span in collector.spans} == {answer.headers["x-request-id"]}


async def test_a_whole_answer_is_told_with_its_usage_and_why_it_ended() -> None:
    async with traced(says(whole(ANSWER))) as (front, _, collector):
        await front.post(CHAT)
    said = attributes(pair(collector)[1])
    assert said["gen_ai.request.max_tokens"] == 4
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert said["gen_ai.usage.input_tokens"] == USAGE["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == USAGE["completion_tokens"]


async def test_a_usage_that_the_engine_has_not_said_is_told_as_an_estimate() -> None:
    async with traced(says(whole(ANSWER | {"usage": None}))) as (front, _, collector):
        await front.post(CHAT)
    said = attributes(pair(collector)[1])
    assert said["pointsman.usage.estimated"] is True
    assert said["gen_ai.usage.input_tokens"] > 0


async def test_a_stream_is_told_with_its_first_token_within_its_try() -> None:
    async with traced(says(streamed(*STREAM))) as (front, _, collector):
        await front.post(CHAT | {"stream": True})
    server, tried = pair(collector)
    (first,) = tried.events
    assert first.name == "pointsman.first_token"
    assert server.start_time_unix_nano <= tried.start_time_unix_nano <= first.time_unix_nano
    assert first.time_unix_nano <= tried.end_time_unix_nano <= server.end_time_unix_nano
    said = attributes(tried)
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert said["gen_ai.usage.output_tokens"] == USAGE["completion_tokens"]
    assert 0 < said["gen_ai.response.time_to_first_chunk"] < 5


@pytest.mark.parametrize("stream", [False, True])
async def test_content_is_told_where_it_is_asked_for_and_nowhere_else(stream: bool) -> None:
    script = says(streamed(*STREAM) if stream else whole(ANSWER))
    for content in (False, True):
        async with traced(script, content=content, redact=["h.$"]) as (front, _, collector):
            await front.post(CHAT | {"stream": stream})
        said = attributes(pair(collector)[1])
        assert ("[redacted]" in said.get("gen_ai.input.messages", "")) is content
        assert ("Grüße dir" in said.get("gen_ai.output.messages", "")) is content


async def test_what_is_not_sampled_is_not_exported_and_the_engine_knows() -> None:
    async with traced(says(whole(ANSWER)), sample_ratio=0.0) as (front, behind, collector):
        await front.post(CHAT, traceparent=f"00-{CLIENT}-{CALLER}-01")
        assert behind.asked[0].headers["traceparent"].endswith("-00")
    assert collector.spans == []


async def test_a_tgi_is_not_told_of_a_trace_that_is_not_sampled() -> None:
    async with traced(says(whole(ANSWER)), "tgi", sample_ratio=0.0) as (front, behind, _):
        await front.post(CHAT, traceparent=f"00-{CLIENT}-{CALLER}-01")
        assert "traceparent" not in behind.asked[0].headers


BEGUN = head() + piece(STREAM[0]) + piece(STREAM[1])


@pytest.mark.parametrize(
    ("script", "body", "path", "status", "kind"),
    [
        (says(whole(ANSWER)), CHAT, "/v1/chat/completions", 200, None),
        (says(whole(ANSWER)), CHAT | {"n": 0}, "/v1/chat/completions", 400, "invalid_request_error"),
        (says(whole(ANSWER)), CHAT | {"model": "nobody"}, "/v1/chat/completions", 404, "model_not_found"),
        (says(whole({}, "500 Oh")), TEXT, "/v1/completions", 502, "engine_error"),
        (cuts(BEGUN), CHAT | {"stream": True}, "/v1/chat/completions", 200, "engine_error"),
        (hangs(), CHAT, "/v1/chat/completions", 504, "engine_timeout"),
        (says(whole({"data": []})), {"model": "tiny", "input": "x"}, "/v1/embeddings", 200, None),
    ],
)
async def test_each_way_out_ends_the_spans_exactly_once(
    script: Script, body: Any, path: str, status: int, kind: str | None
) -> None:
    timeouts = config.TimeoutsConfig(total=1.0 if kind == "engine_timeout" else 9.0)
    async with traced(script, timeouts=timeouts) as (front, behind, collector):
        answer = await front.post(body, path)
        assert answer.status_code == status
    server, *tried = collector.spans
    assert attributes(server)["http.response.status_code"] == status
    assert attributes(server).get("error.type") == kind
    assert len(tried) == len(behind.asked)
    assert len({one.span_id for one in collector.spans}) == len(collector.spans)
    assert all(one.end_time_unix_nano >= one.start_time_unix_nano > 0 for one in collector.spans)


async def test_a_client_that_leaves_ends_its_spans_once() -> None:
    async with traced(hangs(BEGUN)) as (front, _, collector):
        async with front.client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer:
            assert answer.status_code == 200
            await anext(answer.aiter_bytes())
        await until(lambda: not front.services.sweep.open)
    server, tried = pair(collector)
    assert [attributes(one)["error.type"] for one in (server, tried)] == ["client_left"] * 2


async def test_a_retry_is_a_second_try_of_the_same_request() -> None:
    with over_http() as collector:
        told = TelemetryConfig(otlp_endpoint=collector.url)
        async with (
            engine(says(whole({}, "500 Oh"))) as bad,
            engine(says(whole(ANSWER))) as good,
            gateway(configured(bad.url, good.url, telemetry=told)) as front,
        ):
            answers = await asyncio.gather(*(front.post(CHAT) for _ in range(8)))
            assert {one.status_code for one in answers} == {200}
    servers = [one for one in collector.spans if one.kind == Span.SPAN_KIND_SERVER]
    tries = [one for one in collector.spans if one.kind == Span.SPAN_KIND_CLIENT]
    assert len(servers) == 8
    assert len(tries) == 8 + len(bad.asked)
    asked = [one.headers["traceparent"] for one in (*bad.asked, *good.asked)]
    assert sorted(asked) == sorted(f"00-{one.trace_id.hex()}-{one.span_id.hex()}-01" for one in tries)


async def test_a_span_says_what_the_cache_did_for_its_request() -> None:
    with over_http() as collector:
        told, kept = TelemetryConfig(otlp_endpoint=collector.url), config.tables.CacheConfig(store="memory")
        async with engine(says(whole(ANSWER))) as behind:
            given = configured(behind.url, telemetry=told, cache=kept)
            async with gateway(given) as front:
                for _ in range(2):
                    assert (await front.post(CHAT)).status_code == 200
    servers = [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [attributes(span)["pointsman.cache"] for span in servers] == ["miss", "hit"]
    assert [event.name for event in servers[1].events] == ["pointsman.cache"]
    assert len(collector.spans) == 3  # the hit asked no engine


async def test_a_question_beside_a_request_has_a_span_of_its_own() -> None:
    """Token ids become text for a TGI by the `/detokenize` of the vLLM beside it."""
    refused = whole({"error": "no", "error_type": "validation"}, "422 Unprocessable Entity")
    with over_http() as collector:
        told = TelemetryConfig(otlp_endpoint=collector.url)
        async with engine(says(whole({"prompt": "hi"}))) as vllm, engine(says(refused)) as tgi:
            async with gateway(configured(vllm.url, tgi.url, telemetry=told)) as front:
                await front.post(TEXT | {"prompt": [1, 2]}, "/v1/completions", x_pointsman_engine="tgi")
            assert (vllm.asked[0].path, tgi.asked[0].path) == ("/detokenize", "/generate")
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"POST /v1/completions", "text_completion tiny", "detokenize tiny"}
    server, question, attempt = (
        spans[name] for name in ("POST /v1/completions", "detokenize tiny", "text_completion tiny")
    )
    assert question.parent_span_id == attempt.parent_span_id == server.span_id
    assert question.span_id.hex() in vllm.asked[0].headers["traceparent"]
    assert attempt.span_id.hex() in tgi.asked[0].headers["traceparent"]
    assert attributes(question)["pointsman.deployment"] == "vllm"
