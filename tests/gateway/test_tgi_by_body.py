"""`/invocations`, `/tokenize` and `/chat_tokenize`: TGI's words and OpenAI's on one path, answered by either engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import config
from tests.support.errors import is_error
from tests.support.harness import ANSWER, MODEL, both, checked, engine, events, gateway, over, says, whole
from tests.support.simulators import started

KINDS = ("vllm", "tgi")
HI = [{"role": "user", "content": "def main"}]
CHAT = {"model": MODEL, "messages": HI, "max_tokens": 4, "temperature": 0}
TEXT = {"model": MODEL, "prompt": "def main", "max_tokens": 4, "temperature": 0}
NATIVE = {"inputs": "def main", "parameters": {"max_new_tokens": 4}}
DEF_MAIN = [("def", 0, 3), (" main", 3, 8)]
TEMPLATED = "<|im_start|>user\ndef main<|im_end|>\n<|im_start|>assistant\n"


def head(body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without what is each answer's own."""
    return {name: value for name, value in body.items() if name not in ("id", "created")}


@pytest.mark.parametrize("kind", KINDS)
async def test_invocations_answers_each_body_as_its_own_path_does(kind: str) -> None:
    async with started(kind) as front:
        for body, path in ((CHAT, "/v1/chat/completions"), (TEXT, "/v1/completions")):
            own, invoked = await front.post(body, path), await front.post(body, "/invocations")
            assert own.status_code == invoked.status_code == 200
            assert head(invoked.json()) == head(own.json())
            assert invoked.headers["x-pointsman-engine"] == kind
        own, invoked = await front.post(NATIVE, "/"), await front.post(NATIVE, "/invocations")
        assert own.status_code == invoked.status_code == 200
        assert invoked.json() == own.json()
        assert invoked.json()[0]["generated_text"].startswith("def main")
        assert invoked.headers["x-prompt-tokens"] == "2"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("body", "path"),
    [(CHAT, "/v1/chat/completions"), (TEXT, "/v1/completions"), (NATIVE, "/")],
    ids=["chat", "text", "tgi"],
)
async def test_so_are_streams(kind: str, body: dict[str, Any], path: str) -> None:
    async with started(kind) as front:
        streams = [events((await front.post(body | {"stream": True}, one)).content) for one in (path, "/invocations")]
        own, invoked = ([head(event) if isinstance(event, dict) else event for event in one] for one in streams)
        assert len(own) > 2
        assert invoked == own


REFUSED: list[tuple[str, bytes, int, str | None]] = [
    # (path, body, status, what the OpenAI error names; None: the error is TGI's)
    ("/invocations", json.dumps(CHAT | {"temperature": 3}).encode(), 400, "temperature"),
    ("/invocations", json.dumps(TEXT | {"n": 0}).encode(), 400, "n"),
    ("/invocations", json.dumps(NATIVE | {"inputs": ""}).encode(), 422, None),
    ("/invocations", b'{"inputs": 5}', 422, None),
    ("/invocations", b"{}", 422, None),
    ("/invocations", b"{", 400, None),
    ("/invocations", b"[]", 422, None),
    ("/tokenize", b'{"inputs": 5}', 422, None),
    ("/tokenize", b"{", 400, ""),
    ("/chat_tokenize", b'{"messages": []}', 422, None),
    ("/chat_tokenize", b"{", 422, None),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), REFUSED)
async def test_a_bad_body_is_told_of_in_the_words_that_it_speaks(
    path: str, body: bytes, status: int, param: str | None
) -> None:
    async with over(says(whole(ANSWER))) as (front, behind):
        answer = await front.client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        if param is not None:
            assert is_error(answer.json())["param"] == (param or None)
        elif answer.headers["content-type"] == "application/json":
            assert answer.json().keys() == {"error", "error_type"}
        else:
            assert answer.text.startswith("Failed to ")
        assert behind.asked == []


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/chat_tokenize"])
async def test_only_post_is_taken(path: str) -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        answer = await front.client.get(path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"


def places(tokens: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(token["text"], token["start"], token["stop"]) for token in tokens]


@pytest.mark.parametrize("kind", KINDS)
async def test_tgis_body_on_tokenize_gets_tgis_answer(kind: str) -> None:
    async with started(kind) as front:
        answer = await front.post({"inputs": "def main"}, "/tokenize")
        assert answer.status_code == 200
        assert places(answer.json()) == DEF_MAIN
        assert [type(token["id"]) for token in answer.json()] == [int, int]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [{}, {"model": "tgi"}, {"model": MODEL}, {"model": None}])
