"""One deployment after the other, over real sockets: what fails is answered by another, and by whom, is seen."""

import asyncio
from typing import Any

import httpx
import pytest

from gateway import config
from tests.support import passed
from tests.support.clock import Clock
from tests.support.engine_answers import BUSY, DEAD, DONE, TGI_BUSY, TGI_CHUNK, TGI_FAILED, event
from tests.support.errors import is_error
from tests.support.harness import (
    CHAT,
    MODEL,
    STREAM,
    Script,
    asking,
    begun,
    cuts,
    events,
    hangs,
    head,
    leave,
    piece,
    says,
    settled,
    streamed,
    until,
    when,
    whole,
)
from tests.support.pairs import TGI_STREAM, TGI_USAGE, Kind, good, pair, single
from tests.support.tgi_recorded import as_sent, ask, plays

STREAMED = CHAT | {"stream": True}
OTHER: dict[Kind, Kind] = {"vllm": "tgi", "tgi": "vllm"}
REFUSED = {"error": {"message": "top_p must be below 1", "type": "BadRequestError", "param": "top_p", "code": 400}}


def text(answer: httpx.Response) -> str:
    """Return the text of an answer, whole or streamed; a stream has to be a whole one."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    *chunks, last = [one for one in events(answer.content) if one != ": keep-alive"]
    assert last == "data: [DONE]"
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"])


# --- by cause ---------------------------------------------------------------------------------------------------

# name: engine, what it does to a whole request and to a stream (None: the same), whether it is the engine's fault
CAUSES: dict[str, tuple[Kind, Script, Script | None, bool]] = {
    "vLLM closes the connection": ("vllm", cuts(b""), None, True),
    "vLLM is busy": ("vllm", says(whole(BUSY, "503 Service Unavailable")), None, False),
    "vLLM died": ("vllm", says(whole(DEAD, "500 Internal Server Error")), None, True),
    "an upstream's rate limit": (
        "vllm",
        says(whole({"error": {"message": "x"}}, "429 Too Many Requests")),
        None,
        False,
    ),
    "a wrong key": ("vllm", says(whole({"error": "Unauthorized"}, "401 Unauthorized")), None, False),
    "a proxy's page": ("vllm", says(whole(b"<html>", "502 Bad Gateway", "text/html")), None, True),
    "a page with status 200": ("vllm", says(whole(b"<html>", "200 OK", "text/html")), None, True),
    "not HTTP": ("vllm", cuts(b"220 ftp ready\r\n"), None, True),
    "half an answer": (
        "vllm",
        cuts(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"),
        cuts(head() + piece(STREAM[0][:20])),
        True,
    ),
    "an error as first event of vLLM's": (
        "vllm",
        says(whole(DEAD, "500 Internal Server Error")),
        says(streamed(event(DEAD) + DONE)),
        True,
    ),
    "TGI closes the connection": ("tgi", cuts(b""), None, True),
    "TGI is busy": ("tgi", says(whole(TGI_BUSY, "429 Too Many Requests")), None, False),
    "TGI failed": ("tgi", says(whole(TGI_FAILED, "424 Failed Dependency")), None, True),
    "TGI is busy inside a 200": (
        "tgi",
        says(whole(TGI_BUSY, "429 Too Many Requests")),
        says(streamed(event({"error": {"message": "Model is overloaded", "http_status_code": 422}}) + DONE)),
        False,
    ),
    "TGI failed inside a 200": (
        "tgi",
        says(whole(TGI_FAILED, "424 Failed Dependency")),
        says(streamed(event({"error": {"message": TGI_FAILED["error"], "http_status_code": 422}}) + DONE)),
        True,
    ),
    "garbage of TGI's": ("tgi", says(whole(b"\x00\xff")), says(streamed(b"data: \x00\xff\n\n")), True),
}


@pytest.mark.parametrize("name", CAUSES)
async def test_what_one_engine_fails_at_the_other_answers(name: str) -> None:
    kind, of_whole, of_stream, its_fault = CAUSES[name]
    other: Any = OTHER[kind]
    async with pair(hangs(), hangs(), (kind, other)) as these:
        for stream in (False, True):
            these.afresh(of_stream if stream and of_stream else of_whole, good(other, stream))
            answer = await these.front.post(CHAT | {"stream": stream})
            assert answer.status_code == 200
            assert text(answer) == ("ab" if stream and other == "tgi" else "Grüße dir")
            assert answer.headers["x-pointsman-deployment"] == "second"
            assert answer.headers["x-pointsman-engine"] == other
            assert len(these.second.asked) == 1
            assert these.struck() == [its_fault, False]


@pytest.mark.parametrize("kinds", [("vllm", "tgi"), ("tgi", "vllm"), ("vllm", "vllm")])
async def test_an_engine_that_refuses_the_connection_is_passed_over(kinds: tuple[Kind, Kind]) -> None:
    async with pair(hangs(), hangs(), kinds) as these:
        await these.front.services.prober.close()  # which would find it out in the same moment
        these.first.stop()
        for stream in (False, True):
            these.afresh(hangs(), good(kinds[1], stream))
            these.endpoints[0].up = True  # as it is until somebody finds out
            answer = await these.front.post(CHAT | {"stream": stream})
            assert answer.status_code == 200
            assert answer.headers["x-pointsman-deployment"] == "second"
            assert these.struck() == [True, False]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_the_other_engine_is_asked_in_its_own_words(kind: Kind, stream: bool) -> None:
    """What the second engine is asked is what it is asked where it alone may answer."""
    other: Any = OTHER[kind]
    body = CHAT | {"stream": stream, "max_completion_tokens": 5}
    async with pair(cuts(b""), good(other, stream), (kind, other)) as these:
        failed_over = await these.front.post(body)
        pinned = await these.front.post(body, x_pointsman_engine=other)
        asked, expected = these.second.asked
        assert asked.path == expected.path
        assert asked.json == expected.json
        assert asked.json != these.first.asked[0].json
        for name in ("x-pointsman-adapted", "x-pointsman-engine"):
            assert failed_over.headers.get(name) == pinned.headers.get(name)


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_what_the_client_did_wrong_is_not_tried_again_nor_held_against_the_engine(kind: Kind) -> None:
    said = REFUSED if kind == "vllm" else {"error": "Input validation error: bad", "error_type": "validation"}
    status = "400 Bad Request" if kind == "vllm" else "422 Unprocessable Entity"
    other: Any = OTHER[kind]
    async with pair(says(whole(said, status)), hangs(), (kind, other)) as these:
        for stream in (False, True):
            assert (await these.front.post(CHAT | {"stream": stream})).status_code == 400
        assert len(these.first.asked) == 2
        assert these.second.asked == []
        assert these.struck() == [False, False]


async def test_when_all_fail_the_last_failure_is_told_after_no_more_attempts_than_configured() -> None:
    busy, dead = says(whole(TGI_BUSY, "429 Too Many Requests")), says(whole(DEAD, "500 Internal Server Error"))
    async with pair(dead, busy, ("vllm", "tgi"), breaker=config.BreakerConfig()) as these:
        for times in (1, 2):
            answer = await these.front.post(CHAT | {"stream": times == 2})
            is_error(answer.json(), "server_error")
            assert answer.status_code == 502  # of the third attempt, at the first again
            assert (len(these.first.asked), len(these.second.asked)) == (2 * times, times)


@pytest.mark.parametrize("kinds", [("vllm", "tgi"), ("tgi", "vllm")])
async def test_what_only_vllm_can_do_does_not_fail_over_to_tgi(kinds: tuple[Kind, Kind]) -> None:
    busy = says(whole(BUSY, "503 Service Unavailable"))
    async with pair(busy, busy, kinds) as these:
        answer = await these.front.post(CHAT | {"top_k": 1})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        asked = {kind: one.asked for kind, one in zip(kinds, (these.first, these.second), strict=True)}
        assert len(asked["vllm"]) == 3
        assert asked["tgi"] == []
        for one in (these.first, these.second):
            one.stop()
        answer = await these.front.post(CHAT | {"top_k": 1})
        assert answer.status_code == 503
        assert asked["tgi"] == []


async def test_a_pinned_engine_does_not_fail_over() -> None:
    async with pair(says(whole(DEAD, "500 Internal Server Error")), good("tgi", False), ("vllm", "tgi")) as these:
        answer = await these.front.post(CHAT, x_pointsman_engine="vllm")
        assert answer.status_code == 502
        assert these.second.asked == []


async def test_an_engine_whose_breaker_just_opened_is_not_tried_again() -> None:
    async with single(cuts(b"220 ftp ready\r\n")) as only:
        assert (await only.front.post(CHAT)).status_code == 502
        assert len(only.first.asked) == 1
        assert (await only.front.post(CHAT)).status_code == 503
        assert len(only.first.asked) == 1


async def test_those_that_waited_for_a_place_do_not_run_to_an_engine_that_is_left_alone_since() -> None:
    go = asyncio.Event()

    async def dies(asked: Any, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await cuts(b"220 ftp ready\r\n")(asked, writer)

    async with single(dies, busy=1) as only:
        posts = [asyncio.create_task(only.front.post(CHAT)) for _ in range(6)]
        await until(lambda: only.front.services.admission.waiting == 5)
        go.set()
        answers = await asyncio.gather(*posts)
        assert sorted(one.status_code for one in answers) == [502] + [503] * 5
        assert all("retry-after" in one.headers for one in answers if one.status_code == 503)
        assert len(only.first.asked) == 1


# --- after the first byte ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("vllm", cuts(head() + piece(STREAM[0] + STREAM[1]))),
        ("vllm", says(streamed(STREAM[0] + STREAM[1] + event(DEAD) + DONE))),
        ("vllm", says(streamed(STREAM[0] + STREAM[1] + b"data: \x00\n\n"))),
        ("tgi", cuts(head() + piece(TGI_CHUNK))),
        ("tgi", says(streamed(TGI_CHUNK + event({"error": {"message": TGI_FAILED["error"]}}) + DONE))),
    ],
)
async def test_after_the_first_byte_a_failure_is_an_error_event_counted_and_not_tried_again(
    kind: Kind, script: Script
) -> None:
    other: Any = OTHER[kind]
    async with pair(script, good(other, True), (kind, other)) as these:
        answer = await these.front.post(STREAMED)
        assert answer.status_code == 200
        assert answer.headers["x-pointsman-deployment"] == "first"
        is_error(events(answer.content)[-1], "server_error")
        assert b"[DONE]" not in answer.content
        assert these.second.asked == []
        await until(lambda: these.struck() == [True, False])


# --- silence, the end, and clients that leave --------------------------------------------------------------------


async def test_a_stream_without_a_first_event_is_given_up_and_answered_by_the_other() -> None:
    clock, timeouts = Clock(), config.TimeoutsConfig(first_event=10)
    async with pair(hangs(head()), good("tgi", True), ("vllm", "tgi"), clock, timeouts=timeouts) as these:
        async with asking(these.front, STREAMED) as answering:
            await until(lambda: these.first.asked)
            await settled()  # the head has come
            clock.now += 11
            answer = await answering
        assert text(answer) == "ab"
        assert answer.headers["x-pointsman-deployment"] == "second"
        assert these.struck() == [True, False]
        await until(lambda: these.first.left)


async def test_when_the_time_for_all_is_over_no_other_is_asked() -> None:
    clock, timeouts = Clock(), config.TimeoutsConfig(total=10)
    async with pair(hangs(), good("tgi", False), ("vllm", "tgi"), clock, timeouts=timeouts) as these:
        async with asking(these.front, CHAT) as answering:
            await until(lambda: these.first.asked)
            clock.now += 11
            assert (await answering).status_code == 504
        assert these.second.asked == []
        assert these.struck() == [False, False]


@pytest.mark.parametrize("stream", [False, True])
async def test_at_the_end_of_a_drain_a_request_ends_and_is_not_tried_elsewhere(stream: bool) -> None:
    async with pair(hangs(), good("tgi", stream), ("vllm", "tgi")) as these:
        asking = asyncio.create_task(these.front.post(CHAT | {"stream": stream}))
        await until(lambda: these.first.asked)
        these.front.services.stop()
        answer = await asking
        assert answer.status_code == 503
        assert these.second.asked == []
        assert these.struck() == [False, False]


async def test_a_client_that_leaves_during_a_backoff_is_not_asked_for_again() -> None:
    retries = config.RetriesConfig(backoff=3600)
    async with single(says(whole(BUSY, "503 Service Unavailable")), retries=retries) as only:
        async with asking(only.front, CHAT):
            await until(lambda: only.first.asked and not only.endpoints[0].in_flight)
        await until(lambda: not only.front.services.sweep.open)
        assert only.idle()
        assert len(only.first.asked) == 1


async def test_a_client_that_leaves_the_queue_leaves_no_trace() -> None:
    async with single(hangs(), busy=1) as only:
        async with asking(only.front, CHAT):
            await until(lambda: only.first.asked)
            async with asking(only.front, CHAT):
                await until(lambda: only.front.services.admission.waiting)
            await until(lambda: not only.front.services.admission.waiting)
            assert only.front.services.admission.in_flight == 1
        await until(only.idle)
        assert len(only.first.asked) == 1
        assert only.struck() == [False]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_stops_the_engine_and_is_nobodys_failure(stream: bool) -> None:
    said = head() + piece(STREAM[0]) if stream else b""
    async with pair(hangs(said), good("tgi", stream), ("vllm", "tgi")) as these:
        async with asking(these.front, CHAT | {"stream": stream}):
            await until(lambda: begun(these.front) if stream else these.first.asked)
        await until(lambda: these.first.left)
        await until(these.idle)
        assert these.second.asked == []
        assert these.struck() == [False, False]


async def test_a_trial_is_decided_by_the_first_event_of_its_stream() -> None:
    clock, rules = Clock(), config.BreakerConfig(failures=1, open=10, most_open=10)
    async with single(cuts(b"220 ftp ready\r\n"), clock, breaker=rules) as only:
        assert (await only.front.post(CHAT)).status_code == 502
        clock.now += 11
        only.first.script = hangs(head() + piece(STREAM[0]))
        async with only.front.client.stream("POST", "/v1/chat/completions", json=STREAMED) as trial:
            assert trial.status_code == 200
            only.first.script = good("vllm", False)
            assert (await only.front.post(CHAT)).status_code == 200


# --- hedging ----------------------------------------------------------------------------------------------------

SOON = 0.05  # seconds, after which the second is asked: what waits for that waits for the asking


async def test_a_slow_engine_is_overtaken_by_a_second_and_stopped() -> None:
    async with pair(hangs(), good("tgi", True), ("vllm", "tgi"), hedge_after=SOON) as these:
        answer = await these.front.post(STREAMED)
        assert text(answer) == "ab"
        assert answer.headers["x-pointsman-deployment"] == "second"
        assert answer.headers["x-pointsman-engine"] == "tgi"
        await until(lambda: these.first.left == 1)
        await until(these.idle)
        assert these.struck() == [False, False]


async def test_the_first_may_still_win_and_the_second_is_stopped() -> None:
    slow = when(lambda: these.second.asked, streamed(*STREAM))
    async with pair(slow, hangs(head()), ("vllm", "tgi"), hedge_after=SOON) as these:
        answer = await these.front.post(STREAMED)
        assert text(answer) == "Grüße dir"
        assert answer.headers["x-pointsman-deployment"] == "first"
        assert len(these.second.asked) == 1
        await until(lambda: these.second.left == 1)
        assert these.struck() == [False, False]


async def test_an_engine_that_is_not_slow_is_not_hedged() -> None:
    async with pair(good("vllm", True), good("tgi", True), ("vllm", "tgi"), hedge_after=3600) as these:
        assert text(await these.front.post(STREAMED)) == "Grüße dir"
        assert these.second.asked == []


async def test_a_whole_answer_is_not_hedged() -> None:
    """It waits until a stream that was asked for later is hedged."""
    kinds: tuple[Kind, Kind] = ("vllm", "tgi")
    async with pair(hangs(), good("tgi", True), kinds, hedge_after=SOON) as these, asking(these.front, CHAT):
        await until(lambda: these.first.asked)
        assert text(await these.front.post(STREAMED)) == "ab"
        assert [asked.json["stream"] for asked in these.second.asked] == [True]


async def test_when_the_first_fails_while_the_second_is_at_work_the_second_answers() -> None:
    died = when(lambda: these.second.asked, whole(DEAD, "500 Internal Server Error"))
    second = when(lambda: not these.endpoints[0].in_flight, streamed(TGI_STREAM + TGI_USAGE))
    async with pair(died, second, ("vllm", "tgi"), hedge_after=SOON) as these:
        answer = await these.front.post(STREAMED)
        assert text(answer) == "ab"
        assert answer.headers["x-pointsman-deployment"] == "second"
        assert these.struck() == [True, False]
        assert len(these.first.asked) == 1


async def test_a_keep_alive_while_two_are_at_work_names_neither() -> None:
    clock, timeouts = Clock(), config.TimeoutsConfig(keep_alive=0.1)
    second = when(lambda: begun(these.front), streamed(TGI_STREAM + TGI_USAGE))
    async with pair(hangs(), second, ("vllm", "tgi"), clock, hedge_after=SOON, timeouts=timeouts) as these:
        async with asking(these.front, STREAMED) as answering:
            await until(lambda: these.second.asked)
            clock.now += 1
            answer = await answering
        assert answer.content.startswith(b": keep-alive\n\n")
        assert text(answer) == "ab"
        assert "x-pointsman-deployment" not in answer.headers


@pytest.mark.parametrize("later", ["first", "second"])
async def test_when_both_fail_unlike_both_are_counted_and_the_client_is_told(later: str) -> None:
    def first_may() -> bool:
        return bool(these.second.asked) and (later == "second" or not these.endpoints[1].in_flight)

    def second_may() -> bool:
        return later == "first" or not these.endpoints[0].in_flight

    died, failed = streamed(b"data: {nonsense\n\n"), whole(TGI_FAILED, "424 Failed Dependency")
    scripts, once = (when(first_may, died), when(second_may, failed)), config.RetriesConfig(attempts=2)
    async with pair(*scripts, ("vllm", "tgi"), hedge_after=SOON, retries=once) as these:
        answer = await these.front.post(STREAMED)
        assert answer.status_code == 502
        is_error(answer.json(), "server_error")
        assert answer.headers["x-pointsman-deployment"] == later
        assert these.struck() == [True, True]
        assert (len(these.first.asked), len(these.second.asked)) == (1, 1)


async def test_silence_of_hedged_engines_is_held_against_them() -> None:
    clock, timeouts = Clock(), config.TimeoutsConfig(first_event=10)
    async with pair(hangs(), hangs(), ("vllm", "tgi"), clock, hedge_after=SOON, timeouts=timeouts) as these:
        async with asking(these.front, STREAMED) as answering:
            await until(lambda: these.first.asked and these.second.asked)
            clock.now += 11
            assert (await answering).status_code == 504
        assert these.struck() == [True, True]
        await until(lambda: these.first.left == these.second.left == 1)


async def test_a_client_that_leaves_stops_both_engines() -> None:
    async with pair(hangs(), hangs(head()), ("vllm", "tgi"), hedge_after=SOON) as these:
        async with asking(these.front, STREAMED):
            await until(lambda: these.first.asked and these.second.asked)
        await until(lambda: these.first.left == these.second.left == 1)
        await until(these.idle)
        assert these.struck() == [False, False]


async def test_without_room_elsewhere_there_is_no_hedge() -> None:
    async def slow(asked: Any, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * SOON)  # the hedge's timer is in the same event loop, and was set before
        writer.write(streamed(*STREAM))

    async with (
        pair(hangs(), hangs(), ("vllm", "vllm"), hedge_after=SOON, busy=1) as these,
        asking(these.front, CHAT) as one,
        asking(these.front, CHAT),
    ):
        await until(lambda: these.first.asked and these.second.asked)
        await leave(one)
        await until(lambda: not these.endpoints[0].in_flight)
        these.first.script = slow
        assert text(await these.front.post(STREAMED)) == "Grüße dir"
        assert len(these.second.asked) == 1


# --- TGI's own API, and paths that are passed on ------------------------------------------------------------------

GENERATED = {"generate": "N01_generate_no_parameters_max20", "generate_stream": "N50_stream"}
OVERLOADED_EVENT = event(TGI_BUSY)
TGI_REFUSALS: dict[str, Script] = {
    "failed": says(whole(TGI_FAILED, "424 Failed Dependency")),
    "busy": says(whole(TGI_BUSY, "429 Too Many Requests")),
    "gone": cuts(b""),
}


@pytest.mark.parametrize("name", GENERATED.values())
async def test_on_tgis_own_paths_a_vllm_answers_what_tgi_fails_at(name: str) -> None:
    case, said, script = plays(name)
    async with pair(hangs(), hangs(), ("tgi", "vllm")) as these:
        for how, refusal in TGI_REFUSALS.items():
            these.afresh(refusal, script)
            answer = await ask(these.front, case)
            assert answer.status_code == 200
            assert (events(answer.content) if isinstance(said, list) else answer.json()) == said
            assert answer.headers["x-pointsman-deployment"] == "second"
            assert these.second.asked[0].path == "/v1/completions"
            assert these.struck() == [how != "busy", False]


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_on_tgis_own_paths_a_slow_stream_is_overtaken_and_stopped(kind: Kind) -> None:
    case, said, script = plays(GENERATED["generate_stream"])
    answers: dict[Kind, Script] = {"vllm": script, "tgi": says(as_sent(case))}
    async with pair(hangs(), answers[kind], (OTHER[kind], kind), hedge_after=SOON) as these:
        answer = await ask(these.front, case)
        assert events(answer.content) == said
        assert answer.headers["x-pointsman-deployment"] == "second"
        await until(lambda: these.first.left == 1)
        assert these.struck() == [False, False]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (passed.MESSAGES, [passed.STARTED, passed.TEXT, passed.LAST, passed.STOPPED]),
        (passed.RESPONSES, [passed.CREATED, passed.PIECE, passed.COMPLETED]),
    ],
)
async def test_on_a_passed_path_a_slow_stream_is_overtaken_and_stopped(path: str, said: list[bytes]) -> None:
    async with pair(hangs(head()), says(streamed(*said)), ("vllm", "vllm"), hedge_after=SOON) as these:
        answer = await these.front.post(passed.STREAMED, path)
        assert len(passed.heard(answer.content)) == len(said)
        assert answer.headers["x-pointsman-deployment"] == "second"
        await until(lambda: these.first.left == 1)
        assert these.struck() == [False, False]


async def test_an_error_as_tgis_first_event_is_answered_by_the_vllm() -> None:
    case, said, script = plays(GENERATED["generate_stream"])
    async with pair(hangs(), hangs(), ("tgi", "vllm")) as these:
        for error in (TGI_BUSY, TGI_FAILED):
            these.afresh(says(streamed(event(error))), script)
            answer = await ask(these.front, case)
            assert events(answer.content) == said
            assert answer.headers["x-pointsman-deployment"] == "second"
            assert these.struck() == [error is TGI_FAILED, False]


@pytest.mark.parametrize("name", GENERATED.values())
async def test_on_tgis_own_paths_a_tgi_answers_what_vllm_fails_at(name: str) -> None:
    case, said, _ = plays(name)
    async with pair(hangs(), hangs(), ("vllm", "tgi")) as these:
        for script in (cuts(b""), says(whole(BUSY, "503 Service Unavailable"))):
            these.afresh(script, says(as_sent(case)))
            answer = await ask(these.front, case)
            assert answer.status_code == 200
            assert (events(answer.content) if isinstance(said, list) else answer.json()) == said
            assert answer.headers["x-pointsman-engine"] == "tgi"
            assert these.second.asked[0].path == case.path


@pytest.mark.parametrize("name", GENERATED.values())
async def test_when_all_fail_tgis_own_words_come_back(name: str) -> None:
    case, _, _ = plays(name)
    async with pair(cuts(b""), says(whole(TGI_FAILED, "424 Failed Dependency")), ("vllm", "tgi")) as these:
        answer = await ask(these.front, case)
        assert answer.status_code == 424
        assert answer.json() == TGI_FAILED
        assert these.struck() == [True, True]


async def test_when_tgis_stream_fails_after_its_first_event_the_client_is_told_and_nobody_else_asked() -> None:
    case, said, script = plays(GENERATED["generate_stream"])
    begun = event(said[0])
    async with pair(says(streamed(begun, event(TGI_FAILED))), script, ("tgi", "vllm")) as these:
        answer = await ask(these.front, case)
        assert events(answer.content) == [said[0], TGI_FAILED]
        assert these.second.asked == []
        await until(lambda: these.struck() == [True, False])


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/messages", "/tokenize"])
async def test_a_passed_path_is_answered_by_the_other(path: str) -> None:
    async with pair(hangs(), hangs(), ("vllm", "vllm")) as these:
        for script, its_fault in (
            (cuts(b""), True),
            (says(whole(DEAD, "500 Internal Server Error")), True),
            (says(whole(BUSY, "503 Service Unavailable")), False),
        ):
            these.afresh(script, says(whole({"model": "x", "ok": 1})))
            answer = await these.front.post({"model": MODEL, "input": "x"}, path)
            assert (answer.status_code, answer.json()) == (200, {"model": MODEL, "ok": 1})
            assert answer.headers["x-pointsman-deployment"] == "second"
            assert these.struck() == [its_fault, False]


async def test_when_all_fail_anthropics_envelope_comes_back_with_the_engines_words() -> None:
    theirs = {"type": "error", "error": {"type": "overloaded_error", "message": "no room"}}
    busy = says(whole(theirs, "503 Service Unavailable"))
    async with pair(busy, busy, ("vllm", "vllm")) as these:
        answer = await these.front.post({"model": MODEL}, "/v1/messages")
        assert (answer.status_code, answer.json()) == (503, theirs | {"request_id": answer.headers["request-id"]})
        assert len(these.first.asked) + len(these.second.asked) == 3
