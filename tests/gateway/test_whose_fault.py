"""Whose fault it is, over real sockets: what a client is told, who is asked next, and who is served afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from itertools import count
from time import monotonic
from typing import Any

import pytest

from gateway import config
from tests.support.clock import Clock
from tests.support.engine_answers import BUSY, DONE, TGI_BUSY, event
from tests.support.errors import is_error
from tests.support.harness import (
    ANSWER,
    CHAT,
    CHAT_PATH,
    MODEL,
    TEXT,
    Asked,
    Engine,
    Gateway,
    Script,
    checked,
    cuts,
    engine,
    gateway,
    hangs,
    says,
    streamed,
    when,
    whole,
)
from tests.support.pairs import good, pair, single

ONE_STRIKE = config.BreakerConfig(failures=1, open=60.0, most_open=60.0)
STREAMED = CHAT | {"stream": True}
POISON = CHAT | {"messages": [{"role": "user", "content": "poison"}]}
GENERATE = {"inputs": "x"}


def refused(status: int, message: str = "Because.", headers: str = "", **more: Any) -> Script:
    """Return the script of an engine that answers with a status and an error of OpenAI's form."""
    return says(whole({"error": {"message": message} | more}, f"{status} x", headers=headers))


def poisoned(kind: str = "vllm", stream: bool = False) -> Script:
    """Return the script of an engine that fails at requests that hold the word, and answers all others."""

    async def script(asked: Asked, writer: Any) -> None:
        bad = b"poison" in asked.body
        await (refused(500) if bad else good("tgi" if kind == "tgi" else "vllm", stream))(asked, writer)

    return script


@contextlib.asynccontextmanager
async def several(
    scripts: list[Script], clock: Callable[[], float] = monotonic, **more: Any
) -> AsyncIterator[tuple[Gateway, list[Engine]]]:
    """Run a gateway over vLLMs of equal weight, behind one model."""
    async with contextlib.AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(engine(script)) for script in scripts]
        models = config.from_urls({"vllm": [one.url for one in engines]}, MODEL, {})
        front = await stack.enter_async_context(gateway(checked(config.Config(models=models, **more)), clock=clock))
        yield front, engines


def struck(front: Gateway) -> list[bool]:
    """Whether the circuit of each deployment is open."""
    return [one.breaker.open_until > 0 or one.connection.open_until > 0 for one in front.services.catalog.endpoints]


# --- statuses ---------------------------------------------------------------------------------------------------

# What an engine answers with, what a client of OpenAI's API is told, and what one of TGI's.
STATUSES: dict[int, tuple[int, int]] = {
    302: (502, 424),
    400: (400, 422),
    401: (502, 424),
    402: (402, 402),
    403: (502, 424),
    404: (404, 422),
    405: (400, 422),
    407: (502, 424),
    408: (502, 424),
    409: (409, 409),
    410: (400, 422),
    413: (413, 413),
    415: (415, 415),
    418: (400, 422),
    422: (400, 422),
    424: (502, 424),
    429: (429, 429),
    451: (400, 422),
    500: (502, 424),
    501: (501, 501),
    502: (502, 424),
    503: (503, 429),
    504: (502, 424),
    529: (503, 429),
}
TYPES = {429: "rate_limit_error", 502: "server_error", 503: "server_error"}
WORDS = {400, 402, 404, 409, 413, 415, 429, 501}  # the engine's own are told


@pytest.mark.parametrize(("path", "body"), [(CHAT_PATH, CHAT), (CHAT_PATH, STREAMED), ("/v1/completions", TEXT)])
@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_an_engines_status_is_kept_as_far_as_it_is_the_requests_and_opens_no_circuit(
    kind: str, path: str, body: dict[str, Any]
) -> None:
    rules = config.RetriesConfig(attempts=1)
    async with engine(hangs()) as behind:
        models = config.from_urls({kind: [behind.url]}, MODEL, {})
        async with gateway(checked(config.Config(models=models, breaker=ONE_STRIKE, retries=rules))) as front:
            for status, (told, _) in STATUSES.items():
                behind.script = refused(status, f"Because of {status}.")
                answer = await front.post(body, path)
                assert answer.status_code == told, status
                error = is_error(answer.json(), TYPES.get(told, "invalid_request_error"))
                assert (f"Because of {status}." in error["message"]) is (told in WORDS), status
                assert ("retry-after" in answer.headers) is (told in (429, 503)), status
            assert struck(front) == [False]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/messages"])
