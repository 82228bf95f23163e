"""Bad input of a client's: each a clear error in OpenAI's envelope, and the next request is served."""

import asyncio
import json
from typing import Any

import pytest

from gateway import config
from tests.support.errors import is_error
from tests.support.harness import ANSWER, CHAT, TEXT, Gateway, over, says, until, whole

JSON = {"content-type": "application/json"}


def changed(**more: Any) -> dict[str, Any]:
    return CHAT | more


def text(**more: Any) -> dict[str, Any]:
    return TEXT | more


def message(**more: Any) -> dict[str, Any]:
    return CHAT | {"messages": [more]}


TOOLS = [{"type": "function", "function": {"name": "f"}}]

BAD_CHATS = [
    # (body, the field named)
    (changed(messages=[]), "messages"),
    (changed(messages="hi"), "messages"),
    ({"model": "tiny"}, "messages"),
    (message(content="hi"), "messages[0].role"),
    (message(role="user"), "messages[0].content"),
    (message(role="user", content=None), "messages[0].content"),
    (message(role="user", content=5), "messages[0].content"),
    (message(role="user", content=[{"text": "x"}]), "messages[0].content[0].type"),
    (message(role="user", content=[{"type": "text"}]), "messages[0].content"),
    (changed(model=5), "model"),
    (changed(temperature=2.1), "temperature"),
    (changed(temperature=-0.1), "temperature"),
    (changed(temperature="hot"), "temperature"),
    (changed(top_p=1.1), "top_p"),
    (changed(n=0), "n"),
    (changed(n=16_385), "n"),
    (changed(n="two"), "n"),
    (changed(max_tokens=0), "max_tokens"),
    (changed(max_tokens=512.5), "max_tokens"),
    (changed(max_tokens="512.5"), "max_tokens"),
    (changed(max_tokens="1e3"), "max_tokens"),
    (changed(max_tokens=[512]), "max_tokens"),
    (changed(temperature="nan"), "temperature"),
    (changed(max_completion_tokens=-1), "max_completion_tokens"),
    (changed(stop=["a", 1]), "stop[1]"),
    (changed(stop=""), "stop"),
    (changed(stop=["a", ""]), "stop[1]"),
    (changed(seed=1.5), "seed"),
    (changed(seed=2**64), "seed"),
    (changed(frequency_penalty=2.5), "frequency_penalty"),
    (changed(presence_penalty=-2.5), "presence_penalty"),
    (changed(logit_bias=[1]), "logit_bias"),
    (changed(logit_bias={"1": "much"}), "logit_bias[...]"),
    (changed(logprobs=5), "logprobs"),
    (changed(logprobs=True, top_logprobs=-2), "top_logprobs"),
    (changed(top_logprobs=2), "top_logprobs"),
    (changed(stream="maybe"), "stream"),
    (changed(stream_options={"include_usage": True}), "stream_options"),
    (changed(stream=True, stream_options={"include_usage": 2}), "stream_options.include_usage"),
    (changed(response_format={"type": "xml"}), "response_format.type"),
    (changed(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (changed(tool_choice="required"), "tool_choice"),
    (changed(tools=TOOLS, tool_choice="g"), "tool_choice"),
    (changed(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}}), "tool_choice"),
    (changed(tools=[{"type": "function"}]), "tools[0].function"),
    (changed(tools=[{"type": "custom", "function": {"name": "f"}}]), "tools[0].type"),
    (changed(tools=TOOLS, tool_choice={"type": "function"}), "tool_choice.function"),
    (changed(tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}), "tool_choice"),
    (changed(function_call={"name": "f"}), "function_call"),
    (changed(functions=5), "functions"),
    (changed(modalities=["text", "audio"]), "modalities"),
    (changed(audio={"voice": "alloy"}), "audio"),
    (changed(prediction={"type": "content", "content": "x"}), "prediction"),
    (changed(web_search_options={}), "web_search_options"),
    (changed(guided_json={"type": "object"}), "guided_json"),
    (changed(guided_regex="a"), "guided_regex"),
    (changed(logit_bias={"word": 1}), "logit_bias"),
    (changed(max_tokens=5000), "max_tokens"),
    (changed(max_completion_tokens=5000), "max_completion_tokens"),
]
BAD_TEXTS = [
    ({"model": "tiny"}, "prompt"),
    (text(prompt=""), "prompt"),
    (text(prompt=[]), "prompt"),
    (text(prompt=["a", ""]), "prompt"),
    (text(prompt=["a", 1]), "prompt"),
    (text(prompt=[[]]), "prompt"),
    (text(prompt={"a": 1}), "prompt"),
    (text(suffix="x"), "suffix"),
    (text(best_of=2), "best_of"),
    (text(best_of=21), "best_of"),
    (text(logprobs=-2), "logprobs"),
    (text(max_tokens=0), "max_tokens"),
    (text(max_tokens=-1), "max_tokens"),
    (text(max_tokens=5000), "max_tokens"),
    (text(guided_choice=["a"]), "guided_choice"),
]
BAD_BODIES = [
    b"",
    b"{",
    b'{"model": "tiny", "messages": [',
    json.dumps(CHAT).encode() + b"x",
    b"[]",
    b"null",
    b'"hi"',
    b"\xef\xbb\xbf{",
    b'{"model": "\xff", "messages": []}',
    b'{"of_tomorrow": "\xc3(", "messages": [{"role": "user", "content": "x"}]}',
    b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"messages": ' + b"[" * 100_000,
    b'{"temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
]


