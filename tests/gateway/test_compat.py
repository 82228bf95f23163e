"""`pointsman compat`: what is said of a request, by a table; what is made of any file; the exit statuses."""

import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gateway.cli import compat
from gateway.cli.compat import lines
from gateway.cli.compat.facts import Verdict
from gateway.cli.compat.judge import EXAMPLES, MAX_MODELS, MAX_REASONS, Tally
from gateway.cli.compat.records import UnreadableRecord, read
from gateway.cli.compat.show import document, status, tables

USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def chat(**more: Any) -> dict[str, Any]:
    return {"messages": [USER], "max_tokens": 4, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"prompt": "hi", "max_tokens": 4, **more}


def native(**more: Any) -> dict[str, Any]:
    return {"inputs": "hi", "parameters": {"max_new_tokens": 4, **more}}


def tally(*requests: Any, today: str = "tgi", then: str = "vllm") -> Tally:
    counted = Tally(today, then)
    for number, request in enumerate(requests, 1):
        counted.add(number, request if isinstance(request, bytes) else json.dumps(request).encode())
    return counted


def said(request: Any, today: str, then: str) -> set[tuple[str, str]]:
    """Return the verdicts and parameters of all reasons."""
    counted = tally(request, today=today, then=then)
    assert counted.unreadable == 0, counted.unread
    return {(seen.reason.verdict.word, seen.reason.parameter) for seen in counted.reasons.values()}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (chat(), set()),
        (chat(temperature=0), set()),
        (chat(user="u", metadata={"a": "b"}), set()),
        (chat(presence_penalty=0), {("changed", "presence_penalty")}),
        (chat(presence_penalty=0.5), {("changed", "presence_penalty")}),
        (chat(presence_penalty=None), set()),
        (text(presence_penalty=0), set()),
        (text(presence_penalty=0.5), {("changed", "presence_penalty")}),
        (chat(frequency_penalty=0), set()),
        (chat(frequency_penalty=0.1), {("changed", "frequency_penalty")}),
        (native(frequency_penalty=0.1), {("changed", "frequency_penalty")}),
        (chat(logit_bias={}), {("mended", "logit_bias")}),
        (text(logit_bias={"5": 1}), {("changed", "logit_bias")}),
        (chat(n=2), {("changed", "n")}),
        (chat(n=1), set()),
        (chat(stop=["x"]), {("changed", "stop")}),
        (chat(stop=list("vwxyz")), {("changed", "stop"), ("refused", "stop")}),
        (chat(stop="x"), {("mended", "stop")}),
        (native(stop=["x"]), {("handled", "stop")}),
        (text(max_tokens=None), {("changed", "max_tokens")}),
        (chat(max_tokens=None), set()),
        (chat(max_tokens=1500), {("changed", "max_tokens")}),
        (chat(max_completion_tokens=4), {("mended", "max_completion_tokens")}),
        (chat(temperature=0, top_p=0.5), {("changed", "top_p")}),
        (chat(top_p=1), {("mended", "top_p")}),
        (chat(seed=3), {("changed", "seed")}),
        (chat(seed=3, temperature=0), set()),
        (chat(seed=-3, temperature=0), {("mended", "seed")}),
        (native(seed=3), set()),  # parameters without do_sample are greedy
        (native(seed=3, do_sample=True), {("changed", "seed")}),
        (chat(logprobs=True), set()),
        (chat(logprobs=True, temperature=0.5), {("changed", "logprobs")}),
        (text(logprobs=2), {("changed", "logprobs")}),
        (text(echo=True), {("changed", "echo")}),
        (text(prompt=[1, 2]), {("mended", "prompt")}),
        (text(prompt=["a"] * 5), {("mended", "prompt")}),
        (chat(response_format={"type": "json_object"}), {("mended", "response_format")}),
        (chat(tools=[TOOL]), {("changed", "tools")}),
        (chat(tool_prompt="Use it."), {("changed", "tool_prompt")}),
        (chat(stream=None), {("mended", "stream")}),
        (chat(top_k=5), {("changed", "top_k")}),
        (chat(top_k=-1, min_p=0, repetition_penalty=1.0, ignore_eos=False), set()),
        (chat(repetition_penalty=1.2), {("changed", "repetition_penalty")}),
        (text(repetition_penalty=1.2), set()),
        (chat(min_p=0.1, foo=1), {("changed", "min_p"), ("changed", "foo")}),
        (chat(messages=[USER, {"role": "assistant", "content": "a"}]), {("changed", "messages")}),
        (
            chat(
                messages=[USER, {"role": "assistant", "content": "a"}],
                continue_final_message=True,
                add_generation_prompt=False,
            ),
            set(),
        ),
        (chat(messages=[{"role": "developer", "content": "a"}, USER]), {("changed", "messages[].role")}),
        (
            chat(
                messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
            ),
            {("changed", "messages[].content")},
        ),
        (chat(temperature=3), {("refused", "temperature")}),
        (chat(temperature="hot"), {("refused", "temperature")}),
        (text(suffix="s"), {("refused", "suffix")}),
        (chat(messages=[]), {("refused", "messages")}),
        (native(typical_p=0.5), {("refused", "typical_p")}),
        (native(temperature=3.0), {("refused", "temperature")}),
        (native(adapter_id="a"), {("changed", "adapter_id")}),
        ({"path": "/v1/embeddings", "body": {"input": "x"}}, {("mended", "/v1/embeddings")}),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_from_tgi_to_vllm(request_: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    found = said(request_, "tgi", "vllm")
    assert {one for one in found if one[0] != "handled" or one in expected} == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (chat(), set()),
        (chat(presence_penalty=0), set()),
        (
            chat(presence_penalty=0.5, frequency_penalty=1),
            {("refused", "presence_penalty"), ("refused", "frequency_penalty")},
        ),
        (chat(top_k=5, min_p=0.1), {("refused", "top_k"), ("refused", "min_p")}),
        (chat(stop="x"), {("handled", "stop")}),
        (chat(n=2, temperature=0), {("handled", "n")}),
        (chat(n=100), {("refused", "n")}),
        (chat(seed=1), {("changed", "seed")}),
        (chat(logprobs=True, top_logprobs=20, temperature=0), {("refused", "top_logprobs")}),
        (chat(messages=[USER, {"role": "assistant", "content": "a"}]), {("changed", "messages")}),
        (chat(tools=[TOOL]), {("changed", "tools")}),
        (text(echo=True, logprobs=1), {("refused", "echo")}),
        (chat(temperature="hot"), {("refused", "temperature")}),
        ({"path": "/v1/embeddings", "body": {"input": "x"}}, {("refused", "/v1/embeddings")}),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_from_vllm_to_tgi(request_: dict[str, Any], expected: set[tuple[str, str]]) -> None:
    found = said(request_, "vllm", "tgi")
    assert {one for one in found if one[0] != "handled" or one in expected} == expected


BODY = chat(temperature=0)


@pytest.mark.parametrize(
    ("line", "surface"),
    [
        (BODY, "chat"),
        (text(), "text"),
        (native(), "native"),
        ({"path": "/v1/chat/completions", "body": BODY}, "chat"),
        ({"method": "POST", "url": "/v1/completions", "custom_id": "1", "body": text()}, "text"),
        ({"url": "https://host:1/base/v1/chat/completions?a=b", "body": BODY}, "chat"),
        ({"path": "/v1/chat/completions", "body": json.dumps(BODY)}, "chat"),
        ({"ts": 1, "status": 200, "request": BODY}, "chat"),
        ({"ts": 1, "path": "/generate_stream", "request": native()}, "native"),
        ({"request": {"method": "POST", "url": "/v1/completions", "body": text()}}, "text"),
        ({"path": "/", "body": native()}, "native"),
        ({"path": "/v1/embeddings", "body": {"input": "x"}}, ""),
    ],
)
def test_a_request_is_found_in_whatever_it_was_recorded_by(line: dict[str, Any], surface: str) -> None:
    found = read(json.dumps(line).encode())
    assert found.surface == surface
    assert json.loads(found.body) in (BODY, text(), native(), {"input": "x"})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense", "not JSON"),
        (b'{"messages": [', "not JSON"),
        (b"[1]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1}', "neither messages"),
        (b'{"request": "GET / HTTP/1.1"}', '"request" is not JSON'),
        (b'{"method": "GET", "url": "/v1/models", "body": null}', "a GET"),
        (b'{"path": "/v1/chat/completions", "body": 3}', "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b'{"messages":' * 100_000, "not JSON"),
    ],
)
def test_a_line_that_is_no_request_is_counted_with_its_number(line: bytes, why: str) -> None:
    with pytest.raises(UnreadableRecord, match=why):
        read(line)
    counted = tally(BODY, line)
    assert (counted.requests, counted.unreadable) == (1, 1)
    assert counted.unread[0][0] == 2
    assert status(counted) == 0


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "prompt",
                        "inputs",
                        "parameters",
                        "path",
                        "body",
                        "request",
                        "role",
                        "content",
                        "stop",
                        "seed",
                        "tools",
                        "n",
                        "logprobs",
                        "top_k",
                        "response_format",
                        "type",
                        "tool_choice",
                        "function",
                        "name",
                        "url",
                    ]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode())
)
def test_nothing_in_a_file_raises(line: bytes) -> None:
    for today, then in (("tgi", "vllm"), ("vllm", "tgi")):
        counted = tally(line, today=today, then=then)
        assert counted.requests + counted.unreadable <= 1
        json.dumps(document(counted))