async def test_on_passed_paths_too(path: str) -> None:
    async with single(hangs(), retries=config.RetriesConfig(attempts=1)) as only:
        for status, (told, _) in STATUSES.items():
            only.first.script = refused(status)
            answer = await only.front.post({"model": MODEL, "input": "x"}, path)
            assert answer.status_code == told, status
            if path == "/v1/messages":
                assert answer.json()["type"] == "error"
            else:
                is_error(answer.json(), TYPES.get(told, "invalid_request_error"))
        assert struck(only.front) == [False]


async def test_on_tgis_own_paths_a_vllms_status_has_tgis_form() -> None:
    async with single(hangs(), retries=config.RetriesConfig(attempts=1)) as only:
        for status, (_, told) in STATUSES.items():
            only.first.script = refused(status)
            answer = await only.front.post(GENERATE, "/generate")
            assert answer.status_code == told, status
        assert struck(only.front) == [False]


@pytest.mark.parametrize("status", [402, 404, 409, 413, 415, 501, 401, 403, 407, 302])
async def test_what_one_deployment_does_not_do_another_is_asked_for(status: int) -> None:
    async with pair(refused(status), good("vllm", False), ("vllm", "vllm")) as these:
        assert (await these.front.post(CHAT)).status_code == 200
        assert len(these.first.asked) == len(these.second.asked) == 1
        assert these.struck() == [status == 302, False]


@pytest.mark.parametrize("status", [402, 409, 413, 415, 501])
async def test_what_two_refuse_alike_no_third_is_asked_for(status: int) -> None:
    async with several([refused(status)] * 3, breaker=ONE_STRIKE) as (front, engines):
        assert (await front.post(CHAT)).status_code == status
        assert sum(len(one.asked) for one in engines) == 2
        assert struck(front) == [False] * 3


async def test_refused_credentials_are_named_in_the_log_once_until_they_are_taken_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with single(refused(401)) as only:
        for script in (refused(401), refused(403), good("vllm", False), refused(401)):
            only.first.script = script
            await only.front.post(CHAT)
    said = [record for record in caplog.records if "credentials" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.ERROR] * 2
    assert all("first" in record.getMessage() for record in said)


# --- overload ---------------------------------------------------------------------------------------------------

OVERLOADS: dict[str, tuple[str, Script, Script | None]] = {
    "vLLM's admission": ("vllm", says(whole(BUSY, "503 x")), None),
    "vLLM that scales": ("vllm", says(whole({"error": "The model is currently scaling. Try again."}, "503 x")), None),
    "529": ("vllm", refused(529, type="overloaded_error"), None),
    "Retry-After without a body": ("vllm", says(whole(b"", "503 x", headers="retry-after: 3\r\n")), None),
    "Retry-After with a 500": ("vllm", says(whole(b"", "500 x", headers="retry-after: 3\r\n")), None),
    "a 500 that says so": ("vllm", refused(500, "Overloaded", type="overloaded_error"), None),
    "TGI's 429": ("tgi", says(whole(TGI_BUSY, "429 x")), None),
    "TGI's 503": ("tgi", says(whole(b"", "503 x")), None),
    "an event with a code": (
        "vllm",
        says(whole(BUSY, "503 x")),
        says(streamed(event({"error": {"message": "no", "code": 503}}) + DONE)),
    ),
    "an event with a word": (
        "vllm",
        says(whole(BUSY, "503 x")),
        says(streamed(event({"error": {"message": "no", "type": "overloaded_error"}}) + DONE)),
    ),
    "an event of TGI's": (
        "tgi",
        says(whole(TGI_BUSY, "429 x")),
        says(streamed(event({"error": {"message": "Model is overloaded", "http_status_code": 422}}) + DONE)),
    ),
}


