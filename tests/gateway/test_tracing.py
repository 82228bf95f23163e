"""Traces: who is whose parent, who is sampled, what the spans say, and that a collector in trouble troubles nobody."""

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any, Literal, cast

import pytest
from opentelemetry.exporter.otlp.proto.common import trace_encoder
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status

from backends.base import Call
from backends.schema import Usage
from gateway.config.tables import BreakerConfig, DeploymentConfig, TelemetryConfig
from gateway.http.cancel import CancelScope
from gateway.http.context import Attempt, RequestContext, Timing
from gateway.http.errors import (
    ClientDisconnected,
    ContextExceeded,
    EngineFailed,
    Internal,
    InvalidRequest,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamConnectError,
    UpstreamIdleTimeout,
)
from gateway.observe import trace_export, tracing
from gateway.observe.otel_internals import SAMPLE, TracerSpans, span_maker, use_fast_encoder
from gateway.observe.trace_context import Trace, client_trace
from gateway.observe.trace_spans import Spans
from gateway.observe.trace_wire import encoded
from gateway.proxy import parse
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate
from tests.support.collector import Collector, attributes, over_grpc, over_http
from tests.support.harness import ANSWER, until

CHAT = "/v1/chat/completions"
ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = f"00-{CLIENT}-{CALLER}-01".encode()
UNSAMPLED = f"00-{CLIENT}-{CALLER}-00".encode()
SECRET = "my number is 555-0199"
WALL = 1_700_000_000.0


def wall() -> float:
    return WALL


def traced(url: str = "http://127.0.0.1:9", **telemetry: Any) -> tracing.Tracer:
    return tracing.make(TelemetryConfig(otlp_endpoint=url, **telemetry), Random(1))


def attempt(engine: str = "vllm", began: float = 10.1, ended: float = 10.9, **more: Any) -> Attempt:
    endpoint = Endpoint(
        DeploymentConfig(name=f"{engine}-a", engine=engine, url="http://10.0.0.5:8000"), BreakerConfig(), 0
    )
    return Attempt(Candidate(endpoint, "org/tiny", 1024), 0, began, ended=ended, **more)


def context(*attempts: Attempt, **more: Any) -> RequestContext:
    """Return the account of a request that came at 10 s, and was answered by its last try."""
    for number, one in enumerate(attempts):
        one.number = number
    given: dict[str, Any] = {"id": ID, "method": "POST", "path": CHAT, "raw_path": b"", "headers": {}}
    given |= {"scope": CancelScope(cast("asyncio.Task[object]", None)), "model": "tiny", "status": 200}
    given |= {"attempts": list(attempts), "answering": attempts[-1] if attempts else None}
    given["timing"] = Timing(10.0, first_event_at=more.pop("first", 0.0))
    return RequestContext(**(given | more))


def chat(**more: Any) -> Call:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]} | more
    return parse.chat(json.dumps(asked).encode(), ID, 1)


async def sent(
    given: RequestContext, note: Callable[[Trace], None] = lambda trace: None, **telemetry: Any
) -> tuple[list[Span], bytes]:
    """Return the spans of one request as a collector got them, and all of its bytes."""
    with over_http() as collector:
        tracer = traced(collector.url, **telemetry)
        trace = tracer.begin(given.headers, given.id, given.path)
        note(trace)
        tracer.record(given, trace, 11.0, wall())
        await tracer.close()
        return collector.spans, b"".join(one.SerializeToString() for one in collector.requests)