def test_a_request_has_the_worst_verdict_and_counts_for_each_of_its_reasons_once() -> None:
    counted = tally(chat(seed=1, stop="x", top_k=4), chat(seed=1), chat())
    assert counted.verdicts == {Verdict.CHANGED: 2, Verdict.SAME: 1}
    reasons = {row["parameter"]: row for row in document(counted)["reasons"]}
    assert reasons["seed"]["requests"] == 2
    assert reasons["seed"]["lines"] == [1, 2]
    assert reasons["seed"]["source"] == "2.1 seed"
    assert reasons["top_k"]["lines"] == [1]


def test_the_count_is_bounded_whatever_is_in_the_file() -> None:
    counted = Tally("tgi", "vllm")
    for number in range(2000):
        counted.add(number, json.dumps(chat(model=f"m{number}", **{f"field{number}": 1})).encode())
        counted.add(number, b"nonsense")
    assert len(counted.reasons) <= MAX_REASONS + 1
    assert len(counted.models) <= MAX_MODELS
    assert len(counted.unread) == EXAMPLES
    assert counted.requests == counted.unreadable == 2000
    assert sum(seen.requests for seen in counted.reasons.values()) == 2000


def test_lines_too_long_to_be_held_are_skipped_and_numbered() -> None:
    file = io.BytesIO(b"a\n" + b"b" * 50 + b"\nc\n" + b"d" * 10)
    assert list(lines(file, 10)) == [(1, b"a\n"), (2, None), (3, b"c\n"), (4, None)]


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes((json.dumps(chat(stop=["x"], messages=[USER] * 20)) + "\n").encode() * 5000)
    compat.run(str(file), "tgi", "vllm", True)
    tracemalloc.start()
    try:
        assert compat.run(str(file), "tgi", "vllm", True) == 1
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_the_table_fits_100_columns() -> None:
    counted = tally(*(chat(**{name * 40: 1}) for name in "abc"), native(typical_p=0.1), b"nonsense", chat(stop=["x"]))
    out = io.StringIO()
    Console(file=out, width=100).print(tables(counted))
    assert max(map(len, out.getvalue().splitlines())) <= 100
    assert "TGI leaves the stop text" in " ".join(out.getvalue().replace("│", " ").split())


