"""The connections to engines: made, used again, ended; what goes wrong with them becomes the gateway's errors."""

import asyncio
import gzip
import socket
import ssl
import subprocess
import zlib
from asyncio import Event, StreamReader, StreamWriter, gather
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.doctor.ask import direct, url_fault
from gateway.config.tables import BreakerConfig, DeploymentConfig, TimeoutsConfig
from gateway.http.errors import (
    InvalidRequest,
    UpstreamBroken,
    UpstreamConnectError,
    UpstreamMalformed,
    UpstreamReset,
)
from gateway.upstream import pool
from gateway.upstream.answer import MAX_BUFFERED
from gateway.upstream.client import DRAIN_TIMEOUT, RESEND_WINDOW, Reply, Upstream
from gateway.upstream.endpoints import Endpoint
from tests.support.clock import Clock
from tests.support.harness import (
    STREAM,
    Asked,
    Engine,
    Script,
    cuts,
    engine,
    hangs,
    head,
    piece,
    says,
    streamed,
    until,
    whole,
)

STILL = Clock()  # so that no window passes on a busy machine
CHAT = "/v1/chat/completions"


def endpoint(url: str, **more: Any) -> Endpoint:
    return Endpoint(DeploymentConfig(name="a", engine="vllm", url=url, **more), BreakerConfig(), 0)


@asynccontextmanager
async def opened(clock: Callable[[], float] = STILL) -> AsyncIterator[tuple[Upstream, list[float]]]:
    """Give the connections, and how long each new one took."""
    took: list[float] = []
    upstream = Upstream(TimeoutsConfig(), clock)
    upstream.connected = took.append
    try:
        yield upstream, took
    finally:
        await upstream.close()
        await until(lambda: not upstream.connections)


@asynccontextmanager
async def asked(script: Script) -> AsyncIterator[Reply]:
    async with engine(script) as behind, opened() as (upstream, _):
        yield await upstream.post(endpoint(behind.url), CHAT, b"{}", {})


async def body(reply: Reply) -> bytes:
    """Return all that comes of a reply, read as a stream is read."""
    pieces = []
    while some := await reply.chunk():
        pieces.append(some)
    return b"".join(pieces)


async def test_a_stream_of_many_chunks_is_read_to_its_end() -> None:
    events = [b"data: %d\n\n" % number for number in range(500)]
    async with asked(says(streamed(*events))) as reply:
        assert await body(reply) == b"".join(events)


@pytest.mark.parametrize("data", [{"a": 1}, {"a": "x" * 300_000}], ids=["small", "large"])
async def test_a_whole_answer_is_read_at_once(data: Any) -> None:
    async with asked(says(whole(data))) as reply:
        assert len(await reply.read()) == len(whole(data).split(b"\r\n\r\n", 1)[1])


async def test_a_large_request_arrives_whole() -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, _):
        sent = b"x" * 3_000_000
        await upstream.post(endpoint(behind.url), CHAT, sent, {})
        assert behind.asked[0].body == sent