# --- W3C Trace Context ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (PARENT, True),
        (UNSAMPLED, False),
        (b" " + PARENT + b" ", True),
        (f"00-{CLIENT}-{CALLER}-03".encode(), True),
        (f"00-{CLIENT}-{CALLER}-fe".encode(), False),
        (f"01-{CLIENT}-{CALLER}-01".encode(), True),
        (f"cc-{CLIENT}-{CALLER}-01-what-is-to-come".encode(), True),
    ],
)
def test_a_valid_traceparent_is_read(header: bytes, sampled: bool) -> None:
    assert client_trace({b"traceparent": header}) == (int(CLIENT, 16), int(CALLER, 16), sampled, "")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"nonsense",
        PARENT[:-1],
        PARENT + b"0",
        PARENT + b"-more",
        PARENT.upper(),
        PARENT.replace(b"-", b"_"),
        f"ff-{CLIENT}-{CALLER}-01".encode(),
        f"0-{CLIENT}-{CALLER}-01".encode(),
        f"00-{'0' * 32}-{CALLER}-01".encode(),
        f"00-{CLIENT}-{'0' * 16}-01".encode(),
        f"00-{CLIENT[1:]}-{CALLER}-01".encode(),
        f"00-{CLIENT}-{CALLER}0-01".encode(),
        f"00-{CLIENT}-{CALLER}-0g".encode(),
        f"00-{CLIENT}-{CALLER}".encode(),
        f"01-{CLIENT}-{CALLER}-01more".encode(),
        PARENT + b"\xff",
    ],
)
def test_a_traceparent_that_is_not_valid_is_ignored_and_its_tracestate_with_it(header: bytes) -> None:
    given = {b"traceparent": header, b"tracestate": b"a=1"}
    assert client_trace(given) is None
    trace = traced().begin(given, ID, CHAT)
    assert (trace.hex, trace.parent, trace.state) == (ID, 0, "")


