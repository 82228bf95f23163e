"""A client's connection: requests are read however they are cut, and answers are written as HTTP/1.1 (RFC 9112)."""

import asyncio
import logging
from typing import Any

import pytest

from gateway.server.client_connection import MAX_BUFFERED, MAX_HEAD, MAX_HEADERS
from tests.support.client_side import connect, turns
from tests.support.harness import until

OK = (200, [(b"content-length", b"2")])
GET = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n"


class Asked:
    """An application that notes each request, and answers it by its body's length."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message["more_body"]
        self.seen.append((scope, body))
        said = b"%d" % len(body)
        await start(send, 200, [(b"content-length", b"%d" % len(said))])
        await send({"type": "http.response.body", "body": said})


async def start(send: Any, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


def answering(status: int, headers: list[tuple[bytes, bytes]], *parts: bytes) -> Any:
    """Return an application that answers in parts; the last one ends the answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, status, headers)
        for number, part in enumerate(parts, 1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    return app


REQUESTS = {
    "no body": (GET, "GET", "/a", b"/a", b"", b""),
    "a length": (POST + b"body", "POST", "/a", b"/a", b"", b"body"),
    "chunks": (
        b"POST /a?b=%20c&d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        *("POST", "/a", b"/a", b"b=%20c&d", b"abcde"),
    ),
    "escapes": (b"GET /a%2Fb%C3%A9 HTTP/1.1\r\nhost: x\r\n\r\n", "GET", "/a/bé", b"/a%2Fb%C3%A9", b"", b""),
    "a whole URL": (b"GET http://x/a?b HTTP/1.1\r\nhost: x\r\n\r\n", "GET", "/a", b"/a", b"b", b""),
    "an offer": (
        b"POST /a HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nab",
        *("POST", "/a", b"/a", b"", b"ab"),
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_is_the_same_however_it_is_cut(name: str) -> None:
    data, *expected = REQUESTS[name]
    cuts = [[data], [data[i : i + 1] for i in range(len(data))], *([data[:i], data[i:]] for i in range(1, len(data)))]
    for pieces in cuts:
        asked = Asked()
        connection, transport = connect(asked)
        for piece in pieces:
            connection.data_received(piece)
        await turns()
        ((scope, body),) = asked.seen
        assert [scope["method"], scope["path"], scope["raw_path"], scope["query_string"], body] == expected
        assert (scope["server"], scope["client"]) == (("127.0.0.1", 80), ("127.0.0.2", 4000))
        assert transport.written.endswith(b"\r\n\r\n%d" % len(body))
        assert not transport.closed


async def test_headers_are_as_they_came_with_names_in_lower_case_and_trailers_are_none() -> None:
    asked = Asked()
    connection, _ = connect(asked)
    head = b"POST / HTTP/1.1\r\nX-A:  1 \r\nx-a: 2\r\nTRANSFER-ENCODING: chunked\r\n\r\n"
    connection.data_received(head + b"1\r\na\r\n0\r\nx-trailer: 3\r\n\r\n")
    await turns()
    ((scope, _),) = asked.seen
    assert scope["headers"] == [(b"x-a", b"1"), (b"x-a", b"2"), (b"transfer-encoding", b"chunked")]


HEAD = b"HTTP/1.1 200 OK\r\ndate: today\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
LENGTH = [(b"content-length", b"2")]


@pytest.mark.parametrize(
    ("request_", "app", "writes", "closed"),
    [
        (GET, answering(200, LENGTH, b"ab"), [HEAD + b"content-length: 2\r\n\r\nab"], False),
        (GET, answering(200, LENGTH, b"a", b"b"), [HEAD + b"content-length: 2\r\n\r\na", b"b"], False),
        (GET, answering(200, [], b"ab"), [CHUNKED + b"2\r\nab\r\n0\r\n\r\n"], False),
        (GET, answering(200, [], b"a", b"b"), [CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n"], False),
        (GET, answering(200, [], b"a", b"", b""), [CHUNKED + b"1\r\na\r\n", b"0\r\n\r\n"], False),
        (GET, answering(204, [], b""), [b"HTTP/1.1 204 No Content\r\ndate: today\r\n\r\n"], False),
        (GET, answering(299, LENGTH, b"ab"), [b"HTTP/1.1 299 \r\ndate: today\r\ncontent-length: 2\r\n\r\nab"], False),
        (GET.replace(b"GET", b"HEAD"), answering(200, LENGTH, b"ab"), [HEAD + b"content-length: 2\r\n\r\n"], False),
        (GET.replace(b"GET", b"HEAD"), answering(200, [], b"ab"), [HEAD + b"\r\n"], False),
        (
            GET.replace(b"1.1", b"1.0"),
            answering(200, [], b"a", b"b"),
            [HEAD + b"connection: close\r\n\r\na", b"b"],
            True,
        ),
        (
            GET.replace(b"host: x", b"connection: close"),
            answering(200, LENGTH, b"ab"),
            [HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nab"],
            True,
        ),
        (
            GET,
            answering(200, [(b"connection", b"close"), *LENGTH], b"ab"),
            [HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nab"],
            True,
        ),
    ],
)
async def test_an_answer_as_it_is_written(request_: bytes, app: Any, writes: list[bytes], closed: bool) -> None:
    """The head goes out with the beginning of the body; a client of HTTP/1.0 reads up to the connection's end."""
    connection, transport = connect(app)
    connection.data_received(request_)
    await turns()
    assert transport.writes == writes
    assert transport.closed is closed


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("x")


async def says_nothing(scope: Any, receive: Any, send: Any) -> None:
    return


@pytest.mark.parametrize(
    ("app", "begins"),
    [
        (fails, b"HTTP/1.1 500 "),
        (says_nothing, b"HTTP/1.1 500 "),
        (answering(200, [(b"x-a", b"1\r\nx-b: 2")], b"ab"), b"HTTP/1.1 500 "),
        (answering(200, [(b"x-a", b"1\nx-b: 2")], b"ab"), b"HTTP/1.1 500 "),
        (answering(200, [(b"x-a", b"1\0")], b"ab"), b"HTTP/1.1 500 "),
        (answering(200, LENGTH, b"abc"), b"HTTP/1.1 500 "),
        (answering(200, LENGTH, b"a", b""), HEAD + b"content-length: 2\r\n\r\na"),
    ],
    ids=["raises", "says nothing", "CRLF", "LF", "NUL", "too long", "too short"],
)
async def test_an_application_that_fails_ends_the_connection(
    app: Any, begins: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL, "pointsman"):
        connection, transport = connect(app)
        connection.data_received(GET)
        await turns()
    assert transport.written.startswith(begins)
    assert b"x-b" not in transport.written
    assert transport.closed


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nx: %b\r\n\r\n" % (b"a" * MAX_HEAD), 431),
        (b"GET /%b HTTP/1.1\r\n\r\n" % (b"a" * MAX_HEAD), 431),
        (b"GET / HTTP/1.1\r\n" + b"x: 1\r\n" * (MAX_HEADERS + 1) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nx: %b" % (b"a" * 2 * MAX_HEAD), 431),  # whose end never comes
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: 1\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx : 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nx: 1\n\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
    ],
)
async def test_what_is_no_request_is_told_so_and_never_answered(data: bytes, status: int) -> None:
    asked = Asked()
    for size in (len(data), 1000):
        connection, transport = connect(asked)
        for start_ in range(0, len(data), size):
            connection.data_received(data[start_ : start_ + size])
        await turns()
        assert transport.written.startswith(b"HTTP/1.1 %d " % status)
        assert b'"type":"invalid_request_error"' in transport.written
        assert transport.closed
    assert asked.seen == []


async def test_a_line_in_a_body_that_comes_to_no_end_is_told_so() -> None:
    asked = Asked()
    connection, transport = connect(asked)
    connection.data_received(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;")
    for _ in range(MAX_HEAD // 1000 + 1):
        connection.data_received(b"a" * 1000)
    await turns()
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    assert (transport.closed, asked.seen) == (True, [])


async def test_a_request_whose_body_breaks_off_is_told_so_in_the_place_of_an_answer() -> None:
    asked = Asked()
    connection, transport = connect(asked)
    connection.data_received(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    await turns()
    connection.data_received(b"zz\r\n")
    await turns()
    assert transport.written.startswith(b"HTTP/1.1 400 ")
    assert (transport.closed, asked.seen) == (True, [])


async def test_behind_an_early_answer_nothing_more_is_said_of_a_broken_body() -> None:
    connection, transport = connect(answering(413, LENGTH, b"no"))
    connection.data_received(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    await turns()
    connection.data_received(b"zz\r\n")
    assert transport.written.count(b"HTTP/1.1") == 1
    assert transport.closed


async def test_answers_are_in_the_order_of_their_requests_and_reading_pauses_meanwhile() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        await gates[number].wait()
        await start(send, 200, [(b"content-length", b"1")])
        await send({"type": "http.response.body", "body": b"%d" % number})

    connection, transport = connect(app)
    connection.data_received(b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(3)))
    gates[1].set()
    await turns()
    assert (transport.writes, transport.paused) == ([], True)
    gates[0].set()
    await turns(10)
    assert [write[-1:] for write in transport.writes] == [b"0", b"1"]
    gates[2].set()
    await turns()
    assert [write[-1:] for write in transport.writes] == [b"0", b"1", b"2"]
    assert not transport.paused


@pytest.mark.parametrize(
    "then", [b"no request\r\n\r\n", b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
)
async def test_a_request_before_what_is_none_is_answered(then: bytes) -> None:
    asked = Asked()
    connection, transport = connect(asked)
    connection.data_received(POST + b"body" + then)
    await turns()
    assert transport.written.startswith(b"HTTP/1.1 200 OK")
    assert transport.written.count(b"HTTP/1.1") == 1
    assert b"connection: close" in transport.written
    assert transport.closed


async def test_a_client_that_leaves_is_noticed_once() -> None:
    told: list[str] = []
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        (client,) = scope["extensions"].values()
        client.on_left = lambda: told.append("left")
        got.extend([await receive(), await receive()])
        await start(send, *OK)  # to nobody

    connection, transport = connect(app)
    connection.data_received(POST + b"body")
    await turns()
    connection.connection_lost(None)
    connection.connection_lost(None)
    await turns()
    assert told == ["left"]
    assert [message["type"] for message in got] == ["http.request", "http.disconnect"]
    assert transport.writes == []


async def test_a_body_that_nobody_takes_is_not_read_on() -> None:
    take = asyncio.Event()
    sizes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            await take.wait()
            message = await receive()
            sizes.append(len(message["body"]))
            more = message["more_body"]
        await start(send, *OK)
        await send({"type": "http.response.body", "body": b"ok"})

    connection, transport = connect(app)
    connection.data_received(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (MAX_BUFFERED + 2))
    connection.data_received(b"a" * (MAX_BUFFERED + 1))
    assert transport.paused
    take.set()
    await turns()
    assert not transport.paused
    connection.data_received(b"a")
    await turns()
    assert sizes == [MAX_BUFFERED + 1, 1]
    assert transport.written.endswith(b"ok")


async def test_a_client_that_does_not_read_is_waited_for_and_may_leave() -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send, 200, [])
        for number in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            sent.append(number)

    connection, transport = connect(app)
    connection.pause_writing()
    connection.data_received(GET)
    await turns()
    assert transport.writes == []
    connection.resume_writing()
    connection.pause_writing()
    await turns()
    assert sent == []
    connection.connection_lost(None)
    await turns()
    assert sent == [0, 1, 2]  # into nothing
    assert transport.writes == []


@pytest.mark.parametrize(("body", "said"), [(b"", [b"HTTP/1.1 100 Continue\r\n\r\n"]), (b"body", [])])
async def test_a_client_that_waits_is_told_to_go_on(body: bytes, said: list[bytes]) -> None:
    connection, transport = connect(Asked())
    connection.data_received(POST.replace(b"host: x", b"Expect: 100-Continue") + body)
    await turns()
    assert transport.writes[: len(said)] == said
    connection.data_received(b"body"[len(body) :])
    await turns()
    assert transport.writes[-1].endswith(b"\r\n\r\n4")
    assert transport.written.count(b"100 Continue") == len(said)


@pytest.mark.parametrize("before", [b"", GET, b"GET /slow HTTP/1.1\r\nhost:"], ids=["unused", "idle", "slow head"])
async def test_a_connection_without_a_request_is_closed_after_a_while(before: bytes) -> None:
    connection, transport = connect(Asked(), keep_alive=0.01)
    connection.data_received(before)
    await until(lambda: transport.closed)
    assert transport.written.count(b"HTTP/1.1 200") == (before == GET)


async def test_a_connection_at_work_is_not_closed() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await done.wait()
        await start(send, *OK)
        await send({"type": "http.response.body", "body": b"ok"})

    connection, transport = connect(app, keep_alive=0.01)
    connection.data_received(GET)
    await asyncio.sleep(0.05)
    assert not transport.closed
    done.set()
    await until(lambda: transport.closed)
    assert transport.written.endswith(b"ok")


@pytest.mark.parametrize("idle", [True, False])
async def test_as_the_server_stops_the_answer_that_is_due_is_the_last(idle: bool) -> None:
    asked = Asked()
    connection, transport = connect(asked)
    if not idle:
        connection.data_received(POST)
        await turns()
    connection.shutdown()
    assert transport.closed is idle
    if not idle:
        connection.data_received(b"body")
        await turns()
        assert b"connection: close" in transport.written
        assert transport.closed
