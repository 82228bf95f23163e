"""Engines that stop answering: late health answers, evidence from clients, time-outs, and who is asked instead."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from backends.base import ServedModel
from gateway import config
from gateway.upstream.endpoints import Endpoint
from tests.support.clock import Clock
from tests.support.engine_answers import DONE, TGI_CHUNK, event
from tests.support.harness import (
    ANSWER,
    CHAT,
    MODEL,
    STREAM,
    TEXT,
    Script,
    asking,
    begun,
    events,
    hangs,
    head,
    piece,
    says,
    settled,
    streamed,
    swept,
    until,
    whole,
)
from tests.support.pairs import TGI_STREAM, TGI_USAGE, Kind, Pair, good, pair, single
from tests.support.tgi_recorded import plays

STREAMED = CHAT | {"stream": True}
OFTEN = config.TimeoutsConfig(keep_alive=0.1)
DEPLOYMENT = config.DeploymentConfig(name="a", engine="vllm", url="http://a")
SERVED = [ServedModel("m", "m", 100)]
MOST = 3

# --- what makes an engine down or up ------------------------------------------------------------------------------

# steps: "well" and "late" are health answers, "refused" a connection, "chat" a good answer to a client's request, and
# "chat while late" one that comes while a late health answer is waited for; then: is it up, is it found dead
HEALTH: dict[str, tuple[list[str], bool, bool]] = {
    "one late": (["late"], True, False),
    "two late": (["late"] * 2, True, False),
    "three late": (["late"] * 3, False, True),
    "three, not in a row": (["late", "late", "well", "late"], True, False),
    "refused once": (["refused"], False, True),
    "late, though it answers chats before each": (["chat", "late"] * 5, True, False),
    "late, though it answers chats meanwhile": (["chat while late"] * 5, True, False),
    "late, but for one chat": (["late", "late", "chat", "late", "late"], True, False),
    "late again after a chat": (["late", "late", "chat", "late", "late", "late"], False, True),
    "down for lateness, then a chat": (["late"] * 3 + ["chat"], True, False),
    "down for lateness, then well": (["late"] * 3 + ["well"], True, False),
    "refused, then a stream that was under way": (["refused", "chat"], False, True),
    "late, then refused, then a stream": (["late", "late", "refused", "chat"], False, True),
    "refused, then well": (["refused", "well"], True, False),
}


def checked_endpoint(steps: list[str]) -> Endpoint:
    """Return an engine that has long been up, and then met these."""
    endpoint = Endpoint(DEPLOYMENT, config.BreakerConfig(), 10.0)
    endpoint.mark_up(SERVED, 0.0)
    now = 1000.0
    for step in steps:
        began, now = now, now + 10.0
        match step:
            case "well":
                endpoint.mark_up(SERVED, now)
            case "refused":
                endpoint.mark_down("no connection")
                endpoint.found_dead = True
            case "chat":
                endpoint.heard(now)
                now += 1.0
            case "chat while late":
                endpoint.heard(now - 1.0)
                endpoint.record_miss("late", "late", began, 1)
            case "late":
                endpoint.record_miss("late", "late", began, MOST)
    return endpoint


@pytest.mark.parametrize("name", HEALTH)
def test_several_late_answers_or_one_refusal_mark_an_engine_as_down_and_good_answers_as_up(name: str) -> None:
    steps, up, dead = HEALTH[name]
    endpoint = checked_endpoint(steps)
    assert (endpoint.up, endpoint.found_dead) == (up, dead)
    assert bool(endpoint.reason_down) is not up


def test_an_engine_that_was_late_keeps_its_share_and_one_that_was_down_does_not() -> None:
    for steps, share in ((["late", "late", "well"], 1.0), (["late", "late", "late", "well"], 0.1)):
        assert checked_endpoint(steps).effective_weight(1000.0 + 10.0 * len(steps)) == pytest.approx(share)


HEALTHS: dict[str, config.HealthConfig] = {
    "late": config.HealthConfig(interval=0.01, timeout=0.25),
    "bad": config.HealthConfig(interval=0.01),
}


@pytest.mark.parametrize("how", HEALTHS)
async def test_an_engine_whose_health_answers_are_late_or_bad_is_down_for_that_and_up_by_a_stream(how: str) -> None:
    """Its stream was under way: what comes of it is evidence."""
    go = asyncio.Event()

    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(STREAM[0]))
        await go.wait()
        writer.write(piece(b"".join(STREAM[1:])) + b"0\r\n\r\n")

    async with single(slow, health=HEALTHS[how]) as only, asking(only.front, STREAMED) as answering:
        await until(lambda: begun(only.front))
        (endpoint,) = only.endpoints
        _ail(only, how)
        await until(lambda: not endpoint.up)
        assert "health check failed" in endpoint.reason_down
        assert (await only.front.client.get("/readyz")).status_code == 503
        await only.front.services.prober.close()
        go.set()
        assert events((await answering).content)[-1] == "data: [DONE]"
        assert endpoint.up
        assert (await only.front.client.get("/readyz")).status_code == 200


def _ail(these: Pair, how: str) -> None:
    """Have the first engine answer its health checks late or badly."""
    if how == "late":
        these.first.hung.add("/health")
    else:
        these.first.ailing.add("/health")


# --- what waits on a dead engine goes elsewhere ---------------------------------------------------------------------

TEXT_ANSWER = {
    "id": "x",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "text": "Grüße dir", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
TEXT_EVENT = TEXT_ANSWER | {"usage": None}
GENERATE, _, GENERATED = plays("N01_generate_no_parameters_max20")
GENERATE_STREAM, _, GENERATED_STREAM = plays("N50_stream")
STREAMS: dict[Kind, list[bytes]] = {"vllm": STREAM, "tgi": [TGI_CHUNK, TGI_STREAM.removeprefix(TGI_CHUNK) + TGI_USAGE]}
CHOICE = json.loads(json.dumps(ANSWER))["choices"][0]
PASSED = whole({"model": "x", "ok": 1})

# surface: path, body, the kinds of the engines, what the second one says
WAITING: dict[str, tuple[str, Any, tuple[Kind, Kind], Script]] = {
    "chat": ("/v1/chat/completions", CHAT, ("vllm", "vllm"), good("vllm", False)),
    "chat, from vLLM to TGI": ("/v1/chat/completions", CHAT, ("vllm", "tgi"), good("tgi", False)),
    "chat, from TGI to vLLM": ("/v1/chat/completions", CHAT, ("tgi", "vllm"), good("vllm", False)),
    "choices": (
        "/v1/chat/completions",
        CHAT | {"n": 2, "temperature": 1},
        ("tgi", "vllm"),
        says(whole(ANSWER | {"choices": [CHOICE | {"index": index} for index in (0, 1)]})),
    ),
    "chat stream": ("/v1/chat/completions", STREAMED, ("vllm", "vllm"), good("vllm", True)),
    "completion": ("/v1/completions", TEXT, ("vllm", "vllm"), says(whole(TEXT_ANSWER))),
    "completion stream": (
        "/v1/completions",
        TEXT | {"stream": True},
        ("vllm", "vllm"),
        says(streamed(event(TEXT_EVENT) + DONE)),
    ),
    "embeddings": ("/v1/embeddings", {"model": MODEL, "input": "x"}, ("vllm", "vllm"), says(PASSED)),
    "responses": ("/v1/responses", {"model": MODEL, "input": "x"}, ("vllm", "vllm"), says(PASSED)),
    "messages stream": (
        "/v1/messages",
        {"model": MODEL, "messages": [], "stream": True},
        ("vllm", "vllm"),
        says(streamed(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')),
    ),
    "TGI's": ("/generate", msgspec.json.decode(GENERATE.body), ("tgi", "vllm"), GENERATED),
    "TGI's stream": (
        "/generate_stream",
        msgspec.json.decode(GENERATE_STREAM.body),
        ("tgi", "vllm"),
        GENERATED_STREAM,
    ),
}


@pytest.mark.parametrize("name", WAITING)
async def test_what_waits_on_an_engine_that_is_found_dead_is_answered_by_another(name: str) -> None:
    path, body, kinds, answers = WAITING[name]
    async with (
        pair(hangs(), answers, kinds, health=HEALTHS["late"], timeouts=OFTEN) as these,
        asking(these.front, body, path) as answering,
    ):
        await until(lambda: these.first.asked)
        these.first.hung.add("/health")
        answer = await answering
        assert answer.status_code == 200
        assert b'"error"' not in answer.content
        assert these.second.asked
        await until(lambda: these.first.left == len(these.first.asked))


async def test_a_question_beside_a_request_that_waits_on_a_dead_engine_ends_and_another_answers_the_request() -> None:
    """Whether prompt and answer fit is asked of vLLM's `/tokenize`, before it is asked for the answer."""
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 1020}}
    answers = says(whole({"generated_text": "Grüße dir"}))
    async with (
        pair(hangs(), answers, ("vllm", "tgi"), health=HEALTHS["late"], timeouts=OFTEN) as these,
        asking(these.front, body, "/generate", x_pointsman_engine="vllm") as pinned,
        asking(these.front, body, "/generate") as answering,
    ):
        these.endpoints[1].weight = 0.0
        await until(lambda: [one.path for one in these.first.asked] == ["/tokenize"] * 2)
        these.first.hung.add("/health")
        assert (await answering).json() == {"generated_text": "Grüße dir"}
        assert not pinned.done(), "a request that may go nowhere else goes on waiting"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_waits_on_the_only_engine_goes_on_waiting(stream: bool) -> None:
    go = asyncio.Event()

    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await good("vllm", stream)(asked, writer)

    async with single(slow, health=HEALTHS["late"], timeouts=OFTEN) as only:
        (endpoint,) = only.endpoints
        async with asking(only.front, CHAT | {"stream": stream}) as answering:
            await until(lambda: only.first.asked)
            only.first.hung.add("/health")
            await until(lambda: endpoint.found_dead)
            await swept(only.front)
            assert not answering.done()
            go.set()
            answer = await answering
        assert "Grüße" in answer.text
        assert (len(only.first.asked), endpoint.up) == (1, True)


