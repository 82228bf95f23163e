"""Each simulator, asked what a real engine was asked, answers alike: status, headers, shapes, reasons, error texts.

Texts and counts differ, as the recorded model had random weights and another tokenizer. Where a recorded answer hangs
on them, the simulator is launched (`launched`) or the request written (`REWRITTEN`) so that it comes to the same point.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from backends.sim import Options, parse_fault
from backends.sim.engine import Engine
from backends.sim.tgi import Tgi
from backends.sim.vllm import Vllm
from tests.support.asgi import Answer, ask
from tests.support.recorded import Recorded, load, names
from tests.support.shapes import events, finish_reasons, shape, stream_shape

CASES = [f"{engine}/{name}" for engine in ("vllm", "tgi") for name in names(engine)]
UNMATCHED = {
    "tgi/F02_stream_stalled_35s_keepalive": "one silence amid a stream: see test_keep_alive",
    "tgi/F07_chat_after": "the words of a router whose engine is gone: an `error` says those of one that died",
    "tgi/F08_chat_stream_after": "the same, streamed",
}
# What the recorded model happened to write, and what the pseudo model does, or a limit at which it is cut as well.
REWRITTEN = {
    "vllm/07_chat_stop_string": ("sess", "ov"),
    "vllm/07b_chat_stop_list": ("ssion", "er"),
    "vllm/07c_chat_stop_list_include": ("ssion", "er"),
    "vllm/07d_chat_stop_stream": ("ionsess", "ver wi"),
    "vllm/11_chat_json_schema": ('"max_tokens": 60', '"max_tokens": 3'),
    "vllm/11b_chat_json_object": ('"max_tokens": 20', '"max_tokens": 1'),
    "vllm/11j_json_schema_root_array": ('"max_tokens": 12', '"max_tokens": 2'),
    "vllm/11l_json_schema_stream": ('"max_tokens": 40', '"max_tokens": 3'),
    "vllm/B41_sse_keepalive": ('"max_tokens": 1000', '"max_tokens": 2'),
    "tgi/07b_chat_stop_list": ("ssion", "ver"),
    "tgi/07c_chat_stop_list_include": ("ssion", "ver"),
    "tgi/N08_generate_stop": ('"in"', '"amp"'),
    "tgi/N08c_generate_stop_two_tokens": ("main main", "lamp\\n"),
    "tgi/N102_stop_stream": ('"on"', '"ver"'),
    "tgi/N117_completion_stop": ('"in"', '"amp"'),
    "tgi/N118_completion_stop_stream": ('"in"', '"amp"'),
    "tgi/N52_stream_stop": ('"in"', '"amp"'),
    "tgi/N71_payload_over_2MB": ("<2,100,000 times the letter a>", "a" * 2_100_000),
    "tgi/N81_chat_rf_json_value": ('"max_tokens": 60', '"max_tokens": 3'),
    "tgi/N82_chat_rf_json_schema_value": ('"max_tokens": 60', '"max_tokens": 3'),
    "tgi/N83_chat_rf_json_object_value": ('"max_tokens": 60', '"max_tokens": 3'),
    "tgi/N85_tools_required_complete": ('"max_tokens": 100', '"max_tokens": 22'),
    "tgi/N86_tools_required_complete_stream": ('"max_tokens": 100', '"max_tokens": 22'),
    "tgi/N89_tools_named": ('"max_tokens": 100', '"max_tokens": 22'),
}
# What befell the engine, and what the model chose to do with tools, by the beginning of a recording's name.
FAULTS = {
    "vllm/B40d": "overload",
    "vllm/B43_": "error:4",
    "vllm/B43b": "error",
    "vllm/B43c": "unhealthy",
    **dict.fromkeys(("tgi/L10", "tgi/L11", "tgi/L12", "tgi/L13", "tgi/L14", "tgi/L15"), "overload"),
    **dict.fromkeys(("tgi/F03", "tgi/F05"), "error:4"),
    "tgi/F04": "error",
    **dict.fromkeys(("tgi/F06", "tgi/F09"), "unhealthy"),
    **dict.fromkeys(("tgi/N106", "tgi/N87"), "empty-tool"),
    **{f"tgi/N88_tools_auto_stream_seed{seed}": "empty-tool" for seed in (1, 3, 5)},
    **{f"tgi/N107_tools_enum_auto_seed{seed:02}": "empty-tool" for seed in (1, 3, 5, 7, 10, 11, 12)},
    **{f"tgi/N108_tools_enum_auto_stream_seed{seed:02}": "empty-tool" for seed in (1, 3, 5, 7, 10, 11, 12)},
}
CALLS = re.compile(r"tgi/N(107|108).*seed(02|04|09)|tgi/N88.*seed[46]")
_OWN_HEADERS = {"date", "connection", "content-length", "transfer-encoding", "server"}


async def no_sleep(_: float) -> None:
    """Time that passes at once."""


def launched(name: str) -> Engine:
    """The simulator with the flags of the server with which this was recorded; its answers don't end by themselves."""
    flags: dict[str, Any] = {"model": "tiny", "max_model_len": 1024, "answer_tokens": (5000, 5000)}
    if name.startswith("vllm/B"):
        flags |= {"api_key": "sekret", "request_id_headers": True, "prompt_tokens_details": True}
        flags |= {"aliases": ("alias2",), "max_concurrent": 2, "keep_alive_s": 1.0}
    elif name.startswith("vllm/"):
        flags["tools"] = False
    elif name.startswith("tgi/L"):
        flags |= {"api_key": "sekret", "max_concurrent": 2, "max_top_n": 20, "max_batch": 32, "max_stops": 8}
    if name.startswith("tgi/N119"):
        flags["answer_tokens"] = (8, 8)
    if name.startswith("vllm/B41"):
        flags["itl_ms"] = 1500
    flags["calls"] = CALLS.match(name) is not None
    flags["faults"] = tuple(parse_fault(fault) for start, fault in FAULTS.items() if name.startswith(start))
    return (Vllm if name.startswith("vllm/") else Tgi)(Options(**flags), sleep=no_sleep)


