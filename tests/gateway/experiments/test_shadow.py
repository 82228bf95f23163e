"""The same request asked beside: of whom, how much of it, and what is said of the answers; the client feels nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway import config
from gateway.__main__ import main
from gateway.access.keys import Keyring
from gateway.access.principal import Principal
from gateway.experiments.record import Record
from gateway.experiments.statistics.arms import Split
from tests.support.engine_answers import FAILED
from tests.support.experiments import NAME, WHOLE_CONTROL, WHOLE_TREATMENT, Trial, trial
from tests.support.harness import CHAT, TEXT, Asked, Script, asking, chunk, hangs, says, settled, streamed, until, whole

STREAMED = CHAT | {"stream": True}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    file = str(tmp_path / "e.sqlite3")
    return {"experiments": config.ExperimentsConfig(file=file), "shadow": 1.0, "weights": WHOLE_CONTROL}


def saying(
    *words: str, logprobs: dict[str, dict[str, float]] | None = None, prompt: int = 12, cached: int = 0
) -> Script:
    """Return the script of an engine that says these words, whole or streamed; with log probabilities if asked."""
    usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}  # type: ignore[assignment]

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if not asked.json.get("stream"):
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer = {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [choice],
                "usage": usage,
            }
            writer.write(whole(answer))
        else:
            writer.write(streamed(*_events(words, asked.json.get("logprobs"), logprobs or {}, usage)))
        await writer.drain()

    return script


def _events(words: tuple[str, ...], wanted: Any, logprobs: dict[str, dict[str, float]], usage: Any) -> list[bytes]:
    events = []
    for place, word in enumerate(words):
        event = json.loads(chunk({"content": word}, "stop" if place == len(words) - 1 else None)[6:])
        if wanted:
            top = logprobs.get(word, {word: -0.1})
            tops = [{"token": token, "logprob": value, "bytes": None} for token, value in top.items()]
            told = {"token": word, "logprob": top[word], "bytes": None, "top_logprobs": tops}
            event["choices"][0]["logprobs"] = {"content": [told]}
        events.append(b"data: " + json.dumps(event).encode() + b"\n\n")
    last = {"id": "x", "object": "o", "created": 1, "model": "m", "choices": [], "usage": usage}
    return [*events, b"data: " + json.dumps(last).encode() + b"\n\n", b"data: [DONE]\n\n"]


SAME = saying("a ", "b ", "c")
OTHER = saying("a ", "x ", "c")


def triples(made: Trial, wanted: bool, **more: Any) -> dict[str, Any]:
    """Return a chat whose conversation is asked of both arms once more, or of the treatment alone."""
    live = made.live
    for number in range(100):
        turns = [{"role": "user", "content": f"question {number}"}]
        unit = live._hash.of("", [f"user\0question {number}".encode()])
        if unit.is_third is wanted:
            return STREAMED | {"messages": turns} | more
    raise AssertionError("a third of the conversations")


async def shadowed(made: Trial, body: Any) -> Record:
    """Send a request; return the record once what is asked beside has its answers."""
    answer = await made.front.post(body)
    assert answer.status_code == 200
    await until(lambda: not made.front.services.shadows.in_flight)
    return await made.recorded()


@pytest.mark.parametrize("stream", [True, False])
async def test_the_treatment_is_asked_the_same_as_a_stream_after_the_client_has_its_answer(
    stream: bool, kept: Any
) -> None:
    async with trial(SAME, SAME, **kept) as made:
        record = await shadowed(made, triples(made, False, stream=stream, user="me"))
        (beside,) = made.treatment.asked
        assert beside.json["stream"] is True
        assert beside.json["stream_options"] == {"include_usage": True}
        assert "logprobs" not in beside.json
        assert "user" not in beside.json
        (own,) = made.control.asked
        assert beside.json["messages"] == own.json["messages"]
        assert beside.headers["x-request-id"] != own.headers["x-request-id"]
        assert "traceparent" not in beside.headers
    assert record.words("shadow") == {"compared": 1}
    assert record.words("shadow", "asked") == {"treatment": 1}
    assert record.words("answers", "treatment") == {"pairs": 1, "tokens": 3}


async def test_for_a_third_the_control_is_asked_once_more_both_with_log_probabilities_and_one_pair_of_times(
    kept: Any,
) -> None:
    async with trial(SAME, saying("a ", "b ", "c", cached=5), **kept) as made:
        record = await shadowed(made, triples(made, True))
        assert [asked.json.get("top_logprobs") for asked in made.control.asked] == [None, 5]
        assert [asked.json.get("top_logprobs") for asked in made.treatment.asked] == [5]
    (epoch,) = record.epochs
    for arm in ("control", "treatment"):
        assert (epoch.divergences(arm).pairs, epoch.divergences(arm).diverged) == (1, 0)
    for metric in ("ttft", "itl", "e2e"):
        assert sum(sums.n for sums in epoch.buckets("pair", metric).values()) <= 1
    assert sum(sums.n for sums in epoch.buckets("pair", "e2e").values()) == 1
    assert epoch.words("prefix", "treatment") == {"prompt": 12, "cached": 5}
    assert epoch.number("n", "control") == 1


NEARLY = {"x ": {"x ": -0.7, "b ": -0.8}, "b ": {"b ": -0.7, "x ": -0.9}}
CLEARLY = {"x ": {"x ": -0.1, "y ": -3.0}, "b ": {"b ": -0.1, "z ": -3.0}}


@pytest.mark.parametrize(
    ("control", "treatment", "triple", "counted"),
    [
        (SAME, OTHER, False, {"pairs": 1, "tokens": 2, "diverged": 1}),
        (saying("a ", "b ", "c", logprobs=NEARLY), saying("a ", "x ", "c", logprobs=NEARLY), True,
         {"pairs": 1, "tokens": 2, "diverged": 1, "ties": 1}),
        (saying("a ", "b ", "c", logprobs=CLEARLY), saying("a ", "x ", "c", logprobs=CLEARLY), True,
         {"pairs": 1, "tokens": 2, "diverged": 1, "hard": 1}),
        (SAME, saying("a ", "b "), False, {"pairs": 1, "tokens": 2, "stopped": 1}),
        (SAME, saying("a ", "b ", "c", prompt=13), False, {"pairs": 1, "prompts": 1}),
    ],
    ids=["unknown", "tie", "hard", "stop", "prompt"],
)  # fmt: skip
async def test_greedy_answers_are_compared_to_their_first_difference(
    control: Script, treatment: Script, triple: bool, counted: dict[str, int], kept: Any
) -> None:
    async with trial(control, treatment, **kept) as made:
        record = await shadowed(made, triples(made, triple))
    found = {name: value for name, value in record.words("answers", "treatment").items() if value}
    assert found == counted
    if triple:
        assert record.epochs[0].split("coin", "left_first") == Split(0, 1)


async def test_sampled_answers_toss_a_coin_once_for_a_conversation(kept: Any) -> None:
    async with trial(SAME, OTHER, **kept) as made:
        for _ in range(3):
            record = await shadowed(made, triples(made, True, temperature=1.0))
    assert record.epochs[0].split("coin", "farther") == Split(0, 1)
    assert record.words("answers", "treatment") == {}


@pytest.mark.parametrize(
    ("body", "more", "why"),
    [
        (TOOLS, {}, "tools"),
        ({"n": 2}, {}, "choices"),
        ({"seed": 1, "temperature": 1.0}, {}, "seed"),
        (TOOLS, {"shadow_tools": True}, ""),
    ],
)
async def test_what_is_not_asked_beside_is_counted_with_its_reason(body: Any, more: Any, why: str, kept: Any) -> None:
    async with trial(SAME, SAME, **kept | more) as made:
        await made.front.post(CHAT | body)
        await until(lambda: not made.front.services.shadows.in_flight)
        record = await made.recorded()
        assert (made.treatment.asked == []) is bool(why)
    assert record.words("shadow", "dropped") == ({why: 1} if why else {})


async def test_a_key_made_without_shadow_has_none(kept: Any) -> None:
    class Keys:
        def check(self, presented: str, now: float) -> Principal:
            return Principal(id="k", may_shadow=presented != "private")

    async with trial(SAME, SAME, **kept) as made:
        made.front.services.keyring = Keys()  # type: ignore[assignment]
        for key, asked in (("private", 0), ("open", 1)):
            await made.front.post(CHAT, authorization=f"Bearer {key}")
            await until(lambda: not made.front.services.shadows.in_flight)
            assert len(made.treatment.asked) == asked


def test_such_a_key_is_made_by_the_command(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    for name, more in (("private", ["--no-shadow"]), ("open", [])):
        made = CliRunner().invoke(main, ["keys", "create", "--file", str(file), "--name", name, *more])
        assert made.exit_code == 0, made.output
        principal = Keyring(file.read_text()).check(made.stdout.strip(), 0.0)
        assert principal.may_shadow is (name == "open")


@pytest.mark.parametrize("path", ["/v1/completions", "/generate"])
async def test_the_surfaces_that_the_gateway_translates_are_asked_beside(path: str, kept: Any) -> None:
    body = TEXT if path == "/v1/completions" else {"inputs": "hi", "parameters": {"max_new_tokens": 2}}
    script = says(whole({"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}], "usage": None}))
    async with trial(script, script, **kept) as made:
        await made.front.post(body, path)
        await until(lambda: not made.front.services.shadows.in_flight)
        assert len(made.treatment.asked) == (path == "/v1/completions")


async def test_the_treatments_own_requests_are_not_asked_beside(kept: Any) -> None:
    async with trial(SAME, SAME, **kept | {"weights": WHOLE_TREATMENT}) as made:
        await made.front.post(STREAMED)
        await settled(lambda: len(made.control.asked))
        assert made.control.asked == []


async def test_a_shadow_that_fails_is_counted_not_retried_and_held_against_nobody(kept: Any) -> None:
    async with trial(SAME, says(whole(FAILED, "500 Internal Server Error")), **kept) as made:
        record = await shadowed(made, triples(made, False))
        endpoint = made.front.services.catalog.endpoints[1]
        assert len(made.treatment.asked) == 1
        assert endpoint.breaker.open_until == 0
    assert record.words("shadow", "failed") == {"treatment": 1}
    assert record.total("event", "error", "treatment") == 0


async def test_so_many_are_under_way_at_once_and_the_end_of_the_gateway_ends_them(kept: Any) -> None:
    async with trial(SAME, hangs(), **kept | {"shadow_in_flight": 2}) as made:
        for number in range(4):
            await made.front.post(CHAT | {"messages": [{"role": "user", "content": f"{number}"}]})
        shadows = made.front.services.shadows
        assert shadows.in_flight == 2
        made.front.services.records.flush()
        assert made.live.tally.take().sums[f"{made.live.epoch}/shadow/dropped/in flight"] == 2
    assert shadows.in_flight == 0


async def test_a_client_never_waits_for_a_shadow(kept: Any) -> None:
    async with trial(SAME, hangs(), **kept) as made:
        async with asking(made.front, STREAMED) as task:
            answer = await task
        assert answer.status_code == 200
        await until(lambda: made.treatment.asked)


async def test_beyond_its_budget_nothing_is_asked_beside(kept: Any) -> None:
    async with trial(SAME, SAME, **kept | {"shadow": 0.001}) as made:
        made.live.settings = config.ExperimentConfig(
            name=NAME, control=["old"], treatment=["new"], shadow=0.001, ramp=(), primary=("ttft",)
        )
        draw = made.live._draw_shadow

        def all_of_them(place: Any, parts: Any, context: Any) -> None:
            draw(place, parts, context)
            place.shadow, place.conversation = "pair", place.unit

        made.live._draw_shadow = all_of_them  # type: ignore[method-assign]
        for number in range(36):
            await made.front.post(CHAT | {"messages": [{"role": "user", "content": f"{number}"}]})
            await until(lambda: not made.front.services.shadows.in_flight)
        assert len(made.treatment.asked) == 32
        assert (await made.recorded()).words("shadow", "dropped") == {"budget": 4}


@pytest.mark.parametrize("examples", ["redacted", "clear"])
async def test_a_few_examples_of_each_kind_are_kept_and_redacted_unless_asked_for(examples: str, kept: Any) -> None:
    async with trial(SAME, saying("a ", "SECRET ", "c"), **kept | {"examples": examples}) as made:
        for number in range(8):
            await made.front.post(CHAT | {"messages": [{"role": "user", "content": f"{number}"}]})
            await until(lambda: not made.front.services.shadows.in_flight)
            await made.recorded()
        record = await made.recorded()
    found = record.examples["pair-unknown"]
    assert len(found) == 5
    assert found[0]["offset"] == 2
    assert found[0]["client"]["characters"] == 5
    assert ("SECRET" in json.dumps(found)) is (examples == "clear")


async def test_nothing_of_a_shadow_is_a_request_of_anybodys(kept: Any) -> None:
    """It is in no metric and no log line, and charged to no key."""
    async with trial(SAME, SAME, **kept) as made:
        await shadowed(made, triples(made, True))
        text = (await made.front.client.get("/metrics")).text
        counted = [
            line for line in text.splitlines() if line.startswith("pointsman_requests_total{") and "chat" in line
        ]
        assert [line.rsplit(" ", 1)[1] for line in counted] == ["1.0"]