async def test_an_engine_that_answers_before_it_has_read_the_request_is_heard_and_not_used_again() -> None:
    async def hasty(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(whole({"too": "large"}, "413 Content Too Large"))
        await stopped.wait()

    stopped = Event()
    async with await asyncio.start_server(hasty, "127.0.0.1", 0, limit=1024) as server, opened() as (upstream, _):
        there = endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        reply = await upstream.post(there, CHAT, b"x" * 30_000_000, {})
        assert (reply.status, await reply.read()) == (413, b'{"too": "large"}')
        await until(lambda: not upstream.connections)
        stopped.set()


# --- used again ---------------------------------------------------------------------------------------------------


async def test_a_new_connection_is_told_of_and_one_that_is_used_again_is_not() -> None:
    async with engine(says(whole({}))) as behind, opened(asyncio.get_running_loop().time) as (upstream, took):
        there = endpoint(behind.url)
        for _ in range(3):
            reply = await upstream.get(there, "/health")
            await reply.read()
            reply.release()
        assert len(took) == 1
        assert took[0] > 0


async def test_a_connection_that_is_released_before_the_end_of_its_body_is_used_again() -> None:
    async with engine(says(streamed(*STREAM))) as behind, opened() as (upstream, took):
        there = endpoint(behind.url)
        for _ in range(2):
            reply = await upstream.post(there, CHAT, b"{}", {})
            reply.release()
            await until(lambda: not any(one.busy for one in upstream.connections))
        assert len(took) == 1


async def test_one_whose_end_does_not_come_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.upstream.client.DRAIN_TIMEOUT", DRAIN_TIMEOUT / 100)
    async with engine(hangs(head() + piece(b"data: 1\n\n"))) as behind, opened() as (upstream, _):
        reply = await upstream.post(endpoint(behind.url), CHAT, b"{}", {})
        reply.release()
        await until(lambda: behind.left == 1 and not upstream.connections)


async def test_one_that_is_closed_in_the_middle_of_its_answer_stops_the_engine() -> None:
    async with engine(hangs(head() + piece(b"data: 1\n\n"))) as behind, opened() as (upstream, _):
        reply = await upstream.post(endpoint(behind.url), CHAT, b"{}", {})
        reply.close()
        await until(lambda: behind.left == 1 and not upstream.connections)


async def test_a_request_that_is_cancelled_stops_the_engine() -> None:
    async with engine(hangs()) as behind, opened() as (upstream, _):
        asking = asyncio.ensure_future(upstream.post(endpoint(behind.url), CHAT, b"{}", {}))
        await until(lambda: behind.asked)
        asking.cancel()
        await until(lambda: behind.left == 1 and not upstream.connections)


async def test_the_connection_that_was_used_last_is_used_first_and_an_old_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, took):
        there = endpoint(behind.url)
        await gather(*(upstream.post(there, CHAT, b"{}", {}) for _ in range(3)))
        assert (len(took), len(upstream.connections)) == (3, 3)
        now = asyncio.get_running_loop().time()
        newest = there.pool.take(now)
        assert newest is not None
        there.pool.put(asyncio.get_running_loop(), newest)
        assert there.pool.take(now) is newest
        assert there.pool.take(now + 2 * pool.KEEP_ALIVE) is None
        await until(lambda: upstream.connections == {newest})


async def test_connections_that_nobody_uses_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "KEEP_ALIVE", 0.01)
    async with engine(says(whole({}))) as behind, opened() as (upstream, _):
        there = endpoint(behind.url)
        await gather(*(upstream.post(there, CHAT, b"{}", {}) for _ in range(3)))
        await until(lambda: not upstream.connections)


async def test_an_idle_connection_that_the_engine_closed_is_not_used_again() -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, took):
        there = endpoint(behind.url)
        await upstream.post(there, CHAT, b"{}", {})
        for writer in behind.writers:
            writer.close()
        await until(lambda: not upstream.connections)
        assert there.pool.take(asyncio.get_running_loop().time()) is None
        await upstream.post(there, CHAT, b"{}", {})
        assert len(took) == 2


UNASKED = {
    "a second answer": whole({}) + whole({}),
    "a byte": whole({}) + b"x",
    "an answer that ends the connection": whole({}, headers="connection: close\r\n"),
    "no length": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("name", UNASKED)
async def test_a_connection_on_which_more_comes_than_was_asked_for_is_not_used_again(name: str) -> None:
    async with engine(says(UNASKED[name])) as behind, opened() as (upstream, took):
        there = endpoint(behind.url)
        for number in (1, 2):
            reply = await upstream.post(there, CHAT, b"{}", {})
            if name == "no length":
                behind.stop()
            assert reply.status == 200
            await until(lambda: not upstream.connections)
            assert len(took) == number
            if name == "no length":
                break


async def test_bytes_on_an_idle_connection_close_it() -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, _):
        await upstream.post(endpoint(behind.url), CHAT, b"{}", {})
        assert len(upstream.connections) == 1
        for writer in behind.writers:
            writer.write(whole({"for": "the next"}))
        await until(lambda: not upstream.connections)


# --- a connection that is reset before any answer -----------------------------------------------------------------


async def test_a_request_that_resets_a_new_connection_is_sent_once() -> None:
    """It may be what crashed the engine, even where that came at once."""
    async with engine(cuts(b"")) as behind, opened() as (upstream, took):
        for _ in range(2):
            with pytest.raises(UpstreamReset):
                await upstream.post(endpoint(behind.url), CHAT, b"{}", {})
        assert (len(behind.asked), len(took)) == (2, 2)


def once_a_connection(before_it_closes: Callable[[], None] = lambda: None, first: bytes = b"") -> Script:
    """Return a script that answers the first request of each connection, and closes it at the second."""
    used: set[StreamWriter] = set()

    async def script(_: Asked, writer: StreamWriter) -> None:
        if writer in used:
            before_it_closes()
            writer.write(first)
            writer.close()
            raise ConnectionError
        used.add(writer)
        writer.write(whole({}))

    return script