async def answered(name: str) -> tuple[Recorded, Answer]:
    """The recorded exchange, and what the simulator answers."""
    recorded = load(name)
    old, new = REWRITTEN.get(name, ("", ""))
    assert old.encode() in recorded.body
    body = recorded.body.replace(old.encode(), new.encode()) if old else recorded.body
    headers = {header: value for header, value in recorded.headers.items() if header != "content-length"}
    return recorded, await ask(launched(name), recorded.method, recorded.path, body, headers)


def test_the_lists_name_recordings() -> None:
    assert len(CASES) > 500
    assert {*UNMATCHED, *REWRITTEN} <= set(CASES)
    assert all(any(case.startswith(start) for case in CASES) for start in FAULTS)


@pytest.mark.parametrize("name", [case for case in CASES if case not in UNMATCHED])
async def test_answers_as_recorded(name: str) -> None:
    """Status, header names, content type; then keys, types, kinds of events, reasons, and errors to the letter."""
    recorded, answer = await answered(name)
    assert answer.status == recorded.status, answer.body[:500]
    assert answer.headers.keys() - _OWN_HEADERS == recorded.response_headers.keys() - _OWN_HEADERS
    kind = recorded.response_headers.get("content-type", "")
    assert answer.headers.get("content-type", "") == kind
    assert answer.headers["server"] == "pointsman-sim"
    if recorded.method == "HEAD" or recorded.path == "/metrics":
        return
    if "event-stream" in kind:
        assert stream_shape(answer.body) == stream_shape(recorded.response_body)
        ours, theirs = events(answer.body), events(recorded.response_body)
        assert finish_reasons(ours) == finish_reasons(theirs)
        assert [masked(event) for event in ours if "error" in event] == [masked(e) for e in theirs if "error" in e]
    elif "json" in kind and recorded.status == 200:
        ours, theirs = json.loads(answer.body), json.loads(recorded.response_body)
        assert shape(ours) == shape(theirs)
        assert finish_reasons(ours) == finish_reasons(theirs)
    else:
        assert masked(answer.body.decode()) == masked(recorded.response_body.decode())


def masked(error: Any) -> str:
    """An error without what hangs on the model: counts of prompt tokens, and where a tool call was cut."""
    text = error if isinstance(error, str) else json.dumps(error)
    text = re.sub(r"Given: \d+ `inputs`", "Given: # `inputs`", text)
    return re.sub(r"(Tool error: Failed to parse generated text: EOF while parsing).*", r"\1", text)


@pytest.mark.parametrize("name", [case for case in CASES if "metrics" in case])
async def test_metrics_have_recorded_names(name: str) -> None:
    """Every metric that a simulator shows is one of the engine's, of the same type, with the same labels."""
    recorded, answer = await answered(name)
    theirs = load("tgi/F01_metrics_after_client_left") if name.startswith("tgi/") else recorded
    assert answer.status == 200
    assert _types(answer.body) <= _types(theirs.response_body)


def _types(body: bytes) -> set[str]:
    return {line for line in body.decode().splitlines() if line.startswith("# TYPE")}