async def test_what_waits_on_a_dead_engine_goes_elsewhere_once_there_is_a_place_to_go_to() -> None:
    async with pair(hangs(), good("vllm", False), ("vllm", "vllm"), timeouts=OFTEN) as these:
        first, second = these.endpoints
        await these.front.services.prober.close()
        async with asking(these.front, CHAT) as answering:
            await until(lambda: these.first.asked)
            second.mark_down("gone")
            first.found_dead = True
            await swept(these.front)
            assert not answering.done()
            second.mark_up(first.served, 0.0)
            assert (await answering).json()["choices"]
        assert these.struck() == [True, False]


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_a_stream_that_has_begun_stays_with_its_engine(kind: Kind) -> None:
    go, (first, *rest) = asyncio.Event(), STREAMS[kind]

    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head() + piece(first))
        await go.wait()
        writer.write(piece(b"".join(rest)) + b"0\r\n\r\n")

    async with pair(slow, hangs(), (kind, "vllm"), health=HEALTHS["bad"], timeouts=OFTEN) as these:
        async with asking(these.front, STREAMED) as answering:
            await until(lambda: begun(these.front))
            these.first.ailing.add("/health")
            await until(lambda: these.endpoints[0].found_dead)
            await swept(these.front)
            go.set()
            assert events((await answering).content)[-1] == "data: [DONE]"
        assert not these.second.asked