@pytest.mark.parametrize(
    ("state", "passed"),
    [
        (b"congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        (b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (b"a=1, b@c=2 ,,d=x y", "a=1, b@c=2 ,,d=x y"),
        (b"no value", ""),
        (b"A=1", ""),
        (b"a=1\xff", ""),
        (b"a=" + b"x" * 511, ""),
        (b",".join(b"k%d=1" % place for place in range(33)), ""),
    ],
)
def test_a_valid_tracestate_is_passed_on_and_another_is_not(state: bytes, passed: str) -> None:
    trace = traced().begin({b"traceparent": PARENT, b"tracestate": state}, ID, CHAT)
    assert trace.headers(0, "vllm").get("tracestate", "") == passed


def test_the_engine_is_told_that_its_try_is_the_parent() -> None:
    trace = traced().begin({b"traceparent": PARENT}, ID, CHAT)
    told = [trace.headers(place, "vllm")["traceparent"] for place in (0, 1)]
    assert told == [f"00-{CLIENT}-{trace.try_span(place):016x}-01" for place in (0, 1)]
    assert len({trace.parent, trace.span, trace.try_span(0), trace.try_span(1)}) == 4


@pytest.mark.parametrize(("ratio", "engine", "flags"), [(1, "vllm", "01"), (1, "tgi", "01"), (0, "vllm", "00")])
def test_the_engine_is_told_whether_the_trace_is_sampled(ratio: float, engine: str, flags: str) -> None:
    trace = traced(sample_ratio=ratio).begin({b"traceparent": PARENT}, ID, CHAT)
    assert trace.headers(0, engine)["traceparent"].endswith(f"-{flags}")


def test_a_tgi_which_ignores_the_flag_hears_nothing_of_a_trace_that_is_not_sampled() -> None:
    given = {b"traceparent": UNSAMPLED, b"tracestate": b"a=1"}
    assert traced(sample_ratio=0).begin(given, ID, CHAT).headers(0, "tgi") == {}
    assert tracing.NoTracer().begin(given, ID, CHAT).headers(0, "tgi") == {}


@pytest.mark.parametrize("header", [PARENT, f"01-{CLIENT}-{CALLER}-01-more".encode()])
def test_without_export_the_engine_hears_what_the_client_said(header: bytes) -> None:
    tracer = tracing.make(TelemetryConfig(), Random(1))
    trace = tracer.begin({b"traceparent": header, b"tracestate": b"a=1"}, ID, CHAT)
    assert trace.headers(1, "vllm") == {"traceparent": header.decode(), "tracestate": "a=1"}
    assert trace.hex == CLIENT
    assert tracer.begin({b"traceparent": b"nonsense", b"tracestate": b"a=1"}, ID, CHAT).headers(0, "vllm") == {}


# --- sampling -------------------------------------------------------------------------------------------------

LOW_ID, HIGH_ID = "f" * 16 + "0" * 15 + "1", "0" * 15 + "1" + "f" * 16


@pytest.mark.parametrize(
    ("ratio", "trusts", "trace", "flags", "sampled"),
    [
        (1.0, False, CLIENT, "01", True),
        (1.0, False, CLIENT, "00", True),
        (0.0, False, CLIENT, "01", False),
        (0.0, False, CLIENT, "00", False),
        (0.5, False, LOW_ID, "00", True),
        (0.5, False, HIGH_ID, "01", False),
        (0.0, True, CLIENT, "01", True),
        (1.0, True, CLIENT, "00", False),
        (0.5, True, LOW_ID, "00", False),
        (0.5, True, HIGH_ID, "01", True),
        (1.0, True, None, "", True),
        (0.0, True, None, "", False),
    ],
)
async def test_the_ratio_decides_by_the_traces_id_unless_the_clients_flag_is_trusted(
    ratio: float, trusts: bool, trace: str | None, flags: str, sampled: bool
) -> None:
    headers = {b"traceparent": f"00-{trace}-{CALLER}-{flags}".encode()} if trace else {}
    spans, _ = await sent(context(attempt(), headers=headers), sample_ratio=ratio, trust_sampling=trusts)
    assert len(spans) == (2 if sampled else 0)


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_the_ratio_samples_the_traces_that_opentelemetrys_own_sampler_does(ratio: float) -> None:
    tracer, theirs, draw = traced(sample_ratio=ratio), TraceIdRatioBased(ratio), Random(7)
    for _ in range(200):
        trace = draw.getrandbits(128)
        ours = tracer.begin({}, f"{trace:032x}", CHAT).sampled
        assert ours == (theirs.should_sample(None, trace, "x").decision is Decision.RECORD_AND_SAMPLE)


@pytest.mark.parametrize("path", ["/healthz", "/health", "/ping", "/readyz", "/metrics"])
async def test_a_probe_is_not_traced(path: str) -> None:
    assert (await sent(context(path=path, method="GET")))[0] == []


# --- the spans ------------------------------------------------------------------------------------------------


async def test_the_requests_span_is_the_child_of_the_clients_and_the_parent_of_each_try() -> None:
    given = context(
        attempt(failure=EngineFailed("no")), attempt("tgi"), headers={b"traceparent": PARENT, b"tracestate": b"a=1"}
    )
    told: list[str] = []
    spans, _ = await sent(given, lambda trace: told.extend(trace.headers(n, "vllm")["traceparent"] for n in (0, 1)))
    server, *tries = spans
    assert (server.kind, server.name) == (Span.SPAN_KIND_SERVER, f"POST {CHAT}")
    assert server.parent_span_id.hex() == CALLER
    assert [(one.kind, one.name) for one in tries] == [(Span.SPAN_KIND_CLIENT, "chat tiny")] * 2
    assert {one.parent_span_id for one in tries} == {server.span_id}
    assert {one.trace_id.hex() for one in spans} == {CLIENT}
    assert {one.trace_state for one in spans} == {"a=1"}
    assert told == [f"00-{CLIENT}-{one.span_id.hex()}-01" for one in tries]
    assert "http.request.resend_count" not in attributes(tries[0])
    assert attributes(tries[1])["http.request.resend_count"] == 1


async def test_a_request_without_a_parent_begins_a_trace_that_has_its_own_id() -> None:
    (server,), _ = await sent(context(method="GET", path="/v1/models/org/tiny", model=""))
    assert (server.trace_id.hex(), server.parent_span_id, server.name) == (ID, b"", "GET /v1/models/{model}")
    assert attributes(server)["http.route"] == "/v1/models/{model}"


async def test_the_spans_have_the_accounts_times_on_the_wall_clock() -> None:
    (server, tried), _ = await sent(context(attempt(began=10.1, ended=10.9)))
    end = int(WALL * 1e9)  # is the monotonic clock's 11
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (end - 1_000_000_000, end)
    assert (tried.start_time_unix_nano, tried.end_time_unix_nano) == (end - 900_000_000, end - 100_000_000)


async def test_the_requests_span_speaks_http_by_the_semantic_conventions() -> None:
    (server, _), _ = await sent(context(attempt(), headers={b"user-agent": b"OpenAI/Python 2.0"}))
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "url.path": CHAT,
        "url.scheme": "http",
        "http.response.status_code": 200,
        "user_agent.original": "OpenAI/Python 2.0",
        "pointsman.model": "tiny",
    }


