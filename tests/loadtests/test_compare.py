"""The comparison of two engines as a command: its inputs, its exit statuses, and what its reports show and do not."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gateway.experiments.answers import SaidAnswer
from loadtests import compare
from loadtests.compare_front import SIDES, EngineUrl, Heard
from loadtests.compare_judge import Findings, Rules, judged
from loadtests.compare_run import Measured, Triple
from loadtests.compare_show import status
from loadtests.compare_workload import asked, generated, read_trace, rounds, sent
from tests.support.harness import STREAM, USAGE, Asked, Engine, Script, chunk, engine, says, streamed, whole

SECRET = "sk-live-4242424242"
CHAT = {"messages": [{"role": "user", "content": f"My key is {SECRET}."}], "max_tokens": 4, "temperature": 0}
SHORT = ("--rate", "20", "--minutes", "0.02", "--block", "0.2", "--patience", "5")


def recorded(place: Path, *lines: Any) -> str:
    """Write a trace; return its path."""
    file = place / "trace.jsonl"
    file.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(file)


async def comparing(*arguments: str) -> int:
    """Run the command beside the test's engines, in a thread with a loop of its own; return its exit status."""

    def work() -> int:
        try:
            return compare.main(arguments)
        except SystemExit as end:
            return int(end.code or 0)

    return await asyncio.to_thread(work)


def answering(*texts: str) -> Script:
    """Return the script of an engine that says these pieces."""
    pieces = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    end = json.dumps({"id": "x", "object": "o", "created": 1, "model": "m", "choices": [], "usage": USAGE})
    return says(streamed(*pieces, chunk({}, "stop"), f"data: {end}\n\n".encode(), b"data: [DONE]\n\n"))


