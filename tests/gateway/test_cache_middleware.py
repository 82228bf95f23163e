"""The response cache over real sockets: what is kept, what is served of it, to whom, and what is said of that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import msgspec
import pytest

from gateway import config
from gateway.access.keys.text import digest
from gateway.http.errors import ShuttingDown
from tests.support.caching import MEMORY, STREAMED, given_back, joined, keeping, plain, said, tool_ids
from tests.support.engine_answers import FAILED, WRONG
from tests.support.harness import (
    ANSWER,
    CHAT,
    MODEL,
    STREAM,
    TEXT,
    USAGE,
    Asked,
    Script,
    checked,
    chunk,
    configured,
    cuts,
    engine,
    events,
    gateway,
    head,
    over,
    piece,
    says,
    streamed,
    until,
    whole,
)
from tests.support.keys import SECRET, changed, ring
from tests.support.processes import answers
from tests.support.scrape import scraped

MARKED = USAGE | {"prompt_tokens_details": {"cached_tokens": 12}}


def numbered() -> Script:
    """Return a script whose answers count: each is another than the last."""
    count = 0

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        message = {"role": "assistant", "content": f"number {count}"}
        writer.write(whole(ANSWER | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}))
        await writer.drain()

    return script


def text_of(answer: httpx.Response) -> str:
    content: str = answer.json()["choices"][0]["message"]["content"]
    return content


# --- what is served --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("then", [True, False])
async def test_what_was_kept_is_served_as_the_engine_would_have_said_it(path: str, first: bool, then: bool) -> None:
    body = CHAT if "chat" in path else TEXT
    script = answers() if "chat" in path else text_answers
    wanted = body | ({"stream": True, "stream_options": {"include_usage": True}} if then else {})
    async with over(script) as (bare, _):
        fresh = await bare.post(wanted, path)
    async with keeping(script) as (front, behind):
        one = await front.post(body | {"stream": first}, path)
        two = await front.post(wanted, path)
        assert (said(one), said(two), len(behind.asked)) == ("miss", "hit", 1)
    if first == then:
        assert plain(two) == plain(fresh)
    else:
        assert joined(plain(two)) == joined(plain(fresh))
    assert two.headers["content-type"] == fresh.headers["content-type"]
    assert two.headers["x-pointsman-engine"] == "cache"
    assert two.headers["age"] == "0"
    assert "x-pointsman-deployment" not in two.headers
    assert one.headers["x-pointsman-engine"] == "vllm"
    assert "age" not in one.headers


async def text_answers(asked: Asked, writer: asyncio.StreamWriter) -> None:
    def choice(text: str, finish: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}

    if not asked.json.get("stream"):
        writer.write(whole(ANSWER | {"object": "text_completion", "choices": [choice("Grüße dir", "stop")]}))
        return
    pieces = [
        {"id": "x", "object": "text_completion", "created": 1, "model": "own", "choices": [choice(*one)]}
        for one in (("Grüße", None), (" dir", "stop"))
    ]
    written = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in pieces]
    writer.write(streamed(*written, *STREAM[-2:]))
    await writer.drain()


@pytest.mark.parametrize("body", [CHAT, STREAMED])
async def test_usage_is_as_first_counted_and_marked_as_cached(body: dict[str, Any]) -> None:
    async with keeping(answers()) as (front, _):
        counted = [await front.post(body), await front.post(body)]
    usage = [answer.json()["usage"] if body is CHAT else events(answer.content)[-2]["usage"] for answer in counted]
    assert usage == [USAGE, MARKED]


async def test_a_stream_without_usage_is_played_without_it() -> None:
    async with keeping(answers()) as (front, _):
        await front.post(STREAMED)
        again = await front.post(CHAT | {"stream": True})
    assert not any("usage" in one for one in events(again.content) if isinstance(one, dict))


TOOL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "a\\nb"}'}}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
LOGPROBS = {"content": [{"token": "Gr", "logprob": -0.1, "bytes": [71, 114], "top_logprobs": []}]}


def answer_of(*choices: dict[str, Any]) -> dict[str, Any]:
    return ANSWER | {"choices": [{"index": place, "logprobs": None, **one} for place, one in enumerate(choices)]}


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        (
            {"tools": TOOLS},
            answer_of({"message": {"role": "assistant", "tool_calls": [TOOL]}, "finish_reason": "tool_calls"}),
        ),
        (
            {"functions": [TOOLS[0]["function"]]},
            answer_of({"message": {"role": "assistant", "tool_calls": [TOOL]}, "finish_reason": "tool_calls"}),
        ),
        (
            {"n": 2, "seed": 1, "temperature": 1},
            answer_of(*({"message": {"role": "assistant", "content": word}, "finish_reason": "stop"} for word in "ab")),
        ),
        (
            {"logprobs": True},
            answer_of(
                {"message": {"role": "assistant", "content": "Gr"}, "logprobs": LOGPROBS, "finish_reason": "length"}
            ),
        ),
    ],
    ids=["tools", "functions", "n", "logprobs"],
)
async def test_tools_choices_and_logprobs_come_back_as_they_were(more: dict[str, Any], answer: dict[str, Any]) -> None:
    async with keeping(says(whole(answer))) as (front, behind):
        one, two = await front.post(CHAT | more), await front.post(CHAT | more)
        streamed_ = await front.post(CHAT | more | {"stream": True})
    assert (said(two), said(streamed_), len(behind.asked)) == ("hit", "hit", 1)
    assert plain(two) == plain(one)
    assert ("function_call" in two.text) == ("functions" in more)
    reasons = joined(plain(streamed_))[1]
    assert reasons == [choice["finish_reason"] for choice in one.json()["choices"]]


CALLED = {
    "vllm": answer_of({"message": {"role": "assistant", "tool_calls": [TOOL, TOOL]}, "finish_reason": "tool_calls"}),
    "tgi": ANSWER
    | {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "tool_calls": [TOOL | {"id": "0"}, TOOL | {"id": "0"}]},
                "finish_reason": "stop",
            }
        ]
    },
}
PIECES = [
    chunk({"role": "assistant", "content": None}),
    chunk({"tool_calls": [{"index": 0} | TOOL]}),
    chunk({"tool_calls": [{"index": 1, "id": "call_2", "type": "function", "function": {"name": "look"}}]}),
    chunk({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}),
    chunk({}, "tool_calls"),
    *STREAM[-2:],
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", CALLED)
async def test_tool_calls_have_ids_of_their_own_in_each_answer(kind: str, stream: bool) -> None:
    """Those asked at once, of which all but one follow another, and hits, in either form."""
    streams = stream and kind == "vllm"  # TGI is not asked for streams of calls
    gate = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        writer.write(streamed(*PIECES) if streams else whole(CALLED[kind]))
        await writer.drain()

    body = CHAT | {"tools": TOOLS, "stream": stream}
    async with keeping(script, kind) as (front, behind):
        asking = [asyncio.ensure_future(front.post(body)) for _ in range(3)]
        await until(lambda: len(front.services.sweep.open) == 4)  # and what they share
        gate.set()
        told = [*await asyncio.gather(*asking), await front.post(body), await front.post(body | {"stream": not stream})]
        assert sorted(map(said, told)) == ["coalesced", "coalesced", "hit", "hit", "miss"]
        assert len(behind.asked) == 1
    ids = [one for answer in told for one in tool_ids(answer)]
    assert len(set(ids)) == len(ids) == 2 * len(told)
    assert all(one.startswith("call_") and len(one) == len("call_") + 24 for one in ids)


async def test_a_stream_is_played_at_the_pace_that_is_set() -> None:
    paced = config.CacheConfig(store="memory", pace=0.05)
    async with keeping(answers(), cache=paced) as (front, _):
        fresh = await front.post(STREAMED)
        began = asyncio.get_running_loop().time()
        again = await front.post(STREAMED)
        took = asyncio.get_running_loop().time() - began
    assert said(again) == "hit"
    assert plain(again) == plain(fresh)
    assert took >= 0.05 * (len(plain(again)) - 1)


async def test_a_paced_stream_that_the_gateway_ends_says_so() -> None:
    async with keeping(answers(), cache=config.CacheConfig(store="memory", pace=5.0)) as (front, _):
        await front.post(STREAMED)
        playing = asyncio.ensure_future(front.post(STREAMED))
        await until(lambda: any(one.status for one in front.services.sweep.open))
        front.services.stop()
        *_, last = events((await playing).content)
    assert last["error"]["code"] == ShuttingDown.code


# --- who is asked ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "told", "kept"),
    [
        ({"cache-control": "no-cache"}, "bypass", True),
        ({"x-pointsman-cache": "no-cache"}, "bypass", True),
        ({"cache-control": "max-age=0, No-Cache"}, "bypass", True),
        ({"cache-control": "no-store"}, "bypass", False),
        ({"x-pointsman-cache": "no-store"}, "bypass", False),
        ({"cache-control": "no-cache, no-store"}, "bypass", False),
        ({"cache-control": "max-age=0"}, "miss", True),
        ({"x-pointsman-cache": "please"}, "miss", True),
    ],
)
async def test_the_cache_words_are_obeyed(headers: dict[str, str], told: str, kept: bool) -> None:
    async with keeping(numbered()) as (front, behind):
        first = await front.post(CHAT, **headers)
        then = await front.post(CHAT)
    assert said(first) == told
    assert (said(then), len(behind.asked)) == (("hit", 1) if kept else ("miss", 2))


async def test_no_cache_puts_a_new_answer_in_the_place_of_the_old_one() -> None:
    async with keeping(numbered()) as (front, _):
        told = [await front.post(CHAT, **headers) for headers in ({}, {}, {"cache-control": "no-cache"}, {})]
    assert [text_of(answer) for answer in told] == ["number 1", "number 1", "number 2", "number 2"]


@pytest.mark.parametrize(
    ("more", "headers", "told"),
    [
        ({"temperature": 1}, {}, ["bypass", "bypass"]),
        ({"temperature": 1}, {"x-pointsman-cache": "cache"}, ["miss", "hit"]),
        ({"temperature": 1, "seed": 7}, {}, ["miss", "hit"]),
        ({"user": "somebody"}, {}, ["miss", "hit"]),
    ],
)
async def test_what_is_another_each_time_is_kept_only_if_the_client_asks(
    more: dict[str, Any], headers: dict[str, str], told: list[str]
) -> None:
    async with keeping(answers()) as (front, _):
        assert [said(await front.post(CHAT | more, **headers)) for _ in told] == told


async def test_without_a_cache_nothing_is_said_of_it() -> None:
    async with over(answers()) as (front, behind):
        for _ in range(2):
            answer = await front.post(CHAT)
            assert not {"x-pointsman-cache", "age"} & answer.headers.keys()
    assert len(behind.asked) == 2


async def test_a_name_and_its_alias_share_and_each_is_answered_by_its_own_name() -> None:
    async with engine(answers()) as behind:
        model = config.ModelConfig(
            name=MODEL,
            aliases=["other"],
            deployments=[config.DeploymentConfig(name="v", engine="vllm", url=behind.url)],
        )
        async with gateway(checked(config.Config(models=[model], cache=MEMORY))) as front:
            one = await front.post(CHAT)
            two = await front.post(CHAT | {"model": "other"})
    assert (said(one), said(two)) == ("miss", "hit")
    assert (one.json()["model"], two.json()["model"]) == (MODEL, "other")


async def test_tenants_do_not_share_and_keys_of_one_tenant_do() -> None:
    keys = [f"sk-pm-abcd234{digit}-{SECRET}" for digit in "567"]
    held = [
        changed(id=f"abcd234{digit}", name=digit, hash=f"sha256:{digest(key).hex()}", tenant=tenant)
        for digit, key, tenant in zip("567", keys, ("a", "a", "b"), strict=True)
    ]
    async with keeping(answers()) as (front, behind):
        front.services.keyring = ring(*held)
        told = [said(await front.post(CHAT, authorization=f"Bearer {key}")) for key in keys]
    assert (told, len(behind.asked)) == (["miss", "hit", "miss"], 2)


async def test_a_pinned_engine_has_answers_of_its_own() -> None:
    pins = ("vllm", "tgi", "vllm", "tgi")
    async with (
        engine(numbered()) as one,
        engine(numbered()) as two,
        gateway(configured(one.url, two.url, cache=MEMORY)) as front,
    ):
        told = [said(await front.post(CHAT, x_pointsman_engine=pin)) for pin in pins]
        assert (await front.post(CHAT, x_pointsman_engine="openai")).status_code == 400
    assert told == ["miss", "miss", "hit", "hit"]
    assert (len(one.asked), len(two.asked)) == (1, 1)


async def test_an_engine_that_comes_or_goes_by_a_reload_makes_other_answers() -> None:
    async with engine(numbered()) as one, engine(numbered()) as two:
        given = configured(one.url, cache=MEMORY)
        async with gateway(given) as front:
            await front.post(CHAT)
            assert said(await front.post(CHAT)) == "hit"
            front.services.reload.take(msgspec.structs.replace(given, models=configured(tgi=two.url).models))
            await until(lambda: front.services.catalog.routes[MODEL].served == ("tgi/tiny",))
            assert said(await front.post(CHAT)) == "miss"
            front.services.reload.take(given)
            await until(lambda: front.services.catalog.routes[MODEL].served == ("vllm/tiny",))
            assert said(await front.post(CHAT)) == "hit"


# --- what is not kept ------------------------------------------------------------------------------------------

UNFINISHED = ANSWER | {"choices": [ANSWER["choices"][0] | {"finish_reason": None}]}  # type: ignore[index]
ABORTED = chunk({"content": "x"}, "abort")


@pytest.mark.parametrize(
    ("script", "body"),
    [
        (cuts(head() + piece(STREAM[0]) + piece(STREAM[1])), STREAMED),
        (says(streamed(*STREAM[:2], *STREAM[3:])), STREAMED),  # no finish reason
        (says(streamed(STREAM[0], ABORTED, *STREAM[3:])), STREAMED),
        (says(streamed(STREAM[0], b"data: " + json.dumps(FAILED).encode() + b"\n\n", STREAM[-1])), STREAMED),
        (says(whole(UNFINISHED)), CHAT),
        (says(whole(FAILED, "500 x")), CHAT),
        (says(whole(WRONG, "400 x")), CHAT),
        (says(whole(WRONG, "429 x")), STREAMED),
    ],
    ids=["cut", "no reason", "aborted", "error in stream", "unfinished", "500", "400", "429"],
)
async def test_what_did_not_come_to_its_end_is_never_kept(script: Script, body: dict[str, Any]) -> None:
    async with keeping(script, retries=config.RetriesConfig(attempts=1)) as (front, behind):
        for _ in range(2):
            assert said(await front.post(body)) == "miss"
            await given_back(front)
        assert len(behind.asked) == 2
        assert front.services.cache is not None
        assert front.services.cache.store.held().entries == 0


async def test_an_answer_that_cannot_be_kept_is_an_answer_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.cache.policy.of_whole", broken)
    async with keeping(answers()) as (front, _):
        assert (await front.post(CHAT)).status_code == 200
        assert (await front.post(CHAT, cache_control="no-cache")).status_code == 200
    assert caplog.text.count("could not be kept") == 2


# --- what is counted -------------------------------------------------------------------------------------------


async def test_a_hit_is_counted_as_a_hit_and_never_as_a_sample_of_an_engines_latency() -> None:
    async with keeping(answers()) as (front, _):
        for body in (STREAMED, STREAMED, CHAT, CHAT | {"temperature": 1}):
            await front.post(body)
        await given_back(front)
        figures = await scraped(front.client)
    for result, count in (("miss", 1), ("hit", 2), ("bypass", 1), ("coalesced", 0)):
        assert figures.sum("pointsman_cache_requests_total", model=MODEL, result=result) == count
    assert figures.sum("pointsman_requests_total", engine="cache", deployment="", outcome="ok") == 2
    assert figures.sum("gen_ai_server_time_to_first_token_seconds_count") == 1
    assert figures.sum("gen_ai_server_time_to_first_token_seconds_sum") > 0
    assert figures.sum("gen_ai_server_time_per_output_token_seconds_count") == 1
    assert figures.sum("pointsman_overhead_seconds_count", stage="first_byte") == 2
    assert figures.sum("pointsman_overhead_seconds_count", stage="queue") == 2
    assert figures.sum("pointsman_cache_entries") == 1
