"""Paths that are passed on as they are: the model's name is mapped, and nothing else is touched."""

from typing import Any

import pytest

from gateway import config
from gateway.api.passthrough import JSON_PATHS
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
        error = is_error(answer.json())
        assert "TGI" in error["message"]
        assert path in error["message"]
        assert behind.asked == []


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


async def test_embeddings_of_a_model_without_them_are_a_400_and_null_fields_are_left_out() -> None:
    async with over(says(whole({"detail": "Not Found"}, "404 Not Found"))) as (front, behind):
        answer = await front.post(BODY | {"encoding_format": None, "dimensions": None}, "/v1/embeddings")
        assert answer.status_code == 400
        assert is_error(answer.json())["param"] == "model"
        assert set(behind.asked[0].json) == set(BODY)


async def test_an_engines_error_is_in_openais_envelope_but_on_anthropics_paths_in_anthropics() -> None:
    theirs = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    async with over(says(whole(theirs, "400 Bad Request"))) as (front, _):
        answer = await front.post(BODY, "/v1/responses")
        assert answer.status_code == 400
        assert is_error(answer.json())["message"] == "no"
        answer = await front.post(BODY, "/v1/messages")
        assert (answer.status_code, answer.json()) == (400, theirs)


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