def run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "compat", *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("words", "given_", "expected"),
    [
        (["--from", "tgi", "--to", "vllm", "-"], json.dumps(chat()), 0),
        (["--from", "tgi", "--to", "vllm", "-"], "", 0),
        (["--from", "tgi", "--to", "vllm", "-"], json.dumps(chat(presence_penalty=0)), 1),
        (["--from", "vllm", "--to", "tgi", "-"], json.dumps(chat(min_p=0.1)), 1),
        (["--from", "tgi", "--to", "vllm", "-"], "nonsense", 2),
        (["--from", "tgi", "--to", "tgi", "-"], "", 2),
        (["--from", "tgi", "--to", "vllm", "missing.jsonl"], "", 2),
        (["--from", "tgi", "--to", "vllm", "."], "", 2),
        (["--from", "sglang", "--to", "vllm", "-"], "", 2),
        (["-"], "", 2),
    ],
)
def test_exit_status(words: list[str], given_: str, expected: int) -> None:
    done = run(*words, given=given_)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_one_document_with_its_shape() -> None:
    done = run("--from", "tgi", "--to", "vllm", "--json", "-", given=json.dumps(chat(stop=["x"], model="m")) + "\nx\n")
    report = json.loads(done.stdout)
    assert report.keys() == {"from", "to", "requests", "counts", "unreadable", "reasons", "models", "status"}
    assert report["counts"] == {"same": 0, "handled": 0, "mended": 0, "changed": 1, "refused": 0}
    assert report["unreadable"] == {"count": 1, "examples": [{"line": 2, "why": "the line is not JSON"}]}
    assert report["reasons"][0].keys() == {"verdict", "parameter", "requests", "lines", "why", "advice", "source"}
    assert report["models"] == {"m": 1}
    assert report["status"] == done.returncode == 1
    assert done.stderr == ""
