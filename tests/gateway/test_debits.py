"""What a key is debited: whatever an engine worked for it, on every path, however the answer ended.

Each row of the table is a path in front of an engine. The debit is read off the headers of `/v1/models`, which itself
costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from backends.estimate import of_body, of_bytes
from gateway import config
from tests.support.caching import MEMORY, gated
from tests.support.harness import (
    ANSWER,
    CHAT,
    STREAM,
    TEXT,
    USAGE,
    Asked,
    Engine,
    Gateway,
    Script,
    asking,
    begun,
    chunk,
    cuts,
    engine,
    gateway,
    hangs,
    head,
    leave,
    piece,
    says,
    streamed,
    until,
    whole,
)
from tests.support.metered import asked, debited, idle, is_stopped, limit, lines, logged
from tests.support.pairs import pair, settings
from tests.support.scrape import scraped

TEN = 10  # pieces of an answer, a token each
USED = {"prompt_tokens": 12, "completion_tokens": TEN, "total_tokens": 12 + TEN}
DETAILS = {"finish_reason": "length", "generated_tokens": TEN, "seed": None, "input_length": 12}
PROMPT = "Say something. " * 8
LONG = "word " * 40
CHAT_PATH, TEXT_PATH = "/v1/chat/completions", "/v1/completions"
SAMPLED = CHAT | {"messages": [{"role": "user", "content": PROMPT}], "temperature": 1.0}
BODIES = {CHAT_PATH: SAMPLED, TEXT_PATH: TEXT | {"prompt": PROMPT, "temperature": 1.0}}
NATIVE = {"inputs": PROMPT, "parameters": {"max_new_tokens": 20}}
DONE = b"data: [DONE]\n\n"
GREEDY = CHAT | {"messages": SAMPLED["messages"]}


def estimated(body: dict[str, Any]) -> int:
    """Return the tokens that a body's prompt is estimated to have."""
    return of_body(json.dumps(body).encode())


# --- what the engines say -------------------------------------------------------------------------------------------


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def text_chunk(finish: str | None = None) -> bytes:
    return event({"id": "x", "choices": [{"index": 0, "text": "x", "finish_reason": finish}]})


def vllm_token(finish: str | None = None) -> bytes:
    """Write an event of vLLM's as TGI's paths ask for it: with its token's id."""
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [0]}
    choice = {"index": 0, "text": "a", "finish_reason": finish, "token_ids": [1], "logprobs": logprobs}
    return event({"choices": [choice]})


def tgi_token(text: str | None = None, details: dict[str, Any] | None = None) -> bytes:
    token = {"id": 1, "text": "a", "logprob": -1.0, "special": False}
    return event({"index": 1, "token": token, "generated_text": text, "details": details})


