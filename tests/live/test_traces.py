"""One trace through both: a real vLLM's own span is the child of the gateway's try, in the same collector."""

import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.live import vllm_engine
from tests.live.conftest import MODEL, Traced, wait_until_ready
from tests.support.collector import attributes
from tests.support.ports import free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

CALLER = "b7ad6b7169203331"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "temperature": 0}


@pytest.fixture
def gateway(traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway process that sends its traces where the engine does."""
    file = tmp_path_factory.mktemp("traces") / "pointsman.toml"
    file.write_text(
        f'[telemetry]\notlp_endpoint = "{traced.collector.url}"\n[[models]]\nname = "{MODEL}"\n'
        f'[[models.deployments]]\nname = "v"\nengine = "vllm"\nurl = "{traced.url}"\n'
    )
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--config", str(file), "--port", str(port)],
        cwd=vllm_engine.ROOT,
        start_new_session=True,
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        vllm_engine.stop(process)


def spans_of(trace: str, traced: Traced, count: int) -> dict[str, Span]:
    """Return the spans of a trace by their names, once so many have come."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = [span for span in traced.collector.spans if span.trace_id.hex() == trace]
        if len(found) >= count:
            return {span.name: span for span in found}
        time.sleep(0.1)
    pytest.fail(f"{[span.name for span in found]} came, of {count} spans")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_engines_own_span_is_the_child_of_the_try(stream: bool, gateway: str, traced: Traced) -> None:
    trace = f"{0x4BF92F3577B34DA6A3CE929D0E0E4736 + stream:032x}"
    answer = httpx.post(
        f"{gateway}/v1/chat/completions",
        json=CHAT | {"stream": stream},
        headers={"traceparent": f"00-{trace}-{CALLER}-01"},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200
    spans = spans_of(trace, traced, 3)
    engine = spans.pop("llm_request")
    server = next(span for span in spans.values() if span.kind == Span.SPAN_KIND_SERVER)
    tried = next(span for span in spans.values() if span.kind == Span.SPAN_KIND_CLIENT)
    assert server.parent_span_id.hex() == CALLER
    assert tried.parent_span_id == server.span_id
    assert engine.parent_span_id == tried.span_id
    assert tried.start_time_unix_nano <= engine.start_time_unix_nano <= tried.end_time_unix_nano
    assert attributes(tried)["gen_ai.usage.output_tokens"] == attributes(engine)["gen_ai.usage.completion_tokens"]
