"""Errors of passed paths are told in the words of the API that the client speaks, whole and as events."""

from collections.abc import Callable
from typing import Any

import pytest

from gateway import config
from tests.support.errors import is_error
from tests.support.harness import (
    checked,
    cuts,
    engine,
    gateway,
    head,
    over,
    piece,
    says,
    streamed,
    whole,
)
from tests.support.keys import GOOD, changed, ring
from tests.support.passed import (
    ASKED,
    COMPLETED,
    CREATED,
    MESSAGES,
    PIECE,
    RESPONSES,
    STARTED,
    STREAMED,
    TEXT,
    event,
    heard,
    response,
)

ANTHROPICS = (MESSAGES, MESSAGES + "/count_tokens")


def is_anthropics(answer: Any, kind: str) -> str:
    """Return the message of Anthropic's envelope, which is whole and of one kind."""
    body = answer.json()
    assert body.keys() == {"type", "error", "request_id"}, body
    assert body["error"].keys() == {"type", "message"}
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert body["request_id"] == answer.headers["request-id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    message = body["error"]["message"]
    assert isinstance(message, str)
    assert message
    return message


OWN: list[tuple[dict[str, Any], dict[str, str], int, str]] = [
    ({"model": "another"}, {}, 404, "not_found_error"),
    ({"model": 7}, {}, 400, "invalid_request_error"),
    ({}, {"content-type": "text/plain"}, 415, "invalid_request_error"),
    ({}, {"content-encoding": "br"}, 415, "invalid_request_error"),
    ({}, {"x-pointsman-engine": "abacus"}, 400, "invalid_request_error"),
    ({"system": "x" * 2000}, {}, 413, "request_too_large"),
]


@pytest.mark.parametrize("path", ANTHROPICS)
@pytest.mark.parametrize(("body", "headers", "status", "kind"), OWN)
async def test_the_gateways_own_refusals(
    path: str, body: dict[str, Any], headers: dict[str, str], status: int, kind: str
) -> None:
    server = config.ServerConfig(max_body="1KiB")
    async with over(says(whole({})), server=server) as (front, behind):
        answer = await front.post(ASKED | body, path, **headers)
        assert answer.status_code == status
        is_anthropics(answer, kind)
        assert behind.asked == []


@pytest.mark.parametrize("path", ANTHROPICS)
async def test_keys_limits_and_methods(path: str) -> None:
    async with over(says(whole({}))) as (front, _):
        front.services.keyring = ring(changed(models=["tiny"], requests_per_minute=2))
        answer = await front.post(ASKED, path)
        assert answer.status_code == 401
        is_anthropics(answer, "authentication_error")
        front.client.headers["x-api-key"] = GOOD
        answer = await front.client.get(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        is_anthropics(answer, "invalid_request_error")
        answers = [await front.post(ASKED, path) for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        is_anthropics(answers[-1], "rate_limit_error")
        assert answers[-1].headers["retry-after"]


async def test_a_key_that_is_not_good_for_the_model() -> None:
    async with over(says(whole({}))) as (front, _):
        front.services.keyring = ring(changed(models=["another"]))
        answer = await front.post(ASKED, MESSAGES, x_api_key=GOOD)
        is_anthropics(answer, {403: "permission_error", 404: "not_found_error"}[answer.status_code])


@pytest.mark.parametrize("path", ["/v1/messages/batches", "/v1/messages/x/y"])
async def test_a_path_below_messages_that_is_not_there(path: str) -> None:
    async with over(says(whole({}))) as (front, _):
        answer = await front.client.get(path)
        assert answer.status_code == 404
        body = answer.json()
        assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
        assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ANTHROPICS)
async def test_where_only_tgi_is_behind_the_model_it_is_named(path: str) -> None:
    async with over(says(b""), "tgi") as (front, _):
        answer = await front.post(ASKED, path)
        assert answer.status_code == 400
        assert "TGI" in is_anthropics(answer, "invalid_request_error")


@pytest.mark.parametrize("path", ANTHROPICS)
async def test_no_engine_is_an_overload(path: str) -> None:
    async with over(says(whole({}))) as (front, behind):
        behind.stop()
        answer = await front.post(ASKED, path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        is_anthropics(answer, "overloaded_error")


def anthropics(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "its own words"}}


def openais(status: int) -> dict[str, Any]:
    return {"error": {"message": "its own words", "type": "SomeError", "param": None, "code": status}}


THEIRS: list[tuple[str, Any, int, str]] = [
    ("400 Bad Request", anthropics("BadRequestError"), 400, "invalid_request_error"),  # vLLM's own word
    ("400 Bad Request", openais(400), 400, "invalid_request_error"),
    ("422 Unprocessable Entity", {"detail": "its own words"}, 400, "invalid_request_error"),
    ("429 Too Many Requests", anthropics("rate_limit_error"), 429, "rate_limit_error"),
    ("503 Service Unavailable", anthropics("overloaded_error"), 503, "overloaded_error"),
    ("500 Internal Server Error", anthropics("api_error"), 502, "api_error"),
    ("403 Forbidden", anthropics("permission_error"), 502, "api_error"),
    ("500 Internal Server Error", anthropics("internal_error"), 502, "api_error"),
    ("401 Unauthorized", {"error": "Unauthorized"}, 502, "api_error"),  # the gateway's credentials
    ("503 Service Unavailable", openais(503), 503, "overloaded_error"),
    ("500 Internal Server Error", b"<html>", 502, "api_error"),
]


@pytest.mark.parametrize("path", ANTHROPICS)
@pytest.mark.parametrize(("line", "said", "status", "kind"), THEIRS)
async def test_an_engines_errors_in_any_envelope(path: str, line: str, said: Any, status: int, kind: str) -> None:
    async with over(says(whole(said, line))) as (front, _):
        answer = await front.post(ASKED, path)
        assert answer.status_code == status
        message = is_anthropics(answer, kind)
        its_own = status == 400 or said == anthropics(kind)
        assert (message == "its own words") == its_own or status == 429


@pytest.mark.parametrize("path", ["/v1/embeddings", RESPONSES, RESPONSES + "/input_tokens", "/v1/rerank"])
async def test_elsewhere_whole_errors_are_openais(path: str) -> None:
    async with over(says(whole(anthropics("invalid_request_error"), "400 Bad Request"))) as (front, _):
        answer = await front.post(STREAMED, path)
        assert answer.status_code == 400
        assert is_error(answer.json())["message"] == "its own words"
        assert "request-id" not in answer.headers


# A stream's first event. What an error's own word says is the status that a client is told.
FIRST: list[tuple[str, bytes, int]] = [
    (MESSAGES, event("error", error={"type": "overloaded_error", "message": "busy"}), 503),
    (MESSAGES, event("error", error={"type": "rate_limit_error", "message": "slow"}), 429),
    (MESSAGES, event("error", error={"type": "invalid_request_error", "message": "bad"}), 400),
    (MESSAGES, event("error", error={"type": "internal_error", "message": "boom"}), 502),
    (MESSAGES, b'data: {"error": {"message": "boom", "code": 500}}\n\ndata: [DONE]\n\n', 502),
    (MESSAGES, b'data: {"error": {"message": "busy", "code": 503}}\n\n', 503),
    (MESSAGES, event("ping") + event("error", error={"type": "api_error", "message": "boom"}), 502),
    (MESSAGES, b": wait\n\n" + event("error", error={"type": "api_error", "message": "boom"}), 502),
    (MESSAGES, b"event: error\r\ndata: boom\r\n\r\n", 502),
    (MESSAGES, b"", 502),  # an end without any event
    (RESPONSES, event("error", code="server_error", message="boom", sequence_number=0), 502),
    (RESPONSES, event("error", code="rate_limit_exceeded", message="slow", sequence_number=0), 429),
    (RESPONSES, event("response.failed", response=response(error={"code": "server_error", "message": "x"})), 502),
    (RESPONSES, b'data: {"error": "boom"}\n\n', 502),
    (RESPONSES, b'event: error\ndata: {"detail": "boom"}\n\n', 502),
]
WELL = {MESSAGES: STARTED + TEXT + event("message_stop"), RESPONSES: CREATED + PIECE + COMPLETED}


@pytest.mark.parametrize(("path", "said", "status"), FIRST)
async def test_a_stream_that_begins_with_an_error_is_a_status(path: str, said: bytes, status: int) -> None:
    async with over(says(streamed(said) if said else streamed())) as (front, _):
        answer = await front.post(STREAMED, path)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert ("request_id" in answer.json()) == (path == MESSAGES)
        assert status not in (429, 503) or answer.headers["retry-after"]


BREAKS: list[tuple[str, bytes]] = [(path, streamed(said)) for path, said, status in FIRST if status != 400] + [
    (path, head() + piece(said))
    for path in (MESSAGES, RESPONSES)
    for said in (b": x\n\n", b"event: message_start\n", b"event: x\ndata: {", b"\n")
]


@pytest.mark.parametrize(("path", "said"), BREAKS)
async def test_such_an_engine_is_left_for_the_next_one_before_the_client_hears_of_it(path: str, said: bytes) -> None:
    async with engine(cuts(said)) as one, engine(says(streamed(WELL[path]))) as two:
        models = config.from_urls({"vllm": [one.url, two.url]}, "tiny", {})
        async with gateway(checked(config.Config(models=models))) as front:
            for _ in range(4):
                answer = await front.post(STREAMED, path)
                assert answer.status_code == 200
                assert [one.name for one in heard(answer.content)] == [one.name for one in heard(WELL[path])]
                assert answer.headers["x-pointsman-deployment"] == "vllm-2"
            assert one.asked


def anthropics_event(body: bytes) -> str:
    *_, last = heard(body)
    assert last.name == "error"
    assert last.data.keys() == {"type", "error", "request_id"}
    return str(last.data["error"]["type"])


def responses_event(body: bytes) -> str:
    *before, last = heard(body)
    assert last.name == "error"
    assert last.data.keys() == {"type", "code", "message", "param", "sequence_number", "error"}
    assert last.data["sequence_number"] == before[-1].data["sequence_number"] + 1
    assert is_error(last.data, last.data["error"]["type"])["message"] == last.data["message"]
    return str(last.data["code"])


LATER: list[tuple[str, bytes, Callable[[bytes], str], str]] = [
    (
        MESSAGES,
        event("error", error={"type": "rate_limit_error", "message": "x"}),
        anthropics_event,
        "rate_limit_error",
    ),
    (MESSAGES, event("error", error={"type": "internal_error", "message": "x"}), anthropics_event, "api_error"),
    (MESSAGES, b'data: {"error": {"message": "x", "code": 500}}\n\ndata: [DONE]\n\n', anthropics_event, "api_error"),
    (MESSAGES, b"event: content_block_delta\n", anthropics_event, "api_error"),
    (MESSAGES, b"event: content_block_delta\r\ndata: {", anthropics_event, "api_error"),
    (MESSAGES, b"", anthropics_event, "api_error"),
    (RESPONSES, event("error", code="server_error", message="x"), responses_event, "engine_error"),
    (RESPONSES, b'data: {"error": {"message": "x", "code": 500}}\n\n', responses_event, "engine_error"),
    (RESPONSES, b"event: response.output_text.delta\n", responses_event, "engine_error"),
    (RESPONSES, b"", responses_event, "engine_error"),
]
BEGINNING = {MESSAGES: STARTED + TEXT, RESPONSES: CREATED + PIECE}


@pytest.mark.parametrize("breaks", [True, False], ids=["breaks", "ends"])
@pytest.mark.parametrize(("path", "said", "read", "kind"), LATER)
async def test_a_stream_that_fails_later_ends_in_an_event_of_its_own(
    path: str, said: bytes, read: Callable[[bytes], str], kind: str, breaks: bool
) -> None:
    data = head() + piece(BEGINNING[path]) + (piece(said) if said else b"") + (b"" if breaks else b"0\r\n\r\n")
    async with over(cuts(data) if breaks else says(data)) as (front, _):
        answer = await front.post(STREAMED, path)
        assert answer.status_code == 200
        assert read(answer.content) == kind
        assert [one.name for one in heard(answer.content)] == [*(one.name for one in heard(BEGINNING[path])), "error"]


async def test_the_failure_of_a_whole_response_passes_as_the_engine_said_it() -> None:
    failed = event("response.failed", response=response("resp_1", "failed", error={"code": "server_error"}))
    async with over(says(streamed(CREATED, PIECE, failed))) as (front, _):
        answer = await front.post(STREAMED, RESPONSES)
        created, *_, last = heard(answer.content)
        assert (last.name, last.data["response"]["error"]) == ("response.failed", {"code": "server_error"})
        assert last.data["response"]["id"] == created.data["response"]["id"]


async def test_how_a_connection_ends_after_the_last_event_is_nobodys_concern() -> None:
    for path, said in WELL.items():
        async with over(cuts(head() + piece(said))) as (front, _):
            answer = await front.post(STREAMED, path)
            assert [one.name for one in heard(answer.content)] == [one.name for one in heard(said)]


async def test_the_last_event_may_lack_its_blank_line() -> None:
    for path, said in WELL.items():
        async with over(says(streamed(said.rstrip()))) as (front, _):
            assert len(heard((await front.post(STREAMED, path)).content)) == 3


async def test_a_whole_answer_that_breaks_is_asked_for_elsewhere() -> None:
    broken = whole(response())[:-5]
    async with engine(cuts(broken)) as one, engine(says(whole(response()))) as two:
        models = config.from_urls({"vllm": [one.url, two.url]}, "tiny", {})
        async with gateway(checked(config.Config(models=models))) as front:
            for _ in range(4):
                assert (await front.post(ASKED, RESPONSES)).status_code == 200
            assert one.asked