async def still_serves(front: Gateway) -> None:
    assert (await front.post(CHAT)).status_code == 200


async def test_each_bad_field_is_a_400_that_names_it_and_no_engine_is_asked() -> None:
    async with over(says(whole(ANSWER))) as (front, behind):
        for path, cases in (("/v1/chat/completions", BAD_CHATS), ("/v1/completions", BAD_TEXTS)):
            for body, field in cases:
                answer = await front.post(body, path)
                assert answer.status_code == 400, body
                error = is_error(answer.json())
                assert error["param"] == field, (body, error)
        assert behind.asked == []
        await still_serves(front)


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: repr(body[:24]))
async def test_a_body_that_cannot_be_read_is_a_400(body: bytes) -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            answer = await front.client.post(path, content=body, headers=JSON)
            assert answer.status_code == 400
            is_error(answer.json())
        await still_serves(front)


async def test_an_unknown_model_is_a_404_that_says_which_there_are() -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        for path, body in (
            ("/v1/chat/completions", CHAT),
            ("/v1/completions", TEXT),
            ("/v1/embeddings", {"input": "x"}),
        ):
            answer = await front.post(body | {"model": "gpt-4"}, path)
            assert answer.status_code == 404
            error = is_error(answer.json())
            assert (error["param"], error["code"]) == ("model", "model_not_found")
            assert "tiny" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/v1/nope", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/models/tiny", 405),
        ("POST", "/healthz", 405),
    ],
)
async def test_unknown_paths_and_methods_have_the_envelope_too(method: str, path: str, status: int) -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        answer = await front.client.request(method, path)
        assert answer.status_code == status
        is_error(answer.json())
        assert (status == 405) == ("allow" in answer.headers)


async def test_a_body_over_the_limit_is_a_413_whether_or_not_its_length_is_declared() -> None:
    async def pieces() -> Any:
        for _ in range(40):
            yield b" " * 100

    small = config.ServerConfig(max_body="1KiB")
    async with over(says(whole(ANSWER)), server=small) as (front, _):
        for content in (b" " * 2000, pieces()):
            answer = await front.client.post("/v1/chat/completions", content=content, headers=JSON)
            assert answer.status_code == 413
            is_error(answer.json())
        await still_serves(front)


@pytest.mark.parametrize(
    ("headers", "named"),
    [({"content-type": "text/plain"}, "Content-Type"), (JSON | {"content-encoding": "gzip"}, "Content-Encoding")],
)
async def test_a_body_in_another_form_is_a_415_that_names_the_header(headers: dict[str, str], named: str) -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        answer = await front.client.post("/v1/chat/completions", content=b"{}", headers=headers)
        assert answer.status_code == 415
        assert named in is_error(answer.json())["message"]


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody() -> None:
    async with over(says(whole(ANSWER))) as (front, behind):
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            await writer.drain()
            await until(lambda: front.services.sweep.open)
            writer.close()
            await until(lambda: not front.services.sweep.open)
        await still_serves(front)
        assert len(behind.asked) == 1