async def test_in_a_clients_trace_the_request_keeps_an_id_of_its_own() -> None:
    (server,), _ = await sent(context(headers={b"traceparent": PARENT}))
    assert (server.trace_id.hex(), attributes(server)["pointsman.request.id"]) == (CLIENT, ID)


async def test_a_request_that_a_client_named_says_so_in_its_own_trace_too() -> None:
    (server,), _ = await sent(context(client_id="a1b2-my-trace"))
    assert attributes(server)["pointsman.request.id"] == "a1b2-my-trace"
    assert server.trace_id.hex() == ID


async def test_a_method_that_no_convention_knows_is_not_named() -> None:
    (server,), _ = await sent(context(method="BREW"))
    assert (server.name, attributes(server)["http.request.method"]) == (f"HTTP {CHAT}", "_OTHER")


async def test_a_try_speaks_genai_by_the_semantic_conventions_and_in_their_types() -> None:
    call = chat(
        temperature=1, top_p=0.5, max_tokens=9, seed=3, stop=["a", "b"], n=2, presence_penalty=1, frequency_penalty=0,
        response_format={"type": "json_object"}, stream=True,
    )  # fmt: skip
    usage = Usage(
        prompt_tokens=12,
        completion_tokens=4,
        prompt_tokens_details={"cached_tokens": 8},
        completion_tokens_details={"reasoning_tokens": 1},
    )
    given = context(attempt(), streamed=True, first=10.4, usage=usage)

    def note(trace: Trace) -> None:
        assert trace.notes is not None
        trace.notes.call = call
        trace.notes.hear([{"choices": [{"index": 1, "finish_reason": "length"}]}])
        trace.notes.hear([{"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1}]}])

    (_, tried), _ = await sent(given, note)
    said = attributes(tried)
    assert said.pop("gen_ai.response.time_to_first_chunk") == pytest.approx(0.3)
    wanted = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.presence_penalty": 1.0,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.seed": 3,
        "gen_ai.request.stop_sequences": ["a", "b"],
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "json",
        "gen_ai.response.id": f"chatcmpl-{ID}",
        "gen_ai.response.model": "org/tiny",
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "server.address": "10.0.0.5",
        "server.port": 8000,
        "pointsman.deployment": "vllm-a",
    }
    assert {name: (type(one), one) for name, one in said.items()} == {
        name: (type(one), one) for name, one in wanted.items()
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/generate_stream", "text_completion"),
        ("/v1/responses", "chat"),
        ("/v1/rerank", "rerank"),
    ],
)
async def test_a_try_is_named_by_what_its_path_does(path: str, name: str) -> None:
    (_, tried), _ = await sent(context(attempt(), path=path))
    assert (tried.name, attributes(tried)["gen_ai.operation.name"]) == (f"{name} tiny", name)


async def test_what_the_client_did_not_ask_for_is_not_said() -> None:
    def note(trace: Trace) -> None:
        assert trace.notes is not None
        trace.notes.call = parse.completion(b'{"model": "tiny", "prompt": "hi"}', ID, 1)

    (_, tried), _ = await sent(context(attempt(), path="/v1/completions"), note)
    assert {name for name in attributes(tried) if name.startswith("gen_ai.request")} == {"gen_ai.request.model"}


async def test_adaptation_first_token_and_cache_are_events() -> None:
    given = context(attempt(adapted=("seed", "stop")), streamed=True, first=10.4)

    def note(trace: Trace) -> None:
        assert trace.notes is not None
        trace.notes.mark("cache", 10.05, result="miss")

    (server, tried), _ = await sent(given, note)
    end = int(WALL * 1e9)
    said = [(one.name, one.time_unix_nano - end, attributes(one)) for span in (server, tried) for one in span.events]
    assert said == [
        ("pointsman.cache", -950_000_000, {"pointsman.cache.result": "miss"}),
        ("pointsman.adapted", -900_000_000, {"pointsman.adapted.parameters": ["seed", "stop"]}),
        ("pointsman.first_token", -600_000_000, {}),
    ]


@pytest.mark.parametrize(
    ("failure", "status", "kind", "server_error", "try_error"),
    [
        (None, 200, None, False, False),
        (InvalidRequest("no"), 400, "invalid_request_error", False, True),
        (ContextExceeded("no"), 400, "context_length_exceeded", False, True),
        (Unauthorized("no"), 401, "invalid_api_key", False, True),
        (RateLimited("no"), 429, "rate_limit_exceeded", False, True),
        (EngineFailed("no"), 502, "engine_error", True, True),
        (EngineFailed("cut"), 200, "engine_error", True, True),
        (UpstreamConnectError("no"), 503, "engine_unreachable", True, True),
        (Unavailable("no"), 503, "overloaded", True, True),
        (UpstreamIdleTimeout("no"), 504, "engine_timeout", True, True),
        (Internal("no"), 500, "server_error", True, True),
        (ClientDisconnected(), 499, "client_left", False, False),
        (asyncio.CancelledError(), 0, "aborted", False, False),
    ],
)
async def test_each_way_out_ends_each_span_once_and_says_how(
    failure: BaseException | None, status: int, kind: str | None, server_error: bool, try_error: bool
) -> None:
    given = context(attempt(failure=failure), failure=failure, status=status)
    spans, _ = await sent(given)
    assert [one.name for one in spans] == [f"POST {CHAT}", "chat tiny"]
    assert [attributes(one).get("error.type") for one in spans] == [kind, kind]
    assert [one.status.code == one.status.STATUS_CODE_ERROR for one in spans] == [server_error, try_error]
    code = attributes(spans[0]).get("http.response.status_code")
    assert code == (status if status not in (0, 499) else None)


async def test_a_try_that_is_still_open_ends_with_its_request() -> None:
    (server, tried), _ = await sent(context(attempt(ended=0.0)))
    assert tried.end_time_unix_nano == server.end_time_unix_nano


async def test_a_request_is_recorded_once_even_if_it_is_told_to_twice() -> None:
    given = context(attempt())
    with over_http() as collector:
        tracer = traced(collector.url)
        trace = tracer.begin({}, ID, CHAT)
        for _ in range(2):
            tracer.record(given, trace, 11.0, wall())
        await tracer.close()
        assert (len(collector.spans), tracer.sent, tracer.lost) == (2, 2, 0)


# --- content --------------------------------------------------------------------------------------------------


def speak(trace: Trace) -> None:
    """Note a chat with a secret in question and answer."""
    assert trace.notes is not None
    trace.notes.call = chat(messages=[{"role": "system", "content": "Be kind."}, {"role": "user", "content": SECRET}])
    pieces: list[dict[str, Any]] = [
        {"role": "assistant", "content": "Call "},
        {"content": "555-0199.", "reasoning": "hm"},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "dial", "arguments": '{"n": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"555-0199"}'}}]},
    ]
    trace.notes.hear([{"choices": [{"index": 0, "delta": piece}]} for piece in pieces])
    trace.notes.hear([{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}])


