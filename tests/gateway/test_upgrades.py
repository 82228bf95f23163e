"""A request that offers an upgrade is answered as HTTP/1.1, as if it offered none (RFC 9110, 7.8)."""

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import pytest

from tests.support.harness import ANSWER, CHAT, Asked, over, settled, streamed, whole
from tests.support.harness import STREAM as EVENTS
from tests.support.raw_client import Client, connected

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455's
OFFERS = {
    "none": "",
    "jdk": "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    "Upgrade: h2c\r\n",
    "curl": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "websocket": "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: realtime\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    "Origin: http://x\r\n",
    "tls": "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    "several": "upgrade: h2c, IRC/6.9\r\nconnection: upgrade\r\nupgrade: RTA/x11\r\n",
    "two connection lines": "Connection: upgrade\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n",
    "no connection line": "Upgrade: h2c\r\n",
    "large": f"Upgrade: {'x' * 3000}/1\r\nConnection: Upgrade\r\n",
}
BODY = json.dumps(CHAT).encode()
LONG = json.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 300_000}]}).encode()  # many segments
EMPTY = json.dumps({"model": "tiny"}).encode()


def head(offer: str, framing: str, method: str = "POST", path: str = "/v1/chat/completions") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{offer}{framing}\r\n".encode()


def sized(offer: str, body: bytes) -> list[bytes]:
    return [head(offer, f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n") + body]


def apart(offer: str, body: bytes) -> list[bytes]:
    return [head(offer, f"Content-Length: {len(body)}\r\n"), body]


def in_pieces(offer: str, body: bytes) -> list[bytes]:
    """Cut in the midst of the first line, of the offer, of the head's end, and of the body."""
    (whole,) = sized(offer, body)
    end = whole.index(b"\r\n\r\n")
    cuts = [0, 3, 40, whole.find(b"Upgrade") + 5, end - 1, end + 2, end + 9, len(whole)]
    return [whole[start:stop] for start, stop in pairwise(sorted(cuts))]


def chunked(offer: str, body: bytes) -> list[bytes]:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:]) if part)
    return [head(offer, "Transfer-Encoding: chunked\r\n") + chunks + b"0\r\n\r\n"]


def chunks_apart(offer: str, body: bytes) -> list[bytes]:
    parts = [b"%x\r\n" % len(body), body[:10], body[10:] + b"\r\n", b"0\r\n", b"\r\n"]
    return [head(offer, "Transfer-Encoding: chunked\r\n"), *parts]


Way = Callable[[str, bytes], Sequence[bytes]]
WAYS: list[tuple[str, Way]] = [
    *product(OFFERS, [sized, chunked]),
    *product(["jdk", "websocket"], [apart, in_pieces, chunks_apart]),
]