async def test_a_chat_is_tokenized_and_told_as_text(kind: str, model: dict[str, Any]) -> None:
    async with started(kind) as front:
        answer = await front.post({"messages": HI} | model, "/chat_tokenize")
        assert answer.status_code == 200
        said = answer.json()
        assert said["templated_text"] == TEMPLATED
        assert "".join(text for text, _, _ in places(said["tokenize_response"])) == TEMPLATED
        assert [stop for _, _, stop in places(said["tokenize_response"])][-1] == len(TEMPLATED)


@pytest.mark.parametrize("kind", KINDS)
async def test_of_an_assistants_last_message_the_beginning_is_tokenized(kind: str) -> None:
    """As TGI does it, which always continues it."""
    async with started(kind) as front:
        body = {"messages": [*HI, {"role": "assistant", "content": "a"}]}
        text = (await front.post(body, "/chat_tokenize")).json()["templated_text"]
        assert text == TEMPLATED + "a"


async def test_both_engines_say_the_same() -> None:
    said = []
    for kind in KINDS:
        async with started(kind) as front:
            answers = [
                await front.post({"inputs": "Grüße 🚂, hello world"}, "/tokenize"),
                await front.post({"messages": HI}, "/chat_tokenize"),
            ]
            said.append([answer.json() for answer in answers])
    (vllm, vllms_chat), (tgi, tgis_chat) = said
    assert [(token["id"], token["text"]) for token in vllm] == [(token["id"], token["text"]) for token in tgi]
    assert vllms_chat == tgis_chat


async def test_vllms_body_on_tokenize_is_passed_on() -> None:
    counted = {"count": 2, "max_model_len": 1024, "tokens": [316, 2701], "token_strs": None}
    async with over(says(whole(counted))) as (front, behind):
        for body in ({"prompt": "def main"}, {"messages": HI}, {"prompt": "def main", "inputs": "x"}):
            answer = await front.post({"model": MODEL} | body, "/tokenize")
            assert answer.json() == counted
            assert behind.asked[-1].json == {"model": MODEL} | body
    async with over(says(b""), "tgi") as (front, _):
        answer = await front.post({"model": MODEL, "prompt": "def main"}, "/tokenize")
        assert answer.status_code == 400
        assert "TGI" in is_error(answer.json())["message"]


async def test_a_tgi_judges_what_the_translation_refuses() -> None:
    """Its words go to the client as they come."""
    words = {"error": "Template error: no", "error_type": "template_error"}
    async with both(says(b""), says(whole(words, "422 Unprocessable Entity"))) as (front, tgi):
        answer = await front.post({"messages": []}, "/chat_tokenize")
        assert (answer.status_code, answer.json()) == (422, words)
        assert [asked.path for asked in tgi.asked] == ["/chat_tokenize"]


@pytest.mark.parametrize("path", ["/tokenize", "/chat_tokenize", "/invocations"])
async def test_a_pin_is_obeyed(path: str) -> None:
    async with both(says(whole({"error": "x"}, "500 No")), says(whole([]))) as (front, _):
        body = {"messages": HI} if path == "/chat_tokenize" else NATIVE
        answer = await front.post(body, path, x_pointsman_engine="tgi")
        assert answer.status_code == 200
        assert answer.headers["x-pointsman-engine"] == "tgi"
        assert (await front.post(body, path, x_pointsman_engine="nope")).status_code == 422


async def test_an_engine_that_knows_neither_is_named() -> None:
    async with engine(says(whole(ANSWER))) as behind:
        given = checked(config.Config(models=config.from_urls({"openai": [behind.url]}, MODEL, {})))
        async with gateway(given) as front:
            answer = await front.post({"inputs": "a"}, "/tokenize")
            assert answer.status_code == 422
            assert "has no way to answer here" in answer.json()["error"]