async def test_nothing_that_was_said_is_told_unless_it_is_asked_for() -> None:
    failure = EngineFailed(f"The engine said: {SECRET}")
    for given in (context(attempt()), context(attempt(failure=failure), failure=failure)):
        spans, data = await sent(given, speak)
        assert len(spans) == 2
        assert b"555-0199" not in data
        assert b"kind." not in data


async def test_what_was_said_is_told_where_it_is_asked_for() -> None:
    (_, tried), _ = await sent(context(attempt()), speak, content=True)
    said = attributes(tried)
    assert json.loads(said["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be kind."}]},
        {"role": "user", "parts": [{"type": "text", "content": SECRET}]},
    ]
    call = {"type": "tool_call", "id": "c1", "name": "dial", "arguments": '{"n": "555-0199"}'}
    parts = [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "Call 555-0199."}, call]
    assert json.loads(said["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": parts, "finish_reason": "stop"}
    ]


async def test_what_matches_a_pattern_is_taken_out_of_question_answer_and_tool_call() -> None:
    (_, tried), data = await sent(context(attempt()), speak, content=True, redact=[r"\d{3}-\d{4}", "(?i)be KIND"])
    assert b"555-0199" not in data
    assert "my number is [redacted]" in attributes(tried)["gen_ai.input.messages"]
    assert attributes(tried)["gen_ai.output.messages"].count("[redacted]") == 2


