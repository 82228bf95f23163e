"""Who asks: the key of a request, what it is good for, and that no engine ever sees it."""

import asyncio
from typing import Any

import pytest

from gateway.access.auth import allow, authenticate, require_admin
from gateway.access.keys.text import digest
from gateway.access.principal import ANYBODY, Principal
from gateway.http.cancel import CancelScope
from gateway.http.context import RequestContext, Timing
from gateway.http.errors import Forbidden, Unauthorized
from tests.support.harness import ANSWER, CHAT, over, says, whole
from tests.support.keys import GOOD, NOW, PLAIN, SECRET, at, changed, ring

REVOKED = GOOD.replace("abcd2345", "efgh2345")
GONE = changed(id="efgh2345", name="bob", hash=f"sha256:{digest(REVOKED).hex()}", revoked=at(NOW - 1))
READ = r"Authorization: Bearer YOUR_KEY\), x-api-key and api-key"


def asking(headers: dict[bytes, bytes]) -> RequestContext:
    task = asyncio.current_task()
    assert task is not None
    return RequestContext(
        id="x", method="GET", path="/", raw_path=b"/", headers=headers, timing=Timing(0.0), scope=CancelScope(task)
    )


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer " + GOOD.encode()},
        {b"authorization": b"bEARER   " + GOOD.encode() + b" "},
        {b"x-api-key": GOOD.encode()},
        {b"authorization": b"Basic eDp5", b"x-api-key": GOOD.encode()},
        {b"api-key": GOOD.encode()},
        {b"authorization": b"Bearer " + GOOD.encode(), b"x-api-key": b"of somebody else"},
        {b"authorization": b"Bearer unused", b"x-api-key": GOOD.encode()},
        {b"authorization": b"Bearer unused", b"api-key": GOOD.encode()},
        {b"x-api-key": b"of somebody else", b"api-key": b" " + GOOD.encode() + b" "},
        {b"authorization": b"Bearer \xff", b"x-api-key": b"", b"api-key": GOOD.encode()},
        {b"authorization": b"Bearer " + REVOKED.encode(), b"api-key": GOOD.encode()},
    ],
)
async def test_one_good_key_is_enough_sent_as_openais_anthropics_or_azures_clients_do(
    headers: dict[bytes, bytes],
) -> None:
    assert authenticate(asking(headers), ring(PLAIN, GONE), NOW).id == PLAIN.id


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer  "},
        {b"authorization": b"Basic eDp5"},
        {b"authorization": GOOD.encode()},
        {b"x-api-key": b" "},
        {b"api-key": b""},
        {b"authorization": b"Bearer ", b"x-api-key": b" ", b"api-key": b" "},
    ],
)
async def test_a_request_without_a_key_is_told_how_to_send_one(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Unauthorized, match=f"You didn't provide an API key.*{READ}") as refused:
        authenticate(asking(headers), ring(PLAIN), NOW)
    assert refused.value.headers == {"www-authenticate": "Bearer"}


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({b"authorization": b"Bearer sk-other"}, r"Incorrect API key provided: \*\*\*\*"),
        ({b"x-api-key": b"sk-other", b"api-key": b"sk-another"}, "Incorrect API key provided"),
        ({b"authorization": b"Bearer " + REVOKED.encode(), b"x-api-key": b"sk-other"}, "was revoked at"),
    ],
)
async def test_without_a_good_key_the_first_one_is_judged_and_the_headers_are_named(
    headers: dict[bytes, bytes], said: str
) -> None:
    with pytest.raises(Unauthorized, match=f"{said}.*{READ}") as refused:
        authenticate(asking(headers), ring(PLAIN, GONE), NOW)
    assert refused.value.headers == {"www-authenticate": 'Bearer error="invalid_token"'}


async def test_bytes_that_are_no_text_are_a_wrong_key() -> None:
    with pytest.raises(Unauthorized, match="Incorrect"):
        authenticate(asking({b"authorization": b"Bearer \xff\xfe"}), ring(PLAIN), NOW)


async def test_without_keys_everybody_is_anybody() -> None:
    assert authenticate(asking({b"authorization": b"Bearer x"}), None, NOW) is ANYBODY


@pytest.mark.parametrize(
    ("models", "asked", "good"),
    [
        ((), "anything", True),
        (("llama",), "llama", True),
        (("llama",), "llama-2", False),
        (("a", "llama-*"), "llama-2", True),
        (("llama-*",), "Llama-2", False),
    ],
)
def test_a_key_is_good_for_its_models_alone(models: tuple[str, ...], asked: str, good: bool) -> None:
    principal = Principal(models=models)
    if good:
        allow(principal, asked)
        return
    with pytest.raises(Forbidden, match=asked) as refused:
        allow(principal, asked)
    assert refused.value.param == "model"


def test_administration_needs_a_key_made_for_it() -> None:
    require_admin(Principal(admin=True))
    for principal in (ANYBODY, Principal(id="abcd2345")):
        with pytest.raises(Forbidden, match="administrator"):
            require_admin(principal)


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("vllm", "/v1/chat/completions", CHAT),
        ("tgi", "/v1/chat/completions", CHAT),
        ("vllm", "/v1/responses", CHAT),
        ("vllm", "/generate", {"inputs": "hi"}),
        ("tgi", "/generate", {"inputs": "hi"}),
    ],
)
async def test_the_clients_key_never_reaches_an_engine(kind: str, path: str, body: dict[str, Any]) -> None:
    async with over(says(whole(ANSWER)), kind) as (front, behind):
        await front.post(body, path, authorization=f"Bearer {GOOD}", x_api_key=GOOD, api_key=GOOD)
        assert behind.asked
        for asked in behind.asked:
            assert SECRET not in f"{asked.path} {asked.headers} {asked.body!r}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/messages"),
        ("GET", "/v1/models"),
        ("HEAD", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("HEAD", "/v1/models/tiny"),
        ("GET", "/info"),
        ("POST", "/generate"),
        ("POST", "/generate_stream"),
        ("POST", "/"),
    ],
)
async def test_each_path_takes_the_same_headers(method: str, path: str) -> None:
    """What the request comes to is not looked at, but for whether it was let in."""
    bad, good = "Bearer unused", GOOD
    async with over(says(whole(ANSWER))) as (front, _):
        front.services.keyring = ring(PLAIN)
        for headers in ({"api-key": good}, {"x-api-key": good}, {"authorization": bad, "x-api-key": good}):
            assert (await front.client.request(method, path, json=CHAT, headers=headers)).status_code != 401
        for headers in ({}, {"authorization": bad}, {"authorization": bad, "x-api-key": "x", "api-key": "y"}):
            assert (await front.client.request(method, path, json=CHAT, headers=headers)).status_code == 401