@pytest.mark.parametrize("name", OVERLOADS)
@pytest.mark.parametrize("stream", [False, True])
async def test_overload_however_it_is_reported_is_no_room_and_no_failure(name: str, stream: bool) -> None:
    kind, of_whole, of_stream = OVERLOADS[name]
    busy = of_stream if stream and of_stream else of_whole
    body = CHAT | {"stream": stream}
    async with pair(busy, good("vllm", stream), (kind, "vllm")) as these:  # type: ignore[arg-type]
        assert (await these.front.post(body)).status_code == 200
        assert these.struck() == [False, False]
        these.afresh(busy, refused(503))
        answer = await these.front.post(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert these.struck() == [False, False]


# --- one model's alone ------------------------------------------------------------------------------------------


async def test_an_adapter_that_is_gone_is_its_own_404_and_its_siblings_are_served() -> None:
    async def script(asked: Asked, writer: Any) -> None:
        gone = asked.json["model"] == "adapter"
        missing = refused(404, "The model `adapter` does not exist.", type="NotFoundError", param="model", code=404)
        await (missing if gone else good("vllm", False))(asked, writer)

    async with engine(script, "base", "adapter") as behind:
        models = config.from_urls({"vllm": [behind.url]}, "", {})
        async with gateway(checked(config.Config(models=models, breaker=ONE_STRIKE))) as front:
            for path, body in ((CHAT_PATH, CHAT), (CHAT_PATH, STREAMED), ("/v1/completions", TEXT)):
                answer = await front.post(body | {"model": "adapter"}, path)
                assert answer.status_code == 404
                error = is_error(answer.json())
                assert (error["code"], error["param"]) == ("model_not_found", "model")
                assert "adapter" in error["message"]
            assert (await front.post(CHAT | {"model": "base"})).status_code == 200
            assert struck(front) == [False]


async def test_an_adapter_that_two_of_three_have_unloaded_is_answered_by_the_third() -> None:
    missing = refused(404, "The model `tiny` does not exist.", param="model")
    async with several([missing, missing, good("vllm", False)], breaker=ONE_STRIKE) as (front, _):
        assert [(await front.post(CHAT)).status_code for _ in range(5)] == [200] * 5
        assert struck(front) == [False] * 3


# --- what breaks any engine -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("engines", [1, 2, 3])
async def test_a_request_that_breaks_every_engine_harms_nobody_else(engines: int, stream: bool) -> None:
    async with several([poisoned(stream=stream)] * engines, breaker=ONE_STRIKE) as (front, behind):
        for _ in range(12):
            assert (await front.post(POISON | {"stream": stream})).status_code == 502
            assert (await front.post(CHAT | {"stream": stream})).status_code == 200
        assert struck(front) == [False] * engines
        if engines > 1:
            assert sum(b"poison" in one.body for each in behind for one in each.asked) == 24, "two tries each"


@pytest.mark.parametrize(
    ("path", "body", "bad"),
    [
        ("/v1/embeddings", {"model": MODEL, "input": "x"}, {"model": MODEL, "input": "poison"}),
        ("/generate", {"inputs": "x"}, {"inputs": "poison"}),
        ("/generate_stream", {"inputs": "x"}, {"inputs": "poison"}),
    ],
)
async def test_nor_on_the_other_surfaces(path: str, body: dict[str, Any], bad: dict[str, Any]) -> None:
    async with several([poisoned()] * 3, breaker=ONE_STRIKE) as (front, _):
        for _ in range(5):
            answer = await front.post(bad, path)
            assert answer.status_code in (200, 424, 502)  # 200: a stream of TGI's, whose errors are events
        assert struck(front) == [False] * 3
        assert (await front.post(CHAT)).status_code == 200


async def test_nor_where_one_engine_alone_can_be_asked() -> None:
    """A vLLM beside a TGI, which cannot do what is asked, or which the client has not pinned."""
    async with pair(poisoned(), good("tgi", False), ("vllm", "tgi")) as these:
        for body, pin in ((POISON | {"top_k": 1}, {}), (POISON, {"x_pointsman_engine": "vllm"})):
            assert (await these.front.post(body, **pin)).status_code == 502
        assert these.struck() == [False, False]


async def test_an_engine_that_fails_at_what_another_answers_is_to_blame() -> None:
    async with pair(refused(500), good("vllm", False), ("vllm", "vllm")) as these:
        assert (await these.front.post(CHAT)).status_code == 200
        assert these.struck() == [True, False]


@pytest.mark.parametrize("second", [cuts(b"220 ftp\r\n"), says(whole(b"<html>", "200 OK", "text/html"))])
async def test_two_that_fail_unlike_are_both_to_blame(second: Script) -> None:
    async with pair(refused(500), second, ("vllm", "vllm")) as these:
        assert (await these.front.post(CHAT)).status_code == 502
        assert these.struck() == [True, True]


@pytest.mark.parametrize("engines", [2, 3])
async def test_ten_distinct_requests_that_fail_alike_are_the_engines_fault(engines: int) -> None:
    async with several([refused(500)] * engines, breaker=config.BreakerConfig(open=60.0)) as (front, _):
        for number in range(10 * engines):
            await front.post(CHAT | {"seed": number})
        assert any(struck(front))


async def test_an_only_deployment_is_ejected_for_what_its_connection_does_and_for_no_answer() -> None:
    numbers = count()
    async with single(refused(500)) as only:
        for _ in range(12):
            assert (await only.front.post(CHAT | {"seed": next(numbers)})).status_code == 502
        assert struck(only.front) == [False]
        only.first.script = cuts(b"220 ftp\r\n")
        assert (await only.front.post(CHAT)).status_code == 502
        assert struck(only.front) == [True]
        assert (await only.front.post(CHAT)).status_code == 503


async def test_a_probe_of_an_only_deployment_that_is_answered_closes_the_circuit() -> None:
    clock = Clock()
    async with single(cuts(b"220 ftp\r\n"), clock, retries=config.RetriesConfig(attempts=1)) as only:
        await only.front.post(CHAT)
        clock.now += 61
        only.first.script = refused(500)
        assert [(await only.front.post(CHAT)).status_code for _ in range(2)] == [502, 502]
        assert struck(only.front) == [False]


async def test_a_model_that_an_engine_serves_alone_is_served_while_its_shared_model_is_ejected() -> None:
    """An engine with a model of its own beside one that a sibling has too: the sibling takes over the latter alone."""

    async def script(asked: Asked, writer: Any) -> None:
        await (refused(500) if asked.json["model"] == "shared" else good("vllm", False))(asked, writer)

    async with engine(script, "shared", "alone") as first, engine(good("vllm", False), "shared") as second:
        models = config.from_urls({"vllm": [first.url, second.url]}, "", {})
        async with gateway(checked(config.Config(models=models, breaker=ONE_STRIKE))) as front:
            for _ in range(10):
                assert (await front.post(CHAT | {"model": "shared"})).status_code == 200
            assert struck(front) == [True, False]
            assert (await front.post(CHAT | {"model": "alone"})).status_code == 200
            ready = await front.client.get("/readyz")
            assert ready.json()["models"] == {"shared": True, "alone": True}


async def test_a_half_open_probe_decides_without_waiting_for_another() -> None:
    clock = Clock()
    async with pair(refused(500), good("vllm", False), ("vllm", "vllm"), clock) as these:
        await these.front.post(CHAT)
        opened = these.endpoints[0].breaker.open_until
        clock.now += 61
        assert (await these.front.post(CHAT)).status_code == 200
        assert these.endpoints[0].breaker.open_until > opened
        assert len(these.first.asked) == 2


async def test_a_permit_is_given_back_while_the_verdict_is_awaited() -> None:
    second = when(lambda: not these.endpoints[0].in_flight, whole(ANSWER))
    async with pair(refused(500), second, ("vllm", "vllm"), busy=1) as these:
        assert (await these.front.post(CHAT)).status_code == 200


# --- Retry-After ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "told"), [(429, 429), (503, 503), (529, 503)])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_PATH, CHAT),
        (CHAT_PATH, STREAMED),
        ("/v1/embeddings", {"model": MODEL, "input": "x"}),
        ("/generate", GENERATE),
    ],
)
async def test_an_engines_retry_after_is_told_and_kept_to(
    path: str, body: dict[str, Any], status: int, told: int
) -> None:
    clock, limited = Clock(), refused(status, headers="retry-after: 20\r\n")
    told = 429 if path == "/generate" else told
    async with single(limited, clock) as only:
        for passed, left in ((0, "20"), (5, "15"), (14.5, "1")):
            clock.now += passed
            answer = await only.front.post(body, path)
            assert (answer.status_code, answer.headers["retry-after"]) == (told, left)
        assert len(only.first.asked) == 1
        assert struck(only.front) == [False]
        assert (await only.front.client.get("/readyz")).status_code == 200
        clock.now += 1
        await only.front.post(body, path)
        assert len(only.first.asked) == 2


