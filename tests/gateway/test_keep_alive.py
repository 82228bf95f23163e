"""Signs of life: a stream that is silent while an engine is at work gets its 200 and a comment. Neither names one."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway import config
from gateway.http.cancel import CancelScope
from gateway.http.context import Attempt, RequestContext, Timing
from gateway.http.deadlines import DeadlineSweeper
from gateway.http.sse import RawEventStream
from gateway.services import make
from tests.support.clock import Clock
from tests.support.engine_answers import BUSY, DEAD, DONE, event
from tests.support.harness import (
    CHAT,
    TEXT,
    Script,
    asking,
    begun,
    configured,
    cuts,
    events,
    hangs,
    head,
    leave,
    says,
    settled,
    streamed,
    swept,
    until,
    whole,
)
from tests.support.pairs import good, pair, single
from tests.support.tgi_recorded import plays

STREAMED = CHAT | {"stream": True}
OFTEN = config.TimeoutsConfig(keep_alive=0.1)
COMMENTS = {": keep-alive", ":"}
NAMES = {"x-pointsman-engine", "x-pointsman-deployment", "x-pointsman-adapted", "x-pointsman-overhead-ms"}
MEMORY = config.CacheConfig(store="memory")
TEXT_CHUNK = {"id": "x", "object": "text_completion", "created": 1, "model": "m"}
TEXT_STREAM = event(TEXT_CHUNK | {"choices": [{"index": 0, "text": "Grüße dir", "finish_reason": "stop"}]}) + DONE
GENERATED, _, TRANSLATED = plays("N50_stream")

# surface: path, body, what the second engine, a vLLM, says, and what the client is told in the end
SURFACES: dict[str, tuple[str, Any, Script, bytes]] = {
    "chat": ("/v1/chat/completions", STREAMED, good("vllm", True), "Grüße".encode()),
    "completion": ("/v1/completions", TEXT | {"stream": True}, says(streamed(TEXT_STREAM)), "Grüße".encode()),
    "TGI's": ("/generate_stream", msgspec.json.decode(GENERATED.body), TRANSLATED, b'"generated_text":'),
}
FAILURES: dict[str, Script] = {
    "500": says(whole(DEAD, "500 Internal Server Error")),
    "busy": says(whole(BUSY, "503 Service Unavailable")),
    "closes": cuts(b""),
    "closes after its head": cuts(head()),
    "an error as first event": says(streamed(event(DEAD) + DONE)),
}
# --- before an engine's first byte -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("surface", SURFACES)
async def test_after_a_keep_alive_which_names_no_engine_another_one_answers(surface: str, name: str) -> None:
    """The comment has told the client nothing that an answer from elsewhere would make wrong."""
    path, body, answers, told = SURFACES[surface]
    go = asyncio.Event()

    async def late(asked: Any, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await FAILURES[name](asked, writer)

    clock = Clock()
    async with pair(late, answers, ("vllm", "vllm"), clock, timeouts=OFTEN) as these:
        async with asking(these.front, body, path) as answering:
            await until(lambda: these.first.asked)
            clock.now += 1
            await until(lambda: begun(these.front))
            go.set()
            answer = await answering
        assert answer.status_code == 200
        assert not NAMES & set(answer.headers)
        first, *_ = events(answer.content)
        assert first in COMMENTS
        assert told in answer.content
        assert b'"error"' not in answer.content
        assert these.second.asked


async def test_a_silence_that_was_filled_by_a_keep_alive_is_given_up_for_another_engine() -> None:
    clock, timeouts = Clock(), config.TimeoutsConfig(keep_alive=0.1, first_event=10)
    async with (
        pair(hangs(), good("vllm", True), ("vllm", "vllm"), clock, timeouts=timeouts) as these,
        asking(these.front, STREAMED) as answering,
    ):
        await until(lambda: these.first.asked)
        clock.now += 1
        await until(lambda: begun(these.front))
        clock.now += 10
        assert events((await answering).content)[-1] == "data: [DONE]"


async def test_after_a_keep_alive_a_slow_engine_is_still_hedged() -> None:
    clock = Clock()
    async with pair(hangs(), good("vllm", True), ("vllm", "vllm"), clock, hedge_after=1.0, timeouts=OFTEN) as these:
        async with asking(these.front, STREAMED) as answering:
            await until(lambda: these.first.asked)
            clock.now += 1
            await until(lambda: begun(these.front))
            assert events((await answering).content)[-1] == "data: [DONE]"
        assert these.second.asked


async def test_when_none_can_answer_after_a_keep_alive_the_error_is_an_event() -> None:
    go = asyncio.Event()

    async def late(asked: Any, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(whole(DEAD, "500 Internal Server Error"))

    clock, dead = Clock(), says(whole(DEAD, "500 Internal Server Error"))
    async with pair(late, dead, ("vllm", "vllm"), clock, timeouts=OFTEN) as these:
        async with asking(these.front, STREAMED) as answering:
            await until(lambda: these.first.asked)
            clock.now += 1
            await until(lambda: begun(these.front))
            go.set()
            answer = await answering
        assert answer.status_code == 200
        assert "error" in events(answer.content)[-1]
        assert b"[DONE]" not in answer.content


# --- the queue ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"cache": MEMORY}], ids=["one by one", "sharing an answer"])
async def test_who_waits_in_the_queue_beyond_the_keep_alive_and_finds_no_room_is_told_so_by_a_status(more: Any) -> None:
    clock, impatient = Clock(), config.AdmissionConfig(queue_timeout=0.5)
    async with (
        single(hangs(), clock, busy=1, timeouts=OFTEN, admission=impatient, **more) as only,
        asking(only.front, CHAT) as holding,
    ):
        await until(lambda: only.first.asked)
        async with asking(only.front, STREAMED) as one, asking(only.front, STREAMED) as other:
            await until(lambda: only.front.services.admission.waiting)
            clock.now += 1
            for answer in (await one, await other):
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
        assert not holding.done()


async def test_a_first_comment_waits_for_a_place_and_then_counts_from_there() -> None:
    clock = Clock()
    async with single(hangs(), clock, busy=1, timeouts=OFTEN) as only, asking(only.front, CHAT) as holding:
        await until(lambda: only.first.asked)
        async with asking(only.front, STREAMED):
            await until(lambda: only.front.services.admission.waiting)
            clock.now += 100
            await swept(only.front)
            assert begun(only.front) == 0
            await leave(holding)
            await until(lambda: len(only.first.asked) == 2)
            assert begun(only.front) == 0
            clock.now += 1
            await until(lambda: begun(only.front) == 1)


async def test_who_waits_for_room_elsewhere_is_no_engines_silence_and_has_no_answer_yet() -> None:
    """The first fails, the second has no room for a while: the answer is the second's alone, and names it."""
    clock, first = Clock(), says(whole(BUSY, "503 Service Unavailable"))
    timeouts = config.TimeoutsConfig(keep_alive=0.1, first_event=0.1)
    async with pair(first, hangs(), ("vllm", "vllm"), clock, busy=1, timeouts=timeouts) as these:
        async with asking(these.front, CHAT) as holding:
            await until(lambda: these.second.asked)
            these.second.script = good("vllm", True)
            async with asking(these.front, STREAMED) as waiting:
                await until(lambda: these.front.services.admission.waiting)
                clock.now += 1
                await swept(these.front)
                assert begun(these.front) == 0
                await leave(holding)
                answer = await waiting
        assert (events(answer.content)[-1], COMMENTS & set(answer.text.split())) == ("data: [DONE]", set())
        assert answer.headers["x-pointsman-deployment"] == "second"


