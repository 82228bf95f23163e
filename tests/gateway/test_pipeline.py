"""The one path: what holds for every surface, shown on running gateways."""

import asyncio

import msgspec
import pytest

from backends.estimate import of_body
from gateway import config
from gateway.access.principal import Principal
from gateway.http.context import RequestContext
from tests.support.clock import Clock
from tests.support.harness import (
    ANSWER,
    CHAT,
    END,
    STREAM,
    Asked,
    Gateway,
    asking,
    begun,
    chunk,
    cuts,
    events,
    hangs,
    head,
    over,
    piece,
    says,
    settled,
    streamed,
    until,
    when,
    whole,
)
from tests.support.pairs import Kind, pair

STREAMED = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TOKENS = 1000
PROMPT = of_body(msgspec.json.encode(STREAMED))  # its tokens, by the gateway's estimate


class OneKey:
    """Knows a single key, which has a limit of tokens."""

    def check(self, presented: str, now: float) -> Principal:
        return Principal(id="k", tokens_per_minute=TOKENS)


def limit(front: Gateway) -> None:
    front.services.keyring = OneKey()  # type: ignore[assignment]  # which asks no more of it


async def remaining(front: Gateway) -> int:
    """Return how many tokens the key has left."""
    answer = await front.client.get("/v1/models", headers={"authorization": "Bearer k"})
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def only(front: Gateway) -> RequestContext:
    """Return the one open request's context."""
    (context,) = front.services.sweep.open
    return context


async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head())
    while True:
        writer.write(piece(chunk({"content": "x"})))
        await writer.drain()
        await asyncio.sleep(0.001)


async def test_a_stream_that_the_client_leaves_debits_what_was_written() -> None:
    async with over(endless) as (front, _behind):
        limit(front)
        async with front.client.stream(
            "POST", "/v1/chat/completions", json=STREAMED, headers={"authorization": "Bearer k"}
        ) as answer:
            seen = 0
            async for line in answer.aiter_lines():
                seen += line.startswith("data:")
                if seen >= 50:
                    break
        await until(lambda: front.services.sweep.open == set())
        assert await remaining(front) <= TOKENS - 50 - PROMPT


async def test_a_stream_that_the_engine_cuts_debits_what_was_written() -> None:
    async with over(cuts(head() + piece(b"".join(STREAM[:2])))) as (front, _):
        limit(front)
        answer = await front.post(STREAMED, authorization="Bearer k")
        assert b'"error"' in answer.content
        assert await remaining(front) == TOKENS - PROMPT - 2  # two, by the text that came


async def test_a_stream_that_ends_debits_the_engines_own_figures() -> None:
    async with over(cuts(head() + piece(b"".join(STREAM)) + END)) as (front, _):
        limit(front)
        await front.post(STREAMED, authorization="Bearer k")
        assert await remaining(front) == TOKENS - 14


@pytest.mark.parametrize("kind", ["tgi", "vllm"])
async def test_a_stream_of_tgis_own_api_that_is_cut_debits_what_was_written(kind: str) -> None:
    """Passed on from a TGI, or translated for a vLLM."""
    token = {"id": 1, "text": "a", "logprob": -1.0, "special": False}
    event = {"index": 1, "token": token, "generated_text": None, "details": None}
    logprobs = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [0]}
    choice = {"index": 0, "text": "a", "finish_reason": None, "token_ids": [1], "logprobs": logprobs}
    said = event if kind == "tgi" else {"choices": [choice]}
    async with over(cuts(head() + piece(3 * (b"data: " + msgspec.json.encode(said) + b"\n\n"))), kind) as (front, _):
        limit(front)
        answer = await front.post({"inputs": "x"}, "/generate_stream", authorization="Bearer k")
        assert answer.content.count(b'"token"') == 3
        assert b'"error"' in answer.content
        assert await remaining(front) == TOKENS - 3 - 1  # the prompt's


async def test_a_question_that_its_engine_fails_at_is_not_the_clients_fault() -> None:
    failed = says(whole({"error": {"message": "no"}}, "500 Internal Server Error"))
    async with pair(failed, hangs(), ("vllm", "tgi")) as engines:
        asked = {"model": "tiny", "prompt": [1, 2], "max_tokens": 4}
        answer = await engines.front.post(asked, "/v1/completions", x_pointsman_engine="tgi")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_error")
        assert not engines.second.asked


async def test_each_of_two_hedged_engines_is_judged_by_its_own_silence() -> None:
    """The second, which spoke later, has its time; and it does not add to the first's."""
    clock = Clock(0.0)
    times = config.TimeoutsConfig(first_event=10.0, keep_alive=1000.0)
    begins = when(lambda: clock.now == 5.0, head())
    async with (
        pair(hangs(), begins, ("vllm", "vllm"), clock=clock, hedge_after=0.05, timeouts=times) as engines,
        asking(engines.front, STREAMED) as asked,
    ):
        await until(lambda: len(engines.front.services.sweep.open) == 1)
        context = only(engines.front)
        await until(lambda: len(context.attempts) == 2 and engines.second.asked)
        clock.now = 5.0
        await until(lambda: context.timing.received_at == 5.0)
        clock.now = 11.0
        await until(lambda: context.attempts[0].ended)
        assert not context.attempts[1].ended
        clock.now = 16.0
        assert (await asked).status_code == 504