# --- the head of a whole answer -------------------------------------------------------------------------------------

WHOLE = {name: row for name, row in WAITING.items() if "stream" not in name}


@pytest.mark.parametrize("name", WHOLE)
async def test_an_engine_that_does_not_begin_a_whole_answer_in_time_is_given_up_for_another(name: str) -> None:
    path, body, kinds, answers = WHOLE[name]
    clock = Clock()
    async with (
        pair(hangs(), answers, kinds, clock, timeouts=config.TimeoutsConfig(head=20.0)) as these,
        asking(these.front, body, path) as answering,
    ):
        await until(lambda: these.first.asked)
        await settled(lambda: len(these.first.asked))
        clock.now += 19
        await settled()
        assert not answering.done()
        clock.now += 2
        assert (await answering).status_code == 200
        assert these.struck() == [True, False]


async def test_the_time_to_a_streams_first_event_is_another() -> None:
    clock, timeouts = Clock(), config.TimeoutsConfig(head=5.0, first_event=50.0)
    breaker = config.BreakerConfig()
    async with (
        single(hangs(), clock, timeouts=timeouts, breaker=breaker) as only,
        asking(only.front, CHAT) as whole_answer,
        asking(only.front, STREAMED) as stream,
    ):
        await until(lambda: len(only.first.asked) == 2)
        clock.now += 6
        assert (await whole_answer).status_code == 504
        assert not stream.done()
        clock.now += 50
        assert (await stream).status_code == 504


async def test_an_engine_that_sends_white_space_before_its_whole_answer_is_not_silent() -> None:
    clock, body = Clock(), msgspec.json.encode(ANSWER)

    async def spaced(asked: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(head("application/json"))
        for _ in range(5):
            writer.write(piece(b" "))
            await writer.drain()
            await settled()  # it has come
            clock.now += 15
            await swept(only.front)
        writer.write(piece(body) + b"0\r\n\r\n")

    timeouts = config.TimeoutsConfig(head=20.0, keep_alive=0.1)
    async with single(spaced, clock, timeouts=timeouts) as only:
        assert (await only.front.post(CHAT)).status_code == 200