# --- between events only -----------------------------------------------------------------------------------------

# what has been passed on, piece by piece, and whether a comment may follow
PIECES: dict[str, tuple[list[bytes], bool]] = {
    "nothing": ([], True),
    "an event": ([b"data: 1\n\n"], True),
    "an event and a half": ([b"data: 1\n\ndata: 2"], False),
    "a name without data": ([b"event: message_start\n"], False),
    "a line without its blank line": ([b"data: 1\n"], False),
    "the blank line apart": ([b"data: 1\n", b"\n"], True),
    "byte by byte": ([b"d", b"\r", b"\n", b"\r", b"\n"], True),
    "carriage returns": ([b"data: 1\r\n\r\n"], True),
    "carriage returns alone": ([b"data: 1\r\r"], True),
    "one carriage return and line feed": ([b"data: 1\r\n"], False),
}


@pytest.mark.parametrize("name", PIECES)
async def test_a_comment_never_comes_within_an_event(name: str) -> None:
    pieces, may_follow = PIECES[name]
    clock, sent = Clock(), bytearray()

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))

    task = asyncio.current_task()
    assert task is not None
    context = RequestContext("x", "POST", "/", b"/", {}, Timing(clock()), CancelScope(task))
    (candidate,) = make(configured("http://127.0.0.1:9")).catalog.routes["tiny"].candidates
    context.attempts.append(Attempt(candidate, 0, clock()))
    sweep = DeadlineSweeper(config.TimeoutsConfig(keep_alive=15), clock)
    sweep.open.add(context)
    stream = RawEventStream(context, send, clock, b"text/event-stream")
    for piece in pieces:
        await stream.pass_on(piece)
    clock.now += 16
    sweep.look(clock())
    await settled()
    assert bytes(sent) == b"".join(pieces) + (stream.keep_alive if may_follow else b"")