async def test_a_date_is_told_in_seconds_and_a_long_time_is_a_minute() -> None:
    clock = Clock()
    async with single(hangs(), clock) as only:  # the wall clock stands at Tue, 14 Nov 2023 22:13:20 GMT
        for written, told in (("Tue, 14 Nov 2023 22:13:50 GMT", "30"), ("3600", "60"), ("nonsense", "1"), ("0", "1")):
            only.first.script = refused(503, headers=f"retry-after: {written}\r\n")
            answer = await only.front.post(CHAT)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, told)
            clock.now += 61


async def test_meanwhile_the_siblings_are_asked() -> None:
    clock = Clock()
    async with pair(refused(429, headers="retry-after: 20\r\n"), good("vllm", False), ("vllm", "vllm"), clock) as these:
        for _ in range(5):
            answer = await these.front.post(CHAT)
            assert answer.headers["x-pointsman-deployment"] == "second"
        assert len(these.first.asked) == 1
        these.first.script = good("vllm", False)
        clock.now += 21
        assert (await these.front.post(CHAT)).headers["x-pointsman-deployment"] == "first"


@pytest.mark.parametrize("waits", [(20, 5), (5, 20)])
async def test_a_client_is_told_the_shortest_of_those_that_refused(waits: tuple[int, int]) -> None:
    first, second = (refused(429, headers=f"retry-after: {wait}\r\n") for wait in waits)
    async with pair(first, second, ("vllm", "vllm"), Clock()) as these:
        for _ in range(2):  # once by the engines, and once by what they said
            answer = await these.front.post(CHAT)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert len(these.first.asked) == len(these.second.asked) == 1


async def test_an_envelope_of_anthropics_has_it_too() -> None:
    theirs = {"type": "error", "error": {"type": "overloaded_error", "message": "no room"}}
    async with single(says(whole(theirs, "503 x", headers="retry-after: 20\r\n"))) as only:
        answer = await only.front.post({"model": MODEL}, "/v1/messages")
        assert (answer.json()["error"], answer.headers["retry-after"]) == (theirs["error"], "20")


async def test_those_that_waited_for_a_place_are_not_sent_to_an_engine_that_asked_to_be_left_in_peace() -> None:
    limited = when(lambda: only.front.services.admission.waiting == 3, b"")
    said = refused(429, headers="retry-after: 20\r\n")

    async def script(asked: Asked, writer: Any) -> None:
        await limited(asked, writer)
        await said(asked, writer)

    async with single(script, Clock(), busy=1) as only:
        answers = await asyncio.gather(*(only.front.post(CHAT) for _ in range(4)))
        assert [one.status_code for one in answers] == [429] * 4
        assert {one.headers["retry-after"] for one in answers} == {"20"}
        assert len(only.first.asked) == 1
