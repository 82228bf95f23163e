"""The connections to engines: aiohttp's private parts give what its public ones give, and each error becomes ours."""

import logging
from asyncio import Event, Future, StreamWriter, gather, get_running_loop
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from yarl import URL

from gateway.config.tables import BreakerConfig, DeploymentConfig, TimeoutsConfig
from gateway.http.errors import EngineFailed, UpstreamBroken, UpstreamConnectError, UpstreamReset
from gateway.upstream import aiohttp_internals
from gateway.upstream.aiohttp_internals import AiohttpClasses, FastAiohttp, GreedyReader, PublicAiohttp
from gateway.upstream.connection import RESEND_WINDOW, Reply, Upstream, gateway_error
from gateway.upstream.endpoints import Endpoint
from tests.support.clock import Clock
from tests.support.harness import STREAM, Asked, Engine, Script, cuts, engine, head, piece, says, streamed, until, whole


def reader(kind: Any) -> Any:
    return kind(Mock(_reading_paused=False), limit=2**16, loop=get_running_loop())


@pytest.mark.parametrize("seed", range(20))
async def test_any_mix_of_chunks_and_reads_gives_the_same_bytes(seed: int) -> None:
    """Whole chunks and pieces of them, read at once and by number, up to the end."""
    chance = Random(seed)
    ours, theirs = reader(GreedyReader), reader(aiohttp.StreamReader)
    for _ in range(200):
        for _ in range(chance.randint(1, 6)):
            data = chance.randbytes(chance.randint(1, 50))
            for one in (ours, theirs):
                one.begin_http_chunk_receiving()
                one.feed_data(data)
                one.end_http_chunk_receiving()
        if chance.random() < 0.3:
            some = chance.randint(1, 30)
            assert await ours.read(some) == await theirs.read(some)
        if theirs._buffer:
            assert await ours.readany() == await theirs.readany()
        assert (ours._size, ours._cursor, list(ours._buffer)) == (theirs._size, theirs._cursor, list(theirs._buffer))
    for one in (ours, theirs):
        one.feed_eof()
    assert await ours.readany() == await theirs.readany() == b""


async def test_the_transport_is_told_once_for_a_read_and_not_once_for_a_chunk() -> None:
    body = reader(GreedyReader)
    for _ in range(50):
        body.begin_http_chunk_receiving()
        body.feed_data(b"data: x\n\n")
        body.end_http_chunk_receiving()
    assert await body.readany() == b"data: x\n\n" * 50
    assert body._protocol.resume_reading.call_count == 1


# --- what is expected of aiohttp ----------------------------------------------------------------------------------


class WithoutBuffer:
    """A reader of a later aiohttp, all of whose insides have other names."""

    def __init__(self, protocol: Any, limit: int, *, loop: Any) -> None:
        pass


class ReadsOtherwise(aiohttp.StreamReader):
    """A reader of a later aiohttp, which no longer reads by `_read_nowait`."""

    async def readany(self) -> bytes:
        return await self.read(2**16)


class WithoutHook:
    """A connector of a later aiohttp."""


class HookUnused(aiohttp.TCPConnector):
    """A connector of a later aiohttp, which makes its connections in another place."""

    async def connect(self, *details: Any) -> Any:
        return None


class WithoutClosed:
    """A connection of a later aiohttp."""


class WithoutRoom:
    """A connection of a later aiohttp, with slots."""

    __slots__ = ("closed",)
    closed: "Future[None]"


OTHER = {
    "StreamReader: AttributeError": AiohttpClasses(reader=WithoutBuffer),
    "StreamReader: ": AiohttpClasses(reader=ReadsOtherwise),
    "TCPConnector has no coroutine _create_connection": AiohttpClasses(connector=WithoutHook),
    "TCPConnector.connect does not call _create_connection": AiohttpClasses(connector=HookUnused),
    "ResponseHandler has no attribute closed": AiohttpClasses(protocol=WithoutClosed),
    "ResponseHandler takes no further attribute": AiohttpClasses(protocol=WithoutRoom),
}