async def test_a_whole_answer_is_told_like_a_stream() -> None:
    def note(trace: Trace) -> None:
        assert trace.notes is not None
        trace.notes.hear([cast(dict[str, Any], ANSWER)])

    (_, tried), _ = await sent(context(attempt()), note, content=True)
    (message,) = json.loads(attributes(tried)["gen_ai.output.messages"])
    parts = [{"type": "text", "content": "Grüße dir"}]
    assert message == {"role": "assistant", "parts": parts, "finish_reason": "stop"}


async def test_long_content_is_cut_so_that_spans_stay_small() -> None:
    def note(trace: Trace) -> None:
        assert trace.notes is not None
        trace.notes.call = chat(messages=[{"role": "user", "content": "x" * 20_000}] * 3)

    (_, tried), data = await sent(context(attempt()), note, content=True)
    kept = [one["parts"][0]["content"] for one in json.loads(attributes(tried)["gen_ai.input.messages"])]
    assert [len(text) for text in kept] == [16_385, 1, 1]
    assert len(data) < 20_000


# --- what is expected of OpenTelemetry ------------------------------------------------------------------------

RESOURCE, SCOPE = Resource({"service.name": "pointsman"}), InstrumentationScope("pointsman", "1")
MADE_OTHERWISE = {
    "ReadableSpan: ": object,
    "does not keep name": lambda **_: SimpleNamespace(),
}