USAGES = [
    ("no engine", [], "expected two engines (--vllm URL, --tgi URL), got 0"),
    ("three engines", ["--vllm", "http://a", "--tgi", "http://b", "--vllm", "http://c"], "got 3"),
    ("no URL", ["--vllm", "here", "--tgi", "http://b"], "http://"),
    ("no rate", ["--rate", "0"], "expected a number above 0"),
    ("no file", ["--vllm", "http://a", "--tgi", "http://b", "--trace", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
    ("names", ["--vllm", "http://a", "--vllm", "http://b", *["--model", "a"] * 3], "got 3"),
]


@pytest.mark.parametrize(("arguments", "said"), [row[1:] for row in USAGES], ids=[row[0] for row in USAGES])
async def test_wrong_usage_is_told_apart_from_an_inconclusive_comparison(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await comparing(*arguments) == compare.USAGE
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no request in it that can be compared"),
        (["", "not JSON", '{"a": 1}'], "1 times the line is not JSON; 1 times neither messages"),
        ([{"inputs": "hi"}], "1 times TGI's own API is not compared"),
        ([{"path": "/v1/embeddings", "body": {"input": "hi"}}], "another path than chat and completions"),
    ],
)
async def test_a_trace_without_requests_is_refused(
    lines: list[Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recorded(tmp_path, *lines)
    assert (
        await comparing("--vllm", "http://127.0.0.1:9", "--tgi", "http://127.0.0.1:9", "--trace", trace)
        == compare.USAGE
    )
    assert said in capsys.readouterr().err


async def test_an_engine_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with engine(says(b"")) as here, engine(says(b"")) as gone:
        gone.stop()
        assert await comparing("--vllm", here.url, "--tgi", gone.url, "--patience", "2") == 3
    printed = capsys.readouterr().err
    assert f"the treatment (tgi at {gone.url})" in printed
    assert "the control" not in printed


async def test_what_is_no_engine_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async with engine(says(b"")) as here, engine(says(whole({}, "404 Not Found"))) as stranger:
        stranger.facts = {}
        assert await comparing("--vllm", here.url, "--vllm", stranger.url, "--patience", "2") == 3
    assert "the treatment (vllm at" in capsys.readouterr().err


async def test_engines_that_serve_other_models_are_not_compared_unless_one_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with engine(says(streamed(*STREAM)), "old") as one, engine(says(streamed(*STREAM)), "new") as other:
        both = ("--vllm", one.url, "--vllm", other.url, *SHORT)
        assert await comparing(*both) == compare.USAGE
        assert "the engines serve other models: old (the control) and new (the treatment)" in capsys.readouterr().err
        assert await comparing(*both, "--model", "old") == compare.USAGE
        assert "the treatment serves new, not old" in capsys.readouterr().err
        assert (one.asked, other.asked) == ([], [])
        assert await comparing(*both, "--model", "old", "--model", "new") in (0, 1, 2)
    assert {one.asked[0].json["model"], other.asked[0].json["model"]} == {"old", "new"}


async def test_one_that_dies_midway_leaves_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    dying: list[Engine] = []

    async def tired(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if len(dying[0].asked) > 8:
            dying[0].stop()
        else:
            await says(streamed(*STREAM))(asked, writer)

    async with engine(says(streamed(*STREAM))) as here, engine(tired) as gone:
        dying.append(gone)
        arguments = ("--vllm", here.url, "--vllm", gone.url, *SHORT, "--minutes", "0.2", "--json")
        assert await comparing(*arguments) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["stopped"].startswith(f"the treatment (vllm at {gone.url})")
    assert 0 < report["measured"]["prompts"] <= 8
    assert report["engines"]["treatment"]["requests"] == report["measured"]["prompts"]
    assert report["status"] == 3


async def test_what_a_trace_says_is_shown_to_nobody_unless_wished_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the prompt, nor an answer that repeats it, nor an engine's refusal that quotes it."""
    refusal = whole(
        {"error": {"message": f"{SECRET} is bad", "type": "BadRequestError", "code": 400}}, "400 Bad Request"
    )

    async def echoing(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await answering("I see ", SECRET)(asked, writer)

    async def refusing(asked: Asked, writer: asyncio.StreamWriter) -> None:
        odd = len(refused.asked) % 2
        await (says(refusal) if odd else answering("I see ", "nothing of ", SECRET))(asked, writer)

    trace, page = recorded(tmp_path, *[{"request": CHAT | {"user": SECRET}}] * 20), tmp_path / "report.html"
    async with engine(echoing) as one, engine(refusing) as refused:
        both = ("--vllm", one.url, "--vllm", refused.url, "--trace", trace, "--html", str(page), *SHORT)
        for more in ((), ("--json",)):
            assert await comparing(*both, *more) in (1, 2)
            shown = capsys.readouterr().out + page.read_text()
            assert "400" in shown
            assert "unknown" in shown
            assert SECRET not in shown
        assert await comparing(*both, "--examples", "clear") in (1, 2)
        assert SECRET in page.read_text()
        assert SECRET in one.asked[0].body.decode()


async def test_the_page_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    async with engine(answering("Red <b>", ".")) as one, engine(answering("Blue", ".")) as other:
        await comparing("--vllm", one.url, "--vllm", other.url, *SHORT, "--html", str(page))
    text = page.read_text()
    assert "<svg" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert not {"<script", "http-equiv", "src=", "@import", "href="} & {
        word for word in ("<script", "src=", "href=") if word in text
    }
    assert "<b>" not in text
    assert "divergences per 1,000" in capsys.readouterr().out


async def test_progress_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "INTERVAL", 0.0)
    async with engine(says(streamed(*STREAM))) as one, engine(says(streamed(*STREAM))) as other:
        await comparing("--vllm", one.url, "--vllm", other.url, *SHORT)
    assert "Asking the engines: 1 of 6 blocks, 0 prompts compared" in capsys.readouterr().err


# --- the workload ----------------------------------------------------------------------------------------------------


def test_a_round_asks_the_control_twice_and_is_fair_to_both() -> None:
    """The treatment comes before the control's first block as often as after it; all blocks ask the same."""
    made = rounds(generated(Random(1), 16), 2.0, 6000.0, 1.0, SIDES, Random(2))
    orders = Counter(one.order for one in made)
    assert len(made) == 2000
    assert all(sorted(order) == ["control", "control", "treatment"] for order in orders)
    first = sum(count for order, count in orders.items() if order[0] == "treatment")
    assert first == pytest.approx(1000, abs=100)
    assert min(orders.values()) > 400
    assert all(len(one.times) == len(one.prompts) >= 1 for one in made)


def test_generated_requests_are_all_different_and_of_several_kinds() -> None:
    made = list(islice(generated(Random(1), 24), 300))
    assert len({json.dumps(one.body) for one in made}) == 300
    assert {one.path for one in made} == {"/v1/chat/completions", "/v1/completions"}
    assert all(one.body["max_tokens"] <= 24 for one in made)
    assert sum(not one.greedy for one in made) == pytest.approx(15, abs=15)
    assert any(one.schema for one in made)
    assert any("stop" in one.body for one in made)


def test_what_is_sampled_is_drawn_anew_each_time_and_the_rest_may_be_made_certain(tmp_path: Path) -> None:
    drawn = {"messages": [{"role": "user", "content": "hi"}], "seed": 4, "top_p": 0.5, "model": "x", "stream": False}
    [prompt] = read_trace(Path(recorded(tmp_path, drawn))).prompts
    assert (prompt.greedy, prompt.body) == (False, {"messages": drawn["messages"], "top_p": 0.5})
    [prompt] = read_trace(Path(recorded(tmp_path, drawn)), greedy=True).prompts
    assert (prompt.greedy, prompt.body) == (True, {"messages": drawn["messages"], "seed": 4, "temperature": 0})


def test_likely_tokens_are_asked_for_where_a_difference_may_be_a_tie() -> None:
    chat = asked("a", "/v1/chat/completions", {"messages": [], "temperature": 0}, False)
    assert json.loads(sent(chat, "m", logprobs=True, ids=True)) == {
        "messages": [],
        "temperature": 0,
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 5,
        "return_token_ids": True,
    }
    text = asked("a", "/v1/completions", {"prompt": "hi", "temperature": 0}, False)
    assert json.loads(sent(text, "m", logprobs=True, ids=False))["logprobs"] == 5
    with_tools = asked("a", "/v1/chat/completions", {"messages": [], "temperature": 0, "tools": [{}]}, False)
    for prompt, wished in ((chat, False), (with_tools, True)):
        assert "logprobs" not in json.loads(sent(prompt, "m", logprobs=wished, ids=False))


# --- the verdict -----------------------------------------------------------------------------------------------------


def heard(first: float, text: str = "It is red.", trouble: str = "") -> Heard:
    answer = SaidAnswer(text=text, finish="stop", prompt_tokens=5, completion_tokens=300)
    return Heard(answer, first, first + 3.0, first + 3.0, 0.0, trouble)


def found(
    factor: float = 1.0, text: str = "It is red.", trouble: str = "", stopped: str = ""
) -> tuple[Measured, Findings]:
    """Return the findings of 600 prompts in 40 rounds, with the treatment's first tokens later by a factor."""
    chance = Random(1)

    def one(number: int) -> Triple:
        times = [chance.lognormvariate(-2.0, 0.1) for _ in range(3)]
        prompt = asked(f"prompt {number}", "/v1/chat/completions", {"messages": [], "temperature": 0}, False)
        other = heard(times[2] * factor, text, trouble if number % 10 == 0 else "")
        return Triple(prompt, number % 40, False, heard(times[0]), heard(times[1]), other)

    measured = Measured([one(number) for number in range(600)], rounds=40, seconds=600.0, stopped=stopped)
    return measured, judged(measured, Rules(), Random(2))


@pytest.mark.parametrize(
    ("more", "expected", "why"),
    [
        ({}, 2, "answers: not yet known"),
        ({"text": "It is blue."}, 1, "worse: answers"),
        ({"factor": 1.1}, 1, "worse: time to first token"),
        ({"trouble": "500 internal"}, 1, "worse: failed requests"),
        ({"stopped": "the control is gone"}, 3, ""),
    ],
)
def test_the_exit_status_follows_from_the_findings(more: dict[str, Any], expected: int, why: str) -> None:
    measured, findings = found(**more)
    assert (status(measured, findings), why in findings.overall.why) == (expected, True)


def test_equal_engines_are_not_worse_once_enough_was_said() -> None:
    measured, findings = found(text="It is red.")
    longer = " ".join(["red"] * 30)
    same = [
        Triple(
            one.prompt,
            one.round,
            False,
            *(heard(each.first, longer) for each in (one.control, one.control_again, one.treatment)),
        )
        for one in measured.triples
    ]
    findings = judged(Measured(same, rounds=40, seconds=600.0), Rules(), Random(2))
    assert status(measured, findings) == 0


def test_times_are_not_compared_where_failures_are_one_engines_alone() -> None:
    _, findings = found(factor=0.8, trouble="500 internal")
    assert {one.judged.judgement for one in findings.latencies} == {"not comparable"}


def test_a_url_is_shown_without_what_may_be_secret() -> None:
    assert EngineUrl("vllm", f"https://me:{SECRET}@host:8000/v1?key={SECRET}").shown == "https://host:8000"
