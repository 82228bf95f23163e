"""Paths that are passed on as they are: the model's name is mapped, and nothing else is touched."""

from typing import Any

import httpx
import pytest

from gateway import config
from gateway.api.passthrough import FORM_PATHS, JSON_PATHS
from tests.support.errors import is_error
from tests.support.harness import both, checked, engine, gateway, head, over, piece, says, whole

BODY = {"model": "tiny", "input": "x", "of_tomorrow": [1, None, {"a": 1.50}]}


@pytest.mark.parametrize("path", [*JSON_PATHS, "/tokenize"])
async def test_a_json_body_arrives_as_it_was_sent_with_the_engines_name_for_the_model(path: str) -> None:
    answer = {"id": "engine-1", "model": "own", "data": [{"x": None}]}
    async with engine(says(whole(answer))) as behind:
        models = config.from_urls({"vllm": [behind.url]}, "mine", {})
        async with gateway(checked(config.Config(models=models))) as front:
            said = await front.post(BODY | {"model": "mine"}, path)
            assert said.status_code == 200
            assert said.json() == answer | {"model": "mine"}
            (asked,) = behind.asked
            assert asked.path == path
            assert asked.json == BODY | {"model": "tiny"}
            assert said.headers["x-pointsman-engine"] == "vllm"


@pytest.mark.parametrize("path", [*JSON_PATHS, "/tokenize"])
async def test_where_only_tgi_is_behind_the_model_a_400_names_it(path: str) -> None:
    async with over(says(b""), "tgi") as (front, behind):
        answer = await front.post(BODY, path)
        assert answer.status_code == 400
        said = answer.json()
        error = said["error"] if path.startswith("/v1/messages") else is_error(said)
        assert "TGI" in error["message"]
        assert path in error["message"]
        assert behind.asked == []


def test_the_paths_are_those_that_are_promised() -> None:
    assert set(JSON_PATHS) == {
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v2/embed",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/v1/score",
        "/score",
        "/pooling",
        "/classify",
        "/detokenize",
    }
    assert set(FORM_PATHS) == {"/v1/audio/transcriptions", "/v1/audio/translations"}


QUERIES = ["beta=true", "a=1&a=2&b=%2F+x%20y&c", "x=%C3%BC"]
HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "a,b",
    "openai-beta": "responses=v1",
    "openai-organization": "org-1",
}


@pytest.mark.parametrize("path", JSON_PATHS)
@pytest.mark.parametrize("query", QUERIES)
async def test_the_query_and_the_headers_of_both_apis_arrive(path: str, query: str) -> None:
    async with over(says(whole({"ok": 1}))) as (front, behind):
        kept = {"x-request-id": "r-1", "cookie": "a=b", "authorization": "Bearer theirs", "x-api-key": "theirs"}
        answer = await front.post(BODY, f"{path}?{query}", **HEADERS | kept)
        assert answer.status_code == 200
        (asked,) = behind.asked
        assert httpx.QueryParams(asked.path.partition("?")[2]) == httpx.QueryParams(query)
        assert asked.headers.items() >= HEADERS.items()
        assert asked.headers["x-request-id"] == answer.headers["x-request-id"]
        assert not asked.headers.keys() & {"cookie", "authorization", "x-api-key"}


async def test_the_urls_that_are_kept_of_an_engine_do_not_grow_with_the_queries() -> None:
    async with over(says(whole({"ok": 1}))) as (front, _):
        (endpoint,) = front.services.catalog.endpoints
        for number in range(2000):
            endpoint.requests.target(f"/v1/messages?beta={number}")
        assert len(endpoint.requests._targets) < 1000
        assert endpoint.requests.target("/v1/messages?a=1") == "/v1/messages?a=1"


MAPPED = [
    b'{"model" : "own", "a":1}',
    b'{"a":{"model":"own"},\n "model"\t:\n"own"}',
    b'{"message" : {"model":"own"}}',
    b'{"response" : {"model" : "own"}}',
]