async def answers(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(streamed(*EVENTS) if asked.json.get("stream") else whole(ANSWER))
    await writer.drain()


async def send(client: Client, pieces: Sequence[bytes]) -> None:
    """Send each piece in a segment of its own, when the one before has been taken."""
    for number, piece in enumerate(pieces):
        if number:
            await settled()
        client.write(piece)


async def text(client: Client) -> Any:
    """Read a whole answer, which has to be a good one; return what the model said."""
    answer = await client.answer()
    assert answer.status == 200, answer
    return json.loads(answer.body)["choices"][0]["message"]["content"]


@pytest.mark.parametrize(("offer", "way"), WAYS, ids=lambda value: value if isinstance(value, str) else value.__name__)
async def test_its_body_arrives_however_it_comes_and_so_do_the_next_requests(offer: str, way: Way) -> None:
    async with over(answers) as (front, behind), connected(front.port) as client:
        for _ in range(2):
            await send(client, way(OFFERS[offer], BODY))
            assert await text(client) == "Grüße dir"
        await send(client, way("", BODY))
        assert await text(client) == "Grüße dir"
        assert [asked.json["messages"] for asked in behind.asked] == [CHAT["messages"]] * 3


@pytest.mark.parametrize("way", [sized, chunked])
async def test_a_stream_is_answered_to_it(way: Way) -> None:
    async with over(answers) as (front, _), connected(front.port) as client:
        await send(client, way(OFFERS["jdk"], json.dumps(CHAT | {"stream": True}).encode()))
        answer = await client.answer()
        assert answer.finished
        assert "upgrade" not in answer.headers


async def test_a_body_of_many_segments_arrives_whole() -> None:
    async with over(answers) as (front, behind), connected(front.port) as client:
        for way in (sized, chunked):
            await send(client, way(OFFERS["jdk"], LONG))
            assert await text(client) == "Grüße dir"
        assert [len(asked.json["messages"][0]["content"]) for asked in behind.asked] == [300_000] * 2


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (head(OFFERS["websocket"], "", "GET", "/v1/models"), 200),
        (head(OFFERS["jdk"], "", "GET", "/healthz"), 200),
        (head(OFFERS["jdk"], "Content-Length: 0\r\n", "POST"), 400),
        (head(OFFERS["jdk"], "Transfer-Encoding: chunked\r\n", "POST") + b"0\r\n\r\n", 400),
        (head(OFFERS["websocket"], "", "GET", "/v1/realtime?model=tiny"), 404),
        (head(OFFERS["jdk"], "Content-Length: 2\r\n", "DELETE") + b"{}", 405),
    ],
    ids=["websocket", "GET", "empty", "no chunks", "no such path", "DELETE"],
)
async def test_without_a_body_and_refused_it_leaves_the_connection_good(asked: bytes, status: int) -> None:
    async with over(answers) as (front, _), connected(front.port) as client:
        for _ in range(2):
            client.write(asked)
            assert (await client.answer()).status == status
        client.write(sized("", BODY)[0])
        assert await text(client) == "Grüße dir"


async def test_pipelined_ones_are_all_answered_in_their_order() -> None:
    offers = list(OFFERS.values())
    bodies = [json.dumps(CHAT | {"stream": bool(number % 2)}).encode() for number in range(len(offers))]
    ways = [sized, chunked]
    requests = [ways[number % 3 % 2](offer, bodies[number])[0] for number, offer in enumerate(offers)]
    async with over(answers) as (front, _), connected(front.port) as client:
        client.write(b"".join(requests))
        for number in range(len(offers)):
            if number % 2:
                assert (await client.answer()).finished
            else:
                assert await text(client) == "Grüße dir"


async def test_thousands_in_one_segment_are_no_deeper_than_one() -> None:
    one = b"HEAD /healthz HTTP/1.1\r\nUpgrade: a\r\nConnection: Upgrade\r\n\r\n"
    async with over(answers) as (front, _), connected(front.port) as client:
        client.write(one * 3000 + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await client.rest()).count(b"HTTP/1.1 200 OK") == 3001


async def test_its_other_headers_arrive() -> None:
    async with over(answers) as (front, behind), connected(front.port) as client:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        client.write(sized(OFFERS["jdk"] + f"traceparent: {parent}\r\nX-Empty:\r\n", BODY)[0])
        assert await text(client) == "Grüße dir"
        assert behind.asked[0].headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_wants_the_connection_closed_has_it_closed(version: str) -> None:
    async with over(answers) as (front, _), connected(front.port) as client:
        offer = OFFERS["jdk"].replace("Connection: ", "Connection: close, ")
        client.write(sized(offer, BODY)[0].replace(b"HTTP/1.1", f"HTTP/{version}".encode()))
        assert await text(client) == "Grüße dir"
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "broken",
    [
        head(OFFERS["jdk"], "Transfer-Encoding: chunked\r\n") + b"zz\r\n",
        head(OFFERS["jdk"], "Content-Length: 3\r\n").replace(b"HTTP2-Settings: ", b"bad header: "),
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\nanything",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n" + OFFERS["tls"].encode() + b"\r\nanything",
    ],
    ids=["chunks", "headers", "CONNECT", "CONNECT with an offer"],
)
async def test_what_is_no_http_is_a_400_and_the_connection_ends(broken: bytes) -> None:
    async with over(answers) as (front, _), connected(front.port) as client:
        client.write(broken)
        assert (await client.answer()).status == 400
        assert await client.rest() == b""