async def posted(upstream: Upstream, there: Endpoint) -> int:
    reply = await upstream.post(there, CHAT, b"{}", {})
    await reply.read()
    return reply.status


async def test_a_request_is_sent_again_where_the_engine_closed_an_idle_connection() -> None:
    async with engine(once_a_connection()) as behind, opened() as (upstream, took):
        there = endpoint(behind.url)
        assert [await posted(upstream, there) for _ in range(3)] == [200] * 3
        assert (len(behind.asked), len(took)) == (5, 3)


async def test_a_request_is_not_sent_again_where_a_reused_connection_was_closed_later() -> None:
    clock = Clock()

    def late() -> None:
        clock.now += 2 * RESEND_WINDOW

    async with engine(once_a_connection(late)) as behind, opened(clock) as (upstream, _took):
        there = endpoint(behind.url)
        await posted(upstream, there)
        with pytest.raises(UpstreamReset):
            await posted(upstream, there)
        assert len(behind.asked) == 2


async def test_a_request_is_not_sent_again_once_a_byte_of_an_answer_has_come() -> None:
    async with engine(once_a_connection(first=b"H")) as behind, opened() as (upstream, _):
        there = endpoint(behind.url)
        await posted(upstream, there)
        with pytest.raises(UpstreamBroken, match="before the answer was complete"):
            await posted(upstream, there)
        assert len(behind.asked) == 2


async def test_a_new_connection_of_another_request_is_not_taken_for_its_own() -> None:
    """One request finds its idle connection closed while another, beside it, opens one."""
    async with engine(once_a_connection()) as behind, opened() as (upstream, _took):
        there = endpoint(behind.url)
        await posted(upstream, there)
        assert await gather(*(posted(upstream, there) for _ in range(3))) == [200] * 3
        assert len(behind.asked) == 5


# --- an answer that breaks ----------------------------------------------------------------------------------------


async def test_a_stream_that_is_cut_ends_in_an_error() -> None:
    async with asked(cuts(head() + piece(b"data: 1\n\n"))) as reply:
        with pytest.raises(UpstreamBroken, match="before the answer was complete"):
            await body(reply)


async def test_a_malformed_chunk_ends_a_stream_in_an_error_at_once() -> None:
    read = Event()

    async def script(_: Asked, writer: StreamWriter) -> None:
        writer.write(head() + piece(b"data: 1\n\n"))
        await read.wait()
        writer.write(b"zz\r\n\r\n")

    async with asked(script) as reply:
        assert await reply.chunk() == b"data: 1\n\n"
        read.set()
        with pytest.raises(UpstreamMalformed, match="does not speak HTTP as expected"):
            await reply.chunk()


async def test_what_is_no_http_is_an_error_at_once() -> None:
    async with engine(hangs(b"SSH-2.0-OpenSSH_9.2\r\n")) as behind, opened() as (upstream, _):
        with pytest.raises(UpstreamMalformed, match="a does not speak HTTP as expected"):
            await upstream.post(endpoint(behind.url), CHAT, b"{}", {})
        await until(lambda: not upstream.connections)


async def test_what_the_client_does_not_take_is_left_with_the_engine() -> None:
    sent = 0

    async def script(asked: Asked, writer: StreamWriter) -> None:
        nonlocal sent
        writer.write(head())
        for _ in range(200):
            writer.write(piece(b"x" * 65536))
            await writer.drain()
            sent += 65536
        writer.write(piece(b""))

    async with asked(script) as reply:
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert MAX_BUFFERED < sent < 100 * 65536  # the kernel's buffers hold some
        assert len(await body(reply)) == 200 * 65536


# --- compressed, though nobody asked ------------------------------------------------------------------------------

TEXT = b"data: {}\n\n" * 50_000
COMPRESSED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "identity": TEXT,
    "GZIP": gzip.compress(TEXT),
}


def coded(coding: str, data: bytes) -> bytes:
    return whole(data, headers=f"content-encoding: {coding}\r\n")


@pytest.mark.parametrize("coding", COMPRESSED)
async def test_a_compressed_body_is_read_as_it_was(coding: str) -> None:
    async with engine(says(coded(coding, COMPRESSED[coding]))) as behind, opened() as (upstream, took):
        there = endpoint(behind.url)
        for _ in range(2):
            reply = await upstream.post(there, CHAT, b"{}", {})
            assert await reply.read() == TEXT
        assert len(took) == 1
        assert "accept-encoding" not in behind.asked[0].headers