@pytest.mark.parametrize("said", MAPPED)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/rerank", "/v1/audio/translations"])
async def test_a_whole_answer_names_the_model_as_the_client_did(path: str, said: bytes) -> None:
    async with engine(says(whole(said))) as behind:
        models = config.from_urls({"vllm": [behind.url]}, "mine", {})
        async with gateway(checked(config.Config(models=models))) as front:
            form: Any = {"data": {"model": "mine"}, "files": {"file": ("a.wav", b"0", "audio/wav")}}
            sent: Any = form if path in FORM_PATHS else {"json": BODY | {"model": "mine"}}
            answer = (await front.client.post(path, **sent)).json()
            assert (answer.get("message") or answer.get("response") or answer)["model"] == "mine"
            assert answer.get("a") in (None, 1, {"model": "own"})


async def test_an_answer_that_is_no_json_passes_as_it_is() -> None:
    for kind, said in (("text/plain", b'{"model": "own"}'), ("application/json", b"[1, 2"), ("audio/wav", b"\xff\0")):
        async with over(says(whole(said, kind=kind))) as (front, _):
            answer = await front.post(BODY, "/v1/messages")
            assert (answer.content, answer.headers["content-type"]) == (said, kind)


async def test_with_both_behind_the_model_it_goes_to_vllm() -> None:
    async with both(says(whole({"ok": 1})), says(b"")) as (front, _):
        for _ in range(5):
            assert (await front.post(BODY, "/v1/responses")).json() == {"ok": 1}


async def test_a_stream_passes_byte_for_byte() -> None:
    pieces = [b"event: response.created\ndata: {}\n", b"\nevent: x\nda", b"ta: 1\n\n"]
    said = head("text/event-stream; charset=utf-8") + b"".join(piece(one) for one in pieces) + b"0\r\n\r\n"
    async with over(says(said)) as (front, _):
        answer = await front.post(BODY | {"stream": True}, "/v1/responses")
        assert answer.content == b"".join(pieces)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("path", JSON_PATHS)
async def test_a_path_that_the_models_engine_does_not_have_is_a_400_and_null_fields_are_left_out(path: str) -> None:
    async with over(says(whole({"detail": "Not Found"}, "404 Not Found"))) as (front, behind):
        answer = await front.post(BODY | {"encoding_format": None, "dimensions": None}, path)
        assert answer.status_code == 400
        assert path in answer.json()["error"]["message"]
        assert set(behind.asked[0].json) == set(BODY)


async def test_an_engines_error_is_in_openais_envelope_but_on_anthropics_paths_in_anthropics() -> None:
    theirs = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    async with over(says(whole(theirs, "400 Bad Request"))) as (front, _):
        answer = await front.post(BODY, "/v1/responses")
        assert answer.status_code == 400
        assert is_error(answer.json())["message"] == "no"
        answer = await front.post(BODY, "/v1/messages")
        said = answer.json()
        assert (answer.status_code, said) == (400, theirs | {"request_id": answer.headers["request-id"]})


async def test_a_form_arrives_with_its_file_untouched_and_the_model_mapped() -> None:
    sound = bytes(range(256)) * 50 + b'\r\nname="model"\r\n\r\nnot this'
    async with engine(says(whole({"text": "hello"}))) as behind:
        models = config.from_urls({"vllm": [behind.url]}, "mine", {})
        async with gateway(checked(config.Config(models=models))) as front:
            fields: Any = {"model": "mine", "language": "en"}
            answer = await front.client.post(
                "/v1/audio/transcriptions", data=fields, files={"file": ("a.wav", sound, "audio/wav")}
            )
            assert answer.json() == {"text": "hello"}
            (asked,) = behind.asked
            assert sound in asked.body
            assert b'name="model"\r\n\r\ntiny\r\n' in asked.body
            assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")


async def test_a_form_without_a_boundary_is_a_400() -> None:
    async with over(says(b"")) as (front, _):
        answer = await front.client.post("/v1/audio/transcriptions", content=b"x")
        assert answer.status_code == 400
        is_error(answer.json())
