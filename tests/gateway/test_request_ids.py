"""A sane X-Request-Id of the client's is taken over; what must be unique is made of the gateway's own."""

import asyncio
import io
import json
from typing import Any

import pytest

from gateway.config import CacheConfig
from gateway.observe.logs import RequestLog
from tests.support.harness import ANSWER, CHAT, STREAM, TEXT, events, over, says, streamed, until, whole

OURS = 32  # hex digits

SANE = [
    "a",
    "a1b2-my-trace",
    "5f2504e0-4f89-41d3-9a0c-0305e82c3301",
    "01HZY3V2K8Q4M7N9P0R1S2T3U4",
    "Root=1-67891233-abcdef012345678912345678",
    "req_011CSHoEeqs5C35K2UUqR7Fy",
    "team:job/7@host.example+1~x",
    "dGhpcyBpcyBiYXNlNjQ==",
    "x" * 128,
]
INSANE: list[bytes] = [
    b"",
    b"x" * 129,
    b"a b",
    b"a\tb",
    b"a,b",
    b'a"b',
    b"a'b",
    b"a\\b",
    b"a;b",
    b"<script>",
    b"{{7*7}}",
    b"$(id)",
    b"a%0d%0ab",
    "für".encode(),
    b"caf\xe9",
]


@pytest.mark.parametrize("given", SANE)
async def test_a_sane_one_is_taken_over_by_the_answer_the_log_and_the_engine(given: str) -> None:
    async with over(says(whole(ANSWER))) as (front, behind):
        out = io.BytesIO()
        front.services.records.log = RequestLog(out)
        answer = await front.post(CHAT, x_request_id=given)
        await until(lambda: not front.services.sweep.open)
        front.services.records.flush()
        assert answer.headers["x-request-id"] == given
        assert behind.asked[0].headers["x-request-id"] == given
        assert json.loads(out.getvalue())["request_id"] == given


@pytest.mark.parametrize("given", INSANE)
async def test_any_other_is_as_good_as_none(given: bytes) -> None:
    async with over(says(whole(ANSWER))) as (front, behind):
        sent = {b"x-request-id": given, b"content-type": b"application/json"}
        answer = await front.client.post("/v1/chat/completions", content=json.dumps(CHAT), headers=sent)
        own = answer.headers["x-request-id"]
        assert len(own) == OURS
        assert int(own, 16) > 0
        assert behind.asked[0].headers["x-request-id"] == own


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
        ("POST", "/v1/chat/completions", {"model": "none", "messages": []}),
        ("POST", "/v1/completions", TEXT),
        ("POST", "/v1/embeddings", {"model": "tiny", "input": "x"}),
        ("POST", "/generate", {"inputs": "x"}),
        ("POST", "/generate", {}),
        ("GET", "/v1/models", None),
        ("HEAD", "/v1/models/tiny", None),
        ("GET", "/info", None),
        ("GET", "/healthz", None),
        ("DELETE", "/v1/models", None),
        ("GET", "/", None),
        ("GET", "/nothing", None),
        ("PUT", "/v1/responses/x", None),
    ],
)
async def test_each_answer_has_it_errors_too(method: str, path: str, body: Any) -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        answer = await front.client.request(method, path, json=body, headers={"x-request-id": "a1b2-my-trace"})
        assert answer.headers["x-request-id"] == "a1b2-my-trace"


async def test_a_path_that_is_not_there_has_one_of_our_own() -> None:
    async with over(says(whole(ANSWER))) as (front, _):
        ids = {(await front.client.get("/nothing")).headers["x-request-id"] for _ in range(2)}
        assert [len(one) for one in ids] == [OURS, OURS]


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_ids_are_unique_though_a_client_repeats_its_own(stream: bool) -> None:
    script = says(streamed(*STREAM) if stream else whole(ANSWER))
    for store in ("off", "memory"):
        async with over(script, cache=CacheConfig(store=store)) as (front, _):
            asked = [front.post(CHAT | {"stream": stream}, x_request_id="same") for _ in range(3)]
            answers = [*await asyncio.gather(*asked), await front.post(CHAT | {"stream": stream}, x_request_id="same")]
        ids = {events(one.content)[0]["id"] if stream else one.json()["id"] for one in answers}
        assert len(ids) == 4
        assert all(len(one) == len("chatcmpl-") + OURS for one in ids)