def tgi_chunk(finish: str | None = None, usage: dict[str, int] | None = None) -> bytes:
    delta = {"role": "assistant", "content": "x"}
    return event({"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], "usage": usage})


@dataclass(frozen=True)
class Said:
    """What an engine says on a path: a token of a stream, the last one without counts and with; a whole answer.

    The whole one's text is LONG, without counts (if there can be such) and with.
    """

    token: bytes
    last: bytes
    counted: bytes
    bare: bytes
    whole: bytes


def openai(token: bytes, last: bytes, **choice: Any) -> Said:
    answer = {"choices": [{"index": 0, "finish_reason": "stop"} | choice]}
    counted = last + event({"choices": [], "usage": USED}) + DONE
    return Said(token, last + DONE, counted, whole(answer), whole(answer | {"usage": USED}))


def tgi(text: str) -> Said:
    answer: Any = {"generated_text": text}
    counts = f"x-prompt-tokens: 12\r\nx-generated-tokens: {TEN}\r\n"
    last = tgi_token("a")
    return Said(tgi_token(), last, tgi_token("a", DETAILS), whole([answer]), whole([answer], headers=counts))


OF_CHAT = openai(
    chunk({"content": "x"}), chunk({"content": "x"}, "stop"), message={"role": "assistant", "content": LONG}
)
OF_TEXT = openai(text_chunk(), text_chunk("stop"), text=LONG)
OF_VLLMS_TOKENS = openai(vllm_token(), vllm_token("length"), text=LONG)
TGI_CHAT = {"choices": [{"index": 0, "message": {"role": "assistant", "content": LONG}, "finish_reason": "stop"}]}
TGI_GENERATED = {"generated_text": LONG, "details": DETAILS | {"prefill": [], "tokens": []}}
TGI_COUNTS = "x-prompt-tokens: 12\r\n"

TABLE: dict[str, Said] = {
    f"vllm {CHAT_PATH}": OF_CHAT,
    f"vllm {TEXT_PATH}": OF_TEXT,
    "vllm /generate": OF_VLLMS_TOKENS,
    "vllm /": OF_VLLMS_TOKENS,
    f"openai {CHAT_PATH}": OF_CHAT,
    f"openai {TEXT_PATH}": OF_TEXT,
    f"tgi {CHAT_PATH}": Said(
        tgi_chunk(),
        tgi_chunk("length") + DONE,
        tgi_chunk("length", USED) + DONE,
        b"",
        whole(TGI_CHAT | {"usage": USED}),
    ),
    f"tgi {TEXT_PATH}": Said(tgi_token(), b"", tgi_token("a", DETAILS), b"", whole(TGI_GENERATED, headers=TGI_COUNTS)),
    "tgi /generate": tgi(LONG),
    "tgi /": tgi(PROMPT + LONG),
}


def streaming(name: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the body that ask for a stream."""
    path = name.split()[1]
    body = BODIES.get(path, NATIVE)
    return ("/generate_stream", body) if path == "/generate" else (path, body | {"stream": True})


def plain(name: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the body that ask for a whole answer."""
    path = name.split()[1]
    return path, BODIES.get(path, NATIVE)


@asynccontextmanager
async def metered(name: str, script: Script, **more: Any) -> AsyncIterator[tuple[Gateway, Engine]]:
    """Run a gateway for a key with many tokens, over an engine of a row's kind; it asks only once."""
    once = config.RetriesConfig(attempts=1)
    async with (
        engine(script) as behind,
        gateway(settings([(name.split(maxsplit=1)[0], behind.url)], retries=once, **more)) as front,
    ):
        limit(front)
        yield front, behind


# --- streams --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
async def test_a_stream_with_counts_debits_them(name: str) -> None:
    said, (path, body) = TABLE[name], streaming(name)
    async with metered(name, says(streamed(9 * said.token + said.counted))) as (front, _):
        out = logged(front)
        assert (await asked(front, body, path)).status_code == 200
        assert await debited(front) == 12 + TEN
        (line,) = lines(front, out)
        assert (line["prompt_tokens"], line["completion_tokens"]) == (12, TEN)
        assert "usage_estimated" not in line
        assert await is_stopped(front, body, path)


@pytest.mark.parametrize("name", [name for name, said in TABLE.items() if said.last])
async def test_a_stream_without_counts_debits_its_prompts_estimate_and_what_came(name: str) -> None:
    said, (path, body) = TABLE[name], streaming(name)
    async with metered(name, says(streamed(9 * said.token + said.last))) as (front, _):
        out = logged(front)
        assert (await asked(front, body, path)).status_code == 200
        assert await debited(front) == estimated(body) + TEN
        (line,) = lines(front, out)
        assert (line["prompt_tokens"], line["completion_tokens"]) == (estimated(body), TEN)
        assert (line["usage_estimated"], line["outcome"]) == (True, "ok")
        assert await is_stopped(front, body, path)


@pytest.mark.parametrize("name", TABLE)
async def test_a_stream_that_the_engine_cuts_debits_its_prompts_estimate_and_what_came(name: str) -> None:
    said, (path, body) = TABLE[name], streaming(name)
    async with metered(name, cuts(head() + piece(TEN * said.token))) as (front, _):
        out = logged(front)
        assert b'"error"' in (await asked(front, body, path)).content
        assert await debited(front) == estimated(body) + TEN
        assert lines(front, out)[0]["usage_estimated"]
        assert await is_stopped(front, body, path)


@pytest.mark.parametrize("name", TABLE)
async def test_a_stream_that_the_client_leaves_debits_its_prompts_estimate_and_what_came(name: str) -> None:
    said, (path, body) = TABLE[name], streaming(name)
    async with metered(name, hangs(head() + piece(TEN * said.token))) as (front, behind):
        out = logged(front)
        async with asking(front, body, path, authorization="Bearer k"):
            await until(lambda: begun(front))
        await until(lambda: behind.left)
        assert await debited(front) == estimated(body) + TEN
        (line,) = lines(front, out)
        assert (line["outcome"], line["usage_estimated"]) == ("client_left", True)


@pytest.mark.parametrize("name", TABLE)
async def test_a_stream_that_is_left_before_its_first_event_debits_its_prompts_estimate(name: str) -> None:
    path, body = streaming(name)
    async with metered(name, hangs(head())) as (front, behind):
        async with asking(front, body, path, authorization="Bearer k"):
            await until(lambda: behind.asked)
        assert await debited(front) == estimated(body)


async def test_a_cut_stream_debits_the_usage_that_the_engine_has_said_so_far() -> None:
    """vLLM's `continuous_usage_stats`, which count a prompt that is longer than its estimate."""
    pieces = [
        chunk({"content": "x"}, usage={"prompt_tokens": 500, "completion_tokens": 7 * n, "total_tokens": 500 + 7 * n})
        for n in (1, 2)
    ]
    body = SAMPLED | {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    async with metered("vllm", cuts(head() + piece(b"".join(pieces)))) as (front, _):
        out = logged(front)
        await asked(front, body, CHAT_PATH)
        assert await debited(front) == 514
        assert "usage_estimated" not in lines(front, out)[0]


async def test_a_cut_stream_debits_at_least_what_came_whatever_the_engine_has_said() -> None:
    pieces = TEN * chunk({"content": "x"}, usage={"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9})
    async with metered("openai", cuts(head() + piece(pieces))) as (front, _):
        await asked(front, SAMPLED | {"stream": True}, CHAT_PATH)
        assert await debited(front) == 9 + TEN


async def test_a_piece_of_many_tokens_counts_by_its_text() -> None:
    """As with vLLM's `stream_interval`, which a client may set."""
    async with metered("vllm", cuts(head() + piece(chunk({"content": LONG})))) as (front, _):
        body = SAMPLED | {"stream": True, "stream_interval": 1000}
        await asked(front, body, CHAT_PATH)
        assert await debited(front) == estimated(body) + of_bytes(len(LONG))


@pytest.mark.parametrize(
    "delta",
    [{"reasoning": "x"}, {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "x"}}]}],
)
async def test_thoughts_and_calls_count_as_text_does(delta: dict[str, Any]) -> None:
    async with metered("vllm", cuts(head() + piece(TEN * chunk(delta)))) as (front, _):
        body = SAMPLED | {"stream": True}
        await asked(front, body, CHAT_PATH)
        assert await debited(front) == estimated(body) + TEN


async def test_of_choices_asked_one_by_one_each_is_debited_and_their_prompt_once() -> None:
    """TGI; one choice ends with counts, the other is cut."""
    said = TABLE[f"tgi {CHAT_PATH}"]
    turns = iter([says(streamed(9 * said.token + said.counted)), cuts(head() + piece(3 * said.token))])

    async def script(request: Asked, writer: asyncio.StreamWriter) -> None:
        await next(turns)(request, writer)

    async with metered("tgi", script) as (front, _):
        await asked(front, SAMPLED | {"stream": True, "n": 2}, CHAT_PATH)
        assert 12 + 3 < await debited(front) <= 12 + TEN + 3  # the cut may come first


async def test_a_stream_that_begins_with_tgis_refusal_debits_no_tokens() -> None:
    refused = event({"error": "Input validation error: too long", "error_type": "validation"})
    async with metered("tgi", says(streamed(refused))) as (front, _):
        await asked(front, NATIVE, "/generate_stream")
        assert await debited(front) == 0


# --- whole answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
async def test_a_whole_answer_with_counts_debits_them(name: str) -> None:
    said, (path, body) = TABLE[name], plain(name)
    async with metered(name, says(said.whole)) as (front, _):
        assert (await asked(front, body, path)).status_code == 200
        assert await debited(front) == 12 + TEN
        assert await is_stopped(front, body, path)


@pytest.mark.parametrize("name", [name for name, said in TABLE.items() if said.bare])
async def test_a_whole_answer_without_counts_debits_an_estimate(name: str) -> None:
    said, (path, body) = TABLE[name], plain(name)
    async with metered(name, says(said.bare)) as (front, _):
        out = logged(front)
        assert (await asked(front, body, path)).status_code == 200
        assert await debited(front) == estimated(body) + of_bytes(len(LONG))
        assert lines(front, out)[0]["usage_estimated"]
        assert await is_stopped(front, body, path)


@pytest.mark.parametrize("name", TABLE)
async def test_a_whole_answer_that_is_left_early_debits_its_prompts_estimate(name: str) -> None:
    path, body = plain(name)
    async with metered(name, hangs()) as (front, behind):
        out = logged(front)
        async with asking(front, body, path, authorization="Bearer k"):
            await until(lambda: behind.asked)
        assert await debited(front) == estimated(body)
        assert lines(front, out)[0]["usage_estimated"]
        assert await is_stopped_by_leaving(front, body, path)


async def is_stopped_by_leaving(front: Gateway, body: dict[str, Any], path: str) -> bool:
    limit(front, tokens_per_minute=await debited(front))
    return (await asked(front, body, path)).status_code == 429


USAGES = {
    "no total": ({"prompt_tokens": 12, "completion_tokens": TEN}, 12 + TEN),
    "no answer's": ({"prompt_tokens": 12, "total_tokens": 12}, 12 + of_bytes(len(LONG))),
    "all 0": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
    "a total that says more": ({"prompt_tokens": 12, "completion_tokens": TEN, "total_tokens": 50}, 50),
}


@pytest.mark.parametrize("name", USAGES)
async def test_a_usage_that_does_not_say_all_is_completed(name: str) -> None:
    usage, expected = USAGES[name]
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": LONG}, "finish_reason": "stop"}]}
    async with metered("openai", says(whole(answer | {"usage": usage}))) as (front, _):
        await asked(front, SAMPLED, CHAT_PATH)
        assert await debited(front) == (expected or estimated(SAMPLED) + of_bytes(len(LONG)))


# --- what is not charged --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_fails_before_its_answer_costs_nothing_and_its_retry_once(stream: bool) -> None:
    broken, sound = says(whole({"error": {"message": "no"}}, "500 x")), TABLE[f"vllm {CHAT_PATH}"]
    good = says(streamed(9 * sound.token + sound.counted) if stream else sound.whole)
    async with pair(broken, good, ("vllm", "vllm")) as engines:
        limit(engines.front)
        answer = await asked(engines.front, SAMPLED | {"stream": stream}, CHAT_PATH)
        assert (answer.status_code, answer.headers["x-pointsman-deployment"]) == (200, "second")
        assert await debited(engines.front) == 12 + TEN
        engines.afresh(broken, broken)
        assert (await asked(engines.front, SAMPLED | {"stream": stream}, CHAT_PATH)).status_code == 502
        assert await debited(engines.front) == 12 + TEN


async def test_a_hedge_that_lost_costs_nothing() -> None:
    good = says(streamed(9 * OF_CHAT.token + OF_CHAT.counted))
    async with pair(hangs(head()), good, ("vllm", "vllm"), hedge_after=0.01) as engines:
        limit(engines.front)
        answer = await asked(engines.front, SAMPLED | {"stream": True}, CHAT_PATH)
        assert answer.content.endswith(DONE)
        assert len(engines.first.asked) == 1
        assert await debited(engines.front) == 12 + TEN


async def test_a_request_that_is_left_in_the_queue_costs_no_tokens() -> None:
    async with pair(hangs(), hangs(), ("vllm", "vllm"), busy=1) as engines:
        front = engines.front
        limit(front)
        async with (
            asking(front, SAMPLED, authorization="Bearer one"),
            asking(front, SAMPLED, authorization="Bearer two"),
        ):
            await until(lambda: engines.first.asked and engines.second.asked)
            async with asking(front, SAMPLED, authorization="Bearer k"):
                await until(lambda: len(front.services.sweep.open) == 3)
            await until(lambda: len(front.services.sweep.open) == 2)
        assert await debited(front) == 0
        assert await debited(front, "one") == estimated(SAMPLED)


# a method, a path, a body, and whether it counts as a request
REQUESTS = {
    "the models": ("GET", "/v1/models", None, False),
    "a model": ("GET", "/v1/models/tiny", None, False),
    "no such model": ("GET", "/v1/models/none", None, False),
    "info": ("GET", "/info", None, False),
    "alive": ("GET", "/healthz", None, False),
    "ready": ("GET", "/readyz", None, False),
    "no such path": ("POST", "/v1/nothing", {}, False),
    "tokens": ("POST", "/tokenize", {"model": "tiny", "prompt": "x"}, True),
    "no tokens": ("POST", "/detokenize", {"model": "tiny", "tokens": [1]}, True),
    "an answer": ("POST", CHAT_PATH, SAMPLED, True),
    "refused": ("POST", CHAT_PATH, {"model": "tiny"}, True),
    "for no model": ("POST", CHAT_PATH, SAMPLED | {"model": "none"}, True),
    "refused by TGI's words": ("POST", "/generate", {}, True),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_counts_as_a_request(name: str) -> None:
    """Lists and health do not, nor are they refused; what is refused before an engine was asked does."""
    method, path, body, counts = REQUESTS[name]
    auth = {"authorization": "Bearer k"}
    async with metered("vllm", says(whole(ANSWER))) as (front, _):
        limit(front, requests_per_minute=2)
        for _ in range(1 if counts else 5):
            answer = await front.client.request(method, path, json=body, headers=auth)
            assert answer.status_code != 429
        listed = await front.client.get("/v1/models", headers=auth)
        assert listed.headers["x-ratelimit-remaining-requests"] == str(2 - counts)
        for _ in range(3):
            await front.post(SAMPLED, authorization="Bearer k")
        answer = await front.client.request(method, path, json=body, headers=auth)
        assert (answer.status_code == 429) == counts


async def test_a_list_needs_a_good_key_and_takes_no_place_in_flight() -> None:
    async with metered("vllm", hangs()) as (front, behind):
        limit(front, max_in_flight=1)
        assert (await front.client.get("/v1/models")).status_code == 401
        async with asking(front, SAMPLED, authorization="Bearer k"):
            await until(lambda: behind.asked)
            assert (await front.client.get("/v1/models", headers={"authorization": "Bearer k"})).status_code == 200
            assert (await front.post(SAMPLED, authorization="Bearer k")).status_code == 429


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hit_costs_a_request_and_no_tokens(stream: bool) -> None:
    body = GREEDY | {"stream": stream}
    async with metered("vllm", says(streamed(*STREAM) if stream else whole(ANSWER)), cache=MEMORY) as (front, _):
        limit(front, requests_per_minute=9, tokens_per_minute=1000)
        answers = [await asked(front, body, CHAT_PATH) for _ in range(3)]
        assert [answer.headers["x-pointsman-cache"] for answer in answers] == ["miss", "hit", "hit"]
        assert await debited(front) == USAGE["total_tokens"]
        listed = await front.client.get("/v1/models", headers={"authorization": "Bearer k"})
        assert listed.headers["x-ratelimit-remaining-requests"] == "6"


async def shared_flight(front: Gateway, behind: Engine, body: dict[str, Any]) -> tuple[Any, Any]:
    """Begin a flight that a key `k` leads and a key `other` follows."""
    leader = asyncio.create_task(front.post(body, authorization="Bearer k"))
    await until(lambda: behind.asked)
    follower = asyncio.create_task(front.post(body, authorization="Bearer other"))
    assert front.services.cache is not None
    flights = front.services.cache.flights
    await until(lambda: sum(flight.readers for flight in flights.flying) == 2)
    return leader, follower


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leaves", [False, True])
async def test_the_key_that_led_pays_for_what_others_read_along_also_when_it_has_left(
    leaves: bool, stream: bool
) -> None:
    gate = asyncio.Event()
    body = GREEDY | {"stream": stream}
    async with metered("vllm", gated(gate), cache=MEMORY) as (front, behind):
        out = logged(front)
        leader, follower = await shared_flight(front, behind, body)
        if leaves:
            await leave(leader)
            await until(lambda: len(front.services.sweep.open) == 2)  # the follower, and what it reads
        gate.set()
        assert (await follower).headers["x-pointsman-cache"] == "coalesced"
        await idle(front)
        assert await debited(front) == USAGE["total_tokens"]
        assert await debited(front, "other") == 0
        said = {line["key"]: line for line in lines(front, out)}
        assert said["k"]["outcome"] == ("client_left" if leaves else "ok")
        assert (said["k"]["prompt_tokens"], said["k"]["completion_tokens"]) == (12, 2)
        figures = await scraped(front.client)
        assert figures.sum("gen_ai_client_token_usage_sum") == USAGE["total_tokens"]
        assert figures.sum("gen_ai_client_token_usage_count") == 2  # input and output
        assert [one.in_flight for one in front.services.catalog.endpoints] == [0]


@pytest.mark.parametrize("stream", [False, True])
async def test_when_all_have_left_the_key_that_led_pays_for_what_was_worked_until_then(stream: bool) -> None:
    body = GREEDY | {"stream": stream}
    script = hangs(head() + piece(TEN * chunk({"content": "x"})) if stream else b"")
    async with metered("vllm", script, cache=MEMORY) as (front, behind):
        for one in await shared_flight(front, behind, body):
            await leave(one)
        assert await debited(front) == estimated(body) + (TEN if stream else 0)
        assert await debited(front, "other") == 0


# --- a tenant's keys ------------------------------------------------------------------------------------------------


async def test_the_keys_of_a_tenant_use_up_the_same_tokens() -> None:
    async with metered("vllm", says(OF_CHAT.whole)) as (front, _):
        limit(front, tenant="t", tokens_per_minute=12 + TEN)
        assert (await asked(front, SAMPLED, CHAT_PATH, "old")).status_code == 200
        for key in ("old", "new"):
            refused = await asked(front, SAMPLED, CHAT_PATH, key)
            assert (refused.status_code, refused.headers["x-ratelimit-remaining-tokens"]) == (429, "0")