@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("br", b"x"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"x"))),
        ("gzip", b"no gzip at all"),
        ("gzip", gzip.compress(TEXT)[:-20]),
        ("deflate", b"\xff" * 9),
    ],
    ids=["unknown", "twice", "no gzip", "cut", "no zlib"],
)
async def test_a_compressed_body_that_cannot_be_read_is_an_error(coding: str, data: bytes) -> None:
    async with engine(says(coded(coding, data))) as behind, opened() as (upstream, _):
        with pytest.raises(UpstreamMalformed, match="does not speak HTTP as expected"):
            await (await upstream.post(endpoint(behind.url), CHAT, b"{}", {})).read()


async def test_a_small_answer_does_not_fill_the_memory() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    async with asked(says(coded("gzip", bomb))) as reply:
        assert len(await reply.chunk()) <= 1 << 20


async def test_a_compressed_stream_comes_piece_by_piece() -> None:
    packed, read = zlib.compressobj(wbits=31), Event()

    async def script(_: Asked, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
        writer.write(piece(packed.compress(b"data: 1\n\n") + packed.flush(zlib.Z_SYNC_FLUSH)))
        await read.wait()
        writer.write(piece(packed.compress(b"data: 2\n\n") + packed.flush()) + piece(b""))

    async with asked(script) as reply:
        assert await reply.chunk() == b"data: 1\n\n"
        read.set()
        assert await body(reply) == b"data: 2\n\n"


# --- where the engine is ------------------------------------------------------------------------------------------


async def test_an_engine_that_cannot_be_reached_is_marked_as_down() -> None:
    gone = endpoint("http://127.0.0.1:9")
    gone.mark_up([], 0.0)
    async with opened() as (upstream, _):
        with pytest.raises(UpstreamConnectError):
            await upstream.get(gone, "/health")
    assert not gone.up
    assert gone.public_reason == "no connection: refused"


@pytest.mark.parametrize("host", ["no..name", "localhost.invalid"])
async def test_a_name_that_cannot_be_resolved(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = endpoint(f"http://{host}:8000")

    async def fails(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    if host == "localhost.invalid":
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    async with opened() as (upstream, _):
        with pytest.raises(UpstreamConnectError):
            await upstream.get(nowhere, "/health")
    assert nowhere.public_reason == "no connection: the host's name cannot be resolved"


async def test_an_engine_that_does_not_take_the_connection_in_time() -> None:
    with socket.socket() as full:  # a queue for one, and nobody takes from it
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        async with opened() as (upstream, _):
            upstream.follow(TimeoutsConfig(connect=0.05))
            there = endpoint(f"http://127.0.0.1:{port}")
            with pytest.raises((UpstreamConnectError, TimeoutError)):
                async with asyncio.timeout(60):
                    await gather(*(upstream.get(there, "/health") for _ in range(4)))
            assert there.public_reason == "no connection in time"


async def test_of_a_names_addresses_the_first_that_answers_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, took):
        port = int(behind.url.rpartition(":")[2])
        looked_up = 0

        async def found(*_: Any, **__: Any) -> list[Any]:
            nonlocal looked_up
            looked_up += 1
            kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [
                (socket.AF_INET6, *kind, ("::1", port, 0, 0)),  # where nobody listens
                (socket.AF_INET, *kind, ("127.0.0.1", port)),
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
        there = endpoint(f"http://engines.test:{port}")
        await gather(*(posted(upstream, there) for _ in range(5)))
        assert (len(took), looked_up) == (5, 1)
        assert behind.asked[0].headers["host"] == f"engines.test:{port}"


async def test_an_engine_at_an_address_of_ipv6() -> None:
    made = Engine(says(whole({})))
    async with await asyncio.start_server(made.serve, "::1", 0) as server, opened() as (upstream, _):
        port = server.sockets[0].getsockname()[1]
        assert await posted(upstream, endpoint(f"http://[::1]:{port}")) == 200
        assert made.asked[0].headers["host"] == f"[::1]:{port}"


async def test_an_engine_behind_a_unix_socket(tmp_path: Path) -> None:
    made, path = Engine(says(whole({}))), tmp_path / "an engine.sock"
    async with await asyncio.start_unix_server(made.serve, path), opened() as (upstream, _):
        there = endpoint(f"unix://{path}".replace(" ", "%20"))
        assert await posted(upstream, there) == 200
        assert (made.asked[0].path, made.asked[0].headers["host"]) == (CHAT, "localhost")
        path.unlink()
        gone = endpoint(f"unix://{tmp_path}/none.sock")
        with pytest.raises(UpstreamConnectError):
            await posted(upstream, gone)
        assert gone.public_reason == "no connection"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a certificate for localhost that nobody knows, and its key."""
    made = tmp_path_factory.mktemp("tls")
    key, cert = made / "key.pem", made / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", cert], stderr=subprocess.DEVNULL, check=True)
    return cert, key


@asynccontextmanager
async def over_tls(certificate: tuple[Path, Path]) -> AsyncIterator[tuple[Engine, int]]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    made = Engine(says(streamed(*STREAM)))
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls) as server:
        yield made, server.sockets[0].getsockname()[1]


async def test_tls_is_spoken_with_whom_the_file_of_certificates_names(certificate: tuple[Path, Path]) -> None:
    async with over_tls(certificate) as (_, port), opened() as (upstream, took):
        there = endpoint(f"https://localhost:{port}", ca_file=str(certificate[0]))
        assert [await posted(upstream, there) for _ in range(2)] == [200, 200]
        assert len(took) == 1
        others_name = endpoint(f"https://127.0.0.1:{port}", ca_file=str(certificate[0]))
        unknown = endpoint(f"https://localhost:{port}")
        for refused in (others_name, unknown):
            with pytest.raises(UpstreamConnectError):
                await posted(upstream, refused)
            assert refused.public_reason == "no connection: TLS failed"
        assert await posted(upstream, endpoint(f"https://127.0.0.1:{port}", verify=False)) == 200


async def test_the_doctor_asks_over_the_same_socket_and_the_same_tls(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    made, path = Engine(says(whole({}))), tmp_path / "e.sock"
    async with (
        await asyncio.start_unix_server(made.serve, path),
        direct(endpoint(f"unix://{path}").deployment) as socketed,
        over_tls(certificate) as (_, port),
        direct(endpoint(f"https://localhost:{port}", ca_file=str(certificate[0])).deployment) as trusted,
        direct(endpoint(f"https://127.0.0.1:{port}", verify=False).deployment) as trusting,
        direct(endpoint(f"https://localhost:{port}").deployment) as wary,
    ):
        assert url_fault(f"unix://{path}") == ""
        for line in (socketed, trusted, trusting):
            assert (await line.post(CHAT, {})).status == 200
        assert made.asked[0].headers["host"] == "localhost"
        assert (await wary.post(CHAT, {})).status != 200


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v1/models", "/base/v1/models"),
        ("/v1/messages?beta=true&a=%20", "/base/v1/messages?beta=true&a=%20"),
        ("/v1/responses/ä b", "/base/v1/responses/%C3%A4%20b"),
        ("/v1/responses/100%", "/base/v1/responses/100%25"),
        ("/v1/responses/a#b", "/base/v1/responses/a%23b"),
        ("/x\r\nhost: b", "/base/x%0D%0Ahost:%20b"),
    ],
)
def test_a_path_is_quoted_once(path: str, target: str) -> None:
    assert endpoint("http://a/base").requests.target(path) == target


def test_the_head_of_a_request() -> None:
    requests = endpoint("http://a:8000", api_key="s").requests
    assert requests.head("POST", "/x", {"x-request-id": "1"}, 2) == (
        b"POST /x HTTP/1.1\r\nhost: a:8000\r\nauthorization: Bearer s\r\n"
        b"x-request-id: 1\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
    )
    form = requests.head("POST", "/x", {"content-type": "multipart/form-data; boundary=b"}, 2)
    assert form.count(b"content-type") == 1
    assert b"content-length" not in requests.head("GET", "/x", {}, None)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "€"])
async def test_a_header_that_would_end_itself_is_not_sent(value: str) -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, _):
        with pytest.raises(InvalidRequest):
            await upstream.post(endpoint(behind.url), CHAT, b"{}", {"anthropic-beta": value})
        assert behind.asked == []


async def test_a_post_without_a_body_says_so() -> None:
    async with engine(says(whole({}))) as behind, opened() as (upstream, _):
        await upstream.send(endpoint(behind.url), "POST", "/v1/responses/a/cancel", None, {})
        await upstream.send(endpoint(behind.url), "DELETE", "/v1/responses/a", None, {})
        lengths = [one.headers.get("content-length") for one in behind.asked]
        assert lengths == ["0", None]
