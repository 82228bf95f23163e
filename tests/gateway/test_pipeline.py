"""The one path: what holds for every surface, shown on running gateways."""

import asyncio

from gateway import config
from gateway.access.principal import Principal
from gateway.http.context import RequestContext
from tests.support.harness import (
    END,
    STREAM,
    Asked,
    Gateway,
    chunk,
    cuts,
    events,
    hangs,
    head,
    over,
    piece,
    until,
)
from tests.support.pairs import pair

STREAMED = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
TOKENS = 1000


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
        assert await remaining(front) <= TOKENS - 50


async def test_a_stream_that_the_engine_cuts_debits_what_was_written() -> None:
    async with over(cuts(head() + piece(b"".join(STREAM[:2])))) as (front, _):
        limit(front)
        answer = await front.post(STREAMED, authorization="Bearer k")
        assert b'"error"' in answer.content
        assert await remaining(front) == TOKENS - 2  # two events, of which the engine has not said the tokens


async def test_a_stream_that_ends_debits_the_engines_own_figures() -> None:
    async with over(cuts(head() + piece(b"".join(STREAM)) + END)) as (front, _):
        limit(front)
        await front.post(STREAMED, authorization="Bearer k")
        assert await remaining(front) == TOKENS - 14


async def test_each_of_two_hedged_engines_is_judged_by_its_own_silence() -> None:
    times = config.TimeoutsConfig(first_event=1.0, keep_alive=9.0)
    async with pair(hangs(), hangs(), ("vllm", "vllm"), hedge_after=0.6, timeouts=times) as engines:
        asked = asyncio.ensure_future(engines.front.post(STREAMED))
        await until(lambda: len(engines.front.services.sweep.open) == 1)
        context = only(engines.front)
        await until(lambda: len(context.attempts) == 2)
        await asked
        first, second = context.attempts
        assert first.ended < second.ended, "the second had its time, and did not add to the first's"


async def test_a_choice_that_falls_silent_is_noticed_although_its_sibling_goes_on() -> None:
    """TGI is asked for each choice of `n` by itself."""
    turns = iter([hangs(head() + piece(b"data:" + TGI_CHUNK + b"\n\n")), tgi_endless])

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await next(turns)(asked, writer)

    times = config.TimeoutsConfig(between_events=0.4, keep_alive=0.2)
    async with over(script, "tgi", timeouts=times) as (front, _):
        answer = await front.post(STREAMED | {"n": 2, "temperature": 1.0, "seed": 1})
        *_, last = events(answer.content)
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


async def test_a_client_that_leaves_info_ends_its_question() -> None:
    async with pair(hangs(), hangs(), ("tgi", "vllm")) as engines:
        engines.first.hung.add("/info")
        asked = asyncio.ensure_future(engines.front.client.get("/info"))
        await until(lambda: len(engines.front.services.sweep.open) == 2)
        asked.cancel()
        await until(lambda: engines.front.services.sweep.open == set())
        assert engines.idle()


async def test_a_follower_has_its_own_deadline_and_not_its_leaders() -> None:
    """What they share goes on as long as somebody may still read it."""
    go_on = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]))
        await writer.drain()
        await go_on.wait()
        writer.write(piece(b"".join(STREAM[1:])) + END)
        await writer.drain()

    times, cache = config.TimeoutsConfig(total=3.0, keep_alive=0.4), config.CacheConfig(store="memory")
    async with over(script, timeouts=times, cache=cache) as (front, behind):
        greedy = STREAMED | {"temperature": 0}
        leader = asyncio.ensure_future(front.post(greedy))
        await until(lambda: behind.asked)
        await asyncio.sleep(1.5)
        follower = asyncio.ensure_future(front.post(greedy))
        *_, last = events((await leader).content)
        assert last["error"]["code"] == "engine_timeout"
        go_on.set()
        assert events((await follower).content)[-1] == "data: [DONE]"
        assert len(behind.asked) == 1