@pytest.mark.parametrize(("module", "protocol"), [(http, "http/protobuf"), (grpc, "grpc")])
def test_the_installed_opentelemetry_is_as_expected(
    module: ModuleType, protocol: Literal["http/protobuf", "grpc"], caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(span_maker(RESOURCE, SCOPE), partial)
    traced(otlp_protocol=protocol)
    assert vars(module)["encode_spans"] is encoded
    assert caplog.records == []


@pytest.mark.parametrize("fault", MADE_OTHERWISE)
def test_spans_that_cannot_be_made_directly_are_made_by_the_tracer_and_are_the_same(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    directly, by_tracer = span_maker(RESOURCE, SCOPE), span_maker(RESOURCE, SCOPE, MADE_OTHERWISE[fault])
    assert isinstance(by_tracer, TracerSpans)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert fault in record.getMessage()
    for more in ({}, {"parent": None, "context": SpanContext(7, 8, False)}, {"status": Status(), "events": ()}):
        assert encode_spans([by_tracer(**SAMPLE | more)]) == encode_spans([directly(**SAMPLE | more)])


class Unrelated:
    def export(self, spans: Any) -> None:
        """Do nothing."""


def exporter_module(**names: Any) -> ModuleType:
    """Return an exporter of a later OpenTelemetry."""
    made = ModuleType("exporter")
    vars(made).update(names)
    return made


@pytest.mark.parametrize("names", [{}, {"OTLPSpanExporter": Unrelated, "encode_spans": encode_spans}])
def test_an_exporter_that_encodes_in_another_place_keeps_its_encoder(
    names: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    module = exporter_module(**names)
    use_fast_encoder(module)
    assert vars(module).get("encode_spans") is names.get("encode_spans")
    (record,) = caplog.records
    assert "exporter does not call encode_spans" in record.getMessage()


@pytest.mark.parametrize(
    ("other", "fault"),
    [(lambda spans: encode_spans(spans[:1]), "in another way"), (lambda spans: spans.gone, "AttributeError")],
    ids=["another result", "another form"],
)
def test_an_encoder_that_gives_something_else_stays_in_place(
    other: Callable[[Any], Any], fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the SDK that has changed here, by what it encodes."""
    monkeypatch.setattr(trace_encoder, "encode_spans", other)
    module = exporter_module(OTLPSpanExporter=http.OTLPSpanExporter, encode_spans=other)
    use_fast_encoder(module)
    assert vars(module)["encode_spans"] is other
    (record,) = caplog.records
    assert fault in record.getMessage()


# --- the collector --------------------------------------------------------------------------------------------


def test_spans_are_written_just_as_the_sdk_writes_them() -> None:
    tracer = traced(content=True)
    requests = [
        context(attempt(), headers={b"traceparent": PARENT, b"tracestate": b"a=1,b=2"}, streamed=True, first=10.4),
        context(attempt(failure=EngineFailed("no")), attempt("tgi", adapted=("seed",)), failure=Internal("no")),
        context(attempt(), usage=Usage(prompt_tokens=1, completion_tokens=1), streamed=True),  # 1 beside True
        context(method="GET", path="/v1/models"),
    ]
    spans = []
    for given in requests:
        trace = tracer.begin(given.headers, ID, given.path)
        assert trace.notes is not None
        speak(trace)
        trace.notes.mark("cache", 10.0, result="hit", age=0.5, fresh=True)
        spans += Spans("i").made(given, trace, trace.notes, 11.0, WALL)
    assert encoded(spans) == encode_spans(spans)


@pytest.mark.parametrize(("protocol", "receiver"), [("http/protobuf", over_http), ("grpc", over_grpc)])
async def test_the_spans_arrive_over_either_protocol(
    protocol: Literal["http/protobuf", "grpc"], receiver: Callable[[], AbstractContextManager[Collector]]
) -> None:
    with receiver() as collector:
        tracer = traced(collector.url, otlp_protocol=protocol)
        for _ in range(3):
            tracer.record(context(attempt()), tracer.begin({}, ID, CHAT), 11.0, wall())
        await tracer.close()
        assert (len(collector.spans), tracer.sent, tracer.lost) == (6, 6, 0)
        (resource,) = {json.dumps(attributes(one.resource_spans[0].resource)) for one in collector.requests}
        assert json.loads(resource)["service.name"] == "pointsman"
        assert collector.paths == (["/v1/traces"] if protocol == "http/protobuf" else [])


async def test_a_slash_at_the_end_of_the_endpoint_does_no_harm() -> None:
    with over_http() as collector:
        tracer = traced(collector.url + "/")
        tracer.record(context(), tracer.begin({}, ID, CHAT), 11.0, wall())
        await tracer.close()
        assert collector.paths == ["/v1/traces"]


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_export, "GRACE", 0.2)
    with over_http() as collector:
        collector.delay = 20.0
        tracer = traced(collector.url)
        began = time.monotonic()
        for _ in range(3000):
            tracer.record(context(attempt()), tracer.begin({}, ID, CHAT), 11.0, wall())
        await tracer.close()
        assert time.monotonic() - began < 10.0
        assert 6000 - 2048 - 2 * trace_export.BATCH <= tracer.lost <= 6000 - 2048


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_a_collector_that_is_gone_loses_spans_which_are_counted_and_is_told_of_once(
    protocol: Literal["http/protobuf", "grpc"], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace_export, "TIMEOUT", 0.3)
    monkeypatch.setattr(trace_export, "BATCH", 2)
    tracer = traced("http://127.0.0.1:9", otlp_protocol=protocol)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            tracer.record(context(attempt()), tracer.begin({}, ID, CHAT), 11.0, wall())
        await until(lambda: tracer.lost == 6)
    assert tracer.sent == 0
    (told,) = caplog.records
    assert told.levelname == "WARNING"
    assert told.getMessage().startswith("spans do not reach http://127.0.0.1:9, and are dropped until they do: ")
    await tracer.close()


async def test_a_collector_that_comes_back_is_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace_export, "BATCH", 2)
    with over_http() as collector, caplog.at_level(logging.INFO, "pointsman"):
        collector.status = 400
        tracer = traced(collector.url)
        tracer.record(context(attempt()), tracer.begin({}, ID, CHAT), 11.0, wall())
        await until(lambda: tracer.lost == 2)
        collector.status = 200
        tracer.record(context(attempt()), tracer.begin({}, ID, CHAT), 11.0, wall())
        await until(lambda: tracer.sent == 2)
        await tracer.close()
        assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]
        assert caplog.messages[1] == f"spans reach {collector.url} again; 2 were dropped"


@pytest.mark.parametrize(
    ("telemetry", "absent"),
    [("", "opentelemetry"), ("otlp_endpoint='http://127.0.0.1:9'", "grpc")],
    ids=["no export", "over HTTP"],
)
def test_what_is_not_used_is_not_imported(telemetry: str, absent: str) -> None:
    program = (
        "import sys, time, random\n"
        "from gateway.config.tables import TelemetryConfig\n"
        "from gateway.observe import tracing\n"
        f"tracing.make(TelemetryConfig({telemetry}), random.Random(1))\n"
        f"print({absent!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