async def test_a_choice_that_falls_silent_is_noticed_although_its_sibling_goes_on() -> None:
    """TGI is asked for each choice of `n` by itself."""
    clock = Clock(0.0)
    turns = iter([hangs(head() + piece(b"data:" + TGI_CHUNK + b"\n\n")), tgi_endless])

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await next(turns)(asked, writer)

    times = config.TimeoutsConfig(between_events=10.0, keep_alive=1000.0)
    choices = STREAMED | {"n": 2, "temperature": 1.0, "seed": 1}
    async with over(script, "tgi", clock=clock, timeouts=times) as (front, _), asking(front, choices) as asked:
        await until(lambda: begun(front))
        context = only(front)
        for clock.now in (6.0, 12.0):  # the sibling is heard in between, and the silent one is not
            await until(lambda: context.timing.received_at == clock.now or asked.done())
        *_, last = events((await asked).content)
        assert last["error"]["code"] == "engine_timeout"


TGI_CHUNK = (
    b'{"object":"chat.completion.chunk","id":"","created":1,"model":"m","system_fingerprint":"f",'
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"logprobs":null,"finish_reason":null}],"usage":null}'
)


async def tgi_endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(head())
    while True:
        writer.write(piece(b"data:" + TGI_CHUNK + b"\n\n"))
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_info_is_answered_behind_a_tgi_that_hangs() -> None:
    """Its question is a sub-request with a deadline of its own; else what is known of the vLLM serves."""
    async with pair(hangs(), hangs(), ("tgi", "vllm")) as engines:
        answered = await engines.front.client.get("/info")
        assert answered.headers["x-pointsman-engine"] == "tgi"
        engines.first.hung.add("/info")
        answered = await engines.front.client.get("/info")
        assert answered.status_code == 200
        assert "x-pointsman-engine" not in answered.headers


@pytest.mark.parametrize("kinds", [("tgi", "vllm"), ("tgi", "tgi")])
async def test_info_is_asked_of_each_tgi_that_is_up_for_a_short_time(kinds: tuple[Kind, Kind]) -> None:
    """One that hangs does not use up the time of the next; one that is down is not asked at all."""
    clock = Clock(0.0)
    times = config.TimeoutsConfig(keep_alive=0.1)
    async with pair(hangs(), hangs(), kinds, clock=clock, timeouts=times) as engines:
        await engines.front.services.prober.close()
        engines.first.hung.add("/info")
        asked = asyncio.ensure_future(engines.front.client.get("/info"))
        await until(lambda: len(engines.front.services.sweep.open) == 2)
        clock.now += 2.1
        answer = await asked
        assert (answer.status_code, answer.json()["model_id"]) == (200, "tiny")
        assert answer.headers.get("x-pointsman-deployment") == (None if "vllm" in kinds else "second")
        engines.endpoints[0].mark_down("it hangs")
        assert (await engines.front.client.get("/info")).json() == answer.json()  # and no time passes


async def test_a_client_that_leaves_info_ends_its_question() -> None:
    async with pair(hangs(), hangs(), ("tgi", "vllm")) as engines:
        engines.first.hung.add("/info")
        asked = asyncio.ensure_future(engines.front.client.get("/info"))
        await until(lambda: len(engines.front.services.sweep.open) == 2)
        asked.cancel()
        await until(lambda: engines.front.services.sweep.open == set())
        assert engines.idle()


async def test_a_follower_outlives_its_leader_though_nothing_had_come_by_then() -> None:
    """The engine, which has been at work all the time, is not asked once more."""
    clock, go_on = Clock(0.0), asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(streamed(*STREAM) if asked.json["stream"] else whole(ANSWER))
        await writer.drain()

    times, cache = config.TimeoutsConfig(total=2.0, keep_alive=1000.0), config.CacheConfig(store="memory")
    for stream in (False, True):
        go_on.clear()
        greedy = CHAT | {"temperature": 0, "stream": stream}
        async with over(script, clock=clock, timeouts=times, cache=cache) as (front, behind):
            async with asking(front, greedy) as leader:
                await until(lambda: behind.asked)
                clock.now += 1.5
                async with asking(front, greedy) as follower:
                    await until(lambda: sum(one.cache == "coalesced" for one in front.services.sweep.open) == 1)
                    clock.now += 0.6
                    assert (await leader).status_code == 504
                    clock.now += 1.0
                    await settled()
                    go_on.set()
                    answer = await follower
                    assert (answer.status_code, "Grüße" in answer.text) == (200, True)
            assert len(behind.asked) == 1


async def test_a_follower_has_its_own_deadline_and_not_its_leaders() -> None:
    """What they share goes on as long as somebody may still read it."""
    clock, go_on = Clock(0.0), asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]))
        await writer.drain()
        await go_on.wait()
        writer.write(piece(b"".join(STREAM[1:])) + END)
        await writer.drain()

    times, cache = config.TimeoutsConfig(total=100.0, keep_alive=1000.0), config.CacheConfig(store="memory")
    greedy = STREAMED | {"temperature": 0}
    async with over(script, clock=clock, timeouts=times, cache=cache) as (front, behind):
        async with asking(front, greedy) as leader:
            await until(lambda: begun(front) == 1)
            clock.now = 60.0
            async with asking(front, greedy) as follower:
                await until(lambda: begun(front) == 2)
                clock.now = 101.0
                *_, last = events((await leader).content)
                assert last["error"]["code"] == "engine_timeout"
                go_on.set()
                assert events((await follower).content)[-1] == "data: [DONE]"
        assert len(behind.asked) == 1