async def test_the_installed_aiohttp_is_as_expected(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(await aiohttp_internals.choose(), FastAiohttp)
    assert caplog.records == []


@pytest.mark.parametrize("fault", OTHER)
async def test_an_aiohttp_that_is_not_as_expected_is_used_by_its_public_interface_and_logged_once(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(await aiohttp_internals.choose(OTHER[fault]), PublicAiohttp)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert fault in record.getMessage()


# --- both ways, over real connections -----------------------------------------------------------------------------

STILL = Clock()  # so that no window passes on a busy machine
WAYS = {"fast": AiohttpClasses(), "public": AiohttpClasses(reader=WithoutBuffer)}
both_ways = pytest.mark.parametrize("way", WAYS)


def endpoint(url: str) -> Endpoint:
    return Endpoint(DeploymentConfig(name="a", engine="vllm", url=url), BreakerConfig(), 0)


@asynccontextmanager
async def opened(way: str, clock: Callable[[], float] = STILL) -> AsyncIterator[tuple[Upstream, list[float]]]:
    """Give the connections in one of the two ways, and how long each new one took."""
    took: list[float] = []
    upstream = Upstream(TimeoutsConfig(), clock, WAYS[way])
    upstream.connected = took.append
    await upstream.open()
    try:
        yield upstream, took
    finally:
        await upstream.close()


@asynccontextmanager
async def asked(way: str, script: Script) -> AsyncIterator[Reply]:
    async with engine(script) as behind, opened(way) as (upstream, _):
        yield await upstream.post(endpoint(behind.url), "/v1/chat/completions", b"{}", {})


async def body(reply: Reply) -> bytes:
    """Return all that comes of a reply, read as a stream is read."""
    pieces = []
    while some := await reply.chunk():
        pieces.append(some)
    return b"".join(pieces)


@both_ways
async def test_a_stream_of_many_chunks_is_read_to_its_end(way: str) -> None:
    events = [b"data: %d\n\n" % number for number in range(500)]
    async with asked(way, says(streamed(*events))) as reply:
        assert await body(reply) == b"".join(events)
        assert type(reply._response.content) is (GreedyReader if way == "fast" else aiohttp.StreamReader)


@both_ways
@pytest.mark.parametrize("data", [{"a": 1}, {"a": "x" * 300_000}], ids=["small", "large"])
async def test_a_whole_answer_is_read_at_once(way: str, data: Any) -> None:
    async with asked(way, says(whole(data))) as reply:
        assert len(await reply.read()) == len(whole(data).split(b"\r\n\r\n", 1)[1])


@both_ways
async def test_a_new_connection_is_told_of_and_one_that_is_used_again_is_not(way: str) -> None:
    async with engine(says(whole({}))) as behind, opened(way) as (upstream, took):
        for _ in range(3):
            reply = await upstream.get(endpoint(behind.url), "/health")
            await reply.read()
            reply.release()
        assert len(took) == 1
        assert took[0] > 0


@both_ways
async def test_a_connection_that_is_released_before_the_end_of_its_body_is_used_again(way: str) -> None:
    async with engine(says(streamed(*STREAM))) as behind, opened(way) as (upstream, took):
        for _ in range(2):
            reply = await upstream.post(endpoint(behind.url), "/v1/chat/completions", b"{}", {})
            reply.release()
            await until(lambda: not upstream._drains)
        assert len(took) == 1


# --- a connection that is reset before any answer -----------------------------------------------------------------


@both_ways
async def test_a_request_that_resets_a_new_connection_is_sent_once(way: str) -> None:
    """It may be what crashed the engine, even where that came at once."""
    async with engine(cuts(b"")) as behind, opened(way) as (upstream, took):
        for _ in range(2):
            with pytest.raises(UpstreamReset):
                await upstream.post(endpoint(behind.url), "/v1/chat/completions", b"{}", {})
        assert (len(behind.asked), len(took)) == (2, 2)


def once_a_connection(before_it_closes: Callable[[], None] = lambda: None) -> Script:
    """Return a script that answers the first request of each connection, and closes it at the second."""
    used: set[StreamWriter] = set()

    async def script(_: Asked, writer: StreamWriter) -> None:
        if writer in used:
            before_it_closes()
            writer.close()
            raise ConnectionError
        used.add(writer)
        writer.write(whole({}))

    return script


async def posted(upstream: Upstream, behind: Engine) -> int:
    reply = await upstream.post(endpoint(behind.url), "/v1/chat/completions", b"{}", {})
    await reply.read()
    return reply.status


@both_ways
async def test_a_request_is_sent_again_where_the_engine_closed_an_idle_connection(way: str) -> None:
    async with engine(once_a_connection()) as behind, opened(way) as (upstream, took):
        assert [await posted(upstream, behind) for _ in range(3)] == [200] * 3
        assert (len(behind.asked), len(took)) == (5, 3)


@both_ways
async def test_a_request_is_not_sent_again_where_a_reused_connection_was_closed_later(way: str) -> None:
    clock = Clock()

    def late() -> None:
        clock.now += 2 * RESEND_WINDOW

    async with engine(once_a_connection(late)) as behind, opened(way, clock) as (upstream, _took):
        await posted(upstream, behind)
        with pytest.raises(UpstreamReset):
            await posted(upstream, behind)
        assert len(behind.asked) == 2


@both_ways
async def test_a_new_connection_of_another_request_is_not_taken_for_its_own(way: str) -> None:
    """One request finds its idle connection closed while another, beside it, opens one."""
    async with engine(once_a_connection()) as behind, opened(way) as (upstream, _took):
        await posted(upstream, behind)
        assert await gather(*(posted(upstream, behind) for _ in range(3))) == [200] * 3
        assert len(behind.asked) == 5


@both_ways
async def test_a_stream_that_is_cut_ends_in_an_error(way: str) -> None:
    async with asked(way, cuts(head() + piece(b"data: 1\n\n"))) as reply:
        with pytest.raises(EngineFailed, match="before the answer was complete"):
            await body(reply)


async def test_a_malformed_chunk_ends_a_stream_in_an_error_at_once() -> None:
    """It does so the fast way alone: aiohttp itself leaves the reader to its time-out."""
    read = Event()

    async def script(_: Asked, writer: StreamWriter) -> None:
        writer.write(head() + piece(b"data: 1\n\n"))
        await read.wait()
        writer.write(b"zz\r\n\r\n")

    async with asked("fast", script) as reply:
        assert await reply.chunk() == b"data: 1\n\n"
        read.set()
        with pytest.raises(EngineFailed, match="before the answer was complete"):
            await reply.chunk()


@both_ways
async def test_an_engine_that_cannot_be_reached_is_marked_as_down(way: str) -> None:
    gone = endpoint("http://127.0.0.1:9")
    gone.mark_up([], 0.0)
    async with opened(way) as (upstream, _):
        with pytest.raises(UpstreamConnectError):
            await upstream.get(gone, "/health")
    assert not gone.up


# --- errors -------------------------------------------------------------------------------------------------------

KEY: Any = Mock(host="a", port=1, ssl=None)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(111, "Connection refused")), UpstreamConnectError),
        (aiohttp.ConnectionTimeoutError(), UpstreamConnectError),
        (aiohttp.InvalidURL("http://"), UpstreamConnectError),
        (aiohttp.ServerDisconnectedError(), UpstreamReset),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), UpstreamReset),
        (ConnectionResetError(), UpstreamReset),
        (aiohttp.ClientPayloadError(), UpstreamBroken),
        (aiohttp.ClientResponseError(Mock(real_url=URL("http://a")), ()), UpstreamBroken),
        (TimeoutError(), UpstreamBroken),
        (OSError(), UpstreamBroken),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_each_of_aiohttps_errors_becomes_one_of_ours_which_names_the_engine(
    error: Exception, kind: type[Exception]
) -> None:
    ours = gateway_error(error, "vllm-a")
    assert type(ours) is kind
    assert "vllm-a" in ours.message
