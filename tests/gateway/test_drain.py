"""The end of a gateway, as a process: what its clients and its load balancer see of it, and how it leaves."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import uvicorn

from gateway.config.tables import ServerConfig
from gateway.server import drain
from gateway.server.drain import Drain
from gateway.server.run import settings
from gateway.server.uvicorn_internals import RunningServer, running_server
from gateway.services import Services
from tests.support.harness import CHAT, Asked, Engine, Script, asking, chunk, configured, engine, head, piece, until
from tests.support.harness import over as gateway_over
from tests.support.processes import (
    OTHER_UVICORN,
    Served,
    answers,
    become,
    eventually,
    held,
    served,
    status,
    streaming,
    written,
)
from tests.support.raw_client import connected


async def over(
    stack: AsyncExitStack, tmp_path: Path, script: Script, *lines: str, program: tuple[str, ...] = ("-m", "gateway")
) -> tuple[Served, Engine]:
    """Run a gateway over one scripted engine, with lines of `[server]`."""
    behind = await stack.enter_async_context(engine(script))
    file = tmp_path / "pointsman.toml"
    file.write_text(written({"m": {"v": behind.url}}, "\n".join(["[server]", *lines])))
    return await stack.enter_async_context(served(file, program=program)), behind


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_it_gives_notice_then_takes_nothing_new_and_finishes_what_it_has(
    tmp_path: Path, stop: signal.Signals
) -> None:
    event = asyncio.Event()
    async with AsyncExitStack() as stack:
        front, _ = await over(stack, tmp_path, held(event), "drain_notice = 4.0", "drain = 600")
        stream = await stack.enter_async_context(streaming(front, "m"))
        front.process.send_signal(stop)
        await become(lambda: status(front, "/readyz"), 503)
        assert (await front.client.get("/readyz")).json()["status"] == "draining"  # over a connection that is kept
        assert (await front.chat("m")).status_code == 200
        await become(lambda: status(front, "/readyz"), 0)
        assert front.process.returncode is None
        assert not stream.done()
        event.set()
        assert (await stream).endswith("data: [DONE]\n\n")
        assert await front.ended() == 0
        assert "Traceback" not in front.said
        assert "draining: 1 requests in flight have 600 s" in front.said


ASKED: dict[str, tuple[str, str, Any]] = {
    "whole": ("POST", "/v1/chat/completions", CHAT),
    "streamed": ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
    "TGI's": ("POST", "/generate", {"inputs": "x"}),
    "TGI's stream": ("POST", "/generate_stream", {"inputs": "x"}),
    "refused": ("POST", "/v1/chat/completions", {"model": "none"}),
    "models": ("GET", "/v1/models", None),
    "HEAD": ("HEAD", "/v1/models/tiny", None),
    "ready": ("GET", "/readyz", None),
    "alive": ("GET", "/", None),
    "no such path": ("GET", "/nope", None),
    "no such method": ("POST", "/v1/models/tiny", None),
}


class Serving(RunningServer):
    """A server of the test's, whose port stays open: a notice without an end."""

    def __init__(self) -> None:
        super().__init__(None)

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(("method", "path", "body"), ASKED.values(), ids=ASKED.keys())
async def test_each_answer_of_the_notice_ends_its_connection_and_says_so(method: str, path: str, body: Any) -> None:
    async with gateway_over(answers(), server=ServerConfig(drain_notice=600)) as (front, _):
        data = b"" if body is None else httpx.Request("POST", "http://x", json=body).content
        head_of_it = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
        async with connected(front.port) as client:
            client.write(head_of_it.encode() + data)
            before = await client.head()
            assert "connection" not in before.headers
            Drain(front.services, Serving()).begin()
        async with connected(front.port) as client:
            client.write(head_of_it.encode() + data)
            answer = await client.head()
            assert (answer.status == before.status) == (path != "/readyz")
            assert answer.headers["connection"] == "close"
            await client.rest()  # which comes to an end


@pytest.mark.parametrize("stream", [False, True])
async def test_so_does_the_answer_to_what_was_asked_before(stream: bool) -> None:
    event = asyncio.Event()

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await event.wait()
        await answers()(asked, writer)

    async with (
        gateway_over(script, server=ServerConfig(drain_notice=600)) as (front, behind),
        asking(front, CHAT | {"stream": stream}) as asked,
    ):
        await until(lambda: behind.asked)
        Drain(front.services, Serving()).begin()
        event.set()
        answer = await asked
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")


async def test_an_idle_connection_is_kept_for_as_long_as_is_configured() -> None:
    """The clock is the server's own: it closes after a moment what would be kept for minutes."""
    short = ServerConfig(keep_alive=0.05)
    async with gateway_over(answers(), server=short) as (front, _), connected(front.port) as client:
        assert (await client.get("/healthz")).status == 200
        assert await client.rest() == b""


def test_idle_connections_are_kept_for_75_seconds_by_default() -> None:
    assert settings(configured("http://127.0.0.1:9"), app=None).timeout_keep_alive == 75


@pytest.mark.parametrize("begun", [True, False])
async def test_what_is_not_finished_at_the_bound_ends_in_an_error_and_is_not_tried_again(
    tmp_path: Path, begun: bool
) -> None:
    async with AsyncExitStack() as stack:
        front, behind = await over(stack, tmp_path, held(asyncio.Event(), begun), "drain = 1")
        asked = asyncio.ensure_future(front.chat("m", stream=True))
        await eventually(lambda: behind.asked)
        began = time.monotonic()
        front.process.send_signal(signal.SIGTERM)
        assert await front.ended() == 0
        assert time.monotonic() - began >= 1
        answer = await asked
        assert "shutting down" in answer.text
        assert "[DONE]" not in answer.text
        assert answer.status_code == (200 if begun else 503)
        assert len(behind.asked) == 1
        assert "Traceback" not in front.said


async def test_a_second_signal_ends_it_at_once_and_two_in_a_moment_are_one(tmp_path: Path) -> None:
    """At once is long before the ten minutes that it would have had."""
    async with AsyncExitStack() as stack:
        front, _ = await over(stack, tmp_path, held(asyncio.Event()), "drain_notice = 600")
        stream = await stack.enter_async_context(streaming(front, "m"))
        front.process.send_signal(signal.SIGINT)
        front.process.send_signal(signal.SIGINT)
        await become(lambda: status(front, "/readyz"), 503)
        await asyncio.sleep(drain.ONE_SIGNAL + 0.1)
        assert not stream.done()
        front.process.send_signal(signal.SIGINT)
        said = await stream
        assert "shutting down" in said
        assert "[DONE]" not in said
        assert await front.ended() == 0
        assert "Traceback" not in front.said


async def test_idle_connections_do_not_hold_it_up(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        front, _ = await over(stack, tmp_path, held(asyncio.Event()), "drain = 600")  # longer than is waited for
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=front.client.base_url, trust_env=False))
        _, silent = await asyncio.open_connection("127.0.0.1", front.port)
        _, halfway = await asyncio.open_connection("127.0.0.1", front.port)
        halfway.write(b"GET /healthz HTTP/1.1\r\nhost:")
        await client.get("/healthz")  # kept alive; and those before it have been accepted
        front.process.send_signal(signal.SIGTERM)
        assert await front.ended() == 0
        for writer in (silent, halfway):
            writer.close()


async def test_a_client_that_reads_nothing_does_not_hold_it_up_beyond_the_bound(tmp_path: Path) -> None:
    async def flood(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        while True:
            writer.write(piece(chunk({"content": "x" * 60_000})))
            await writer.drain()

    async with AsyncExitStack() as stack:
        front, behind = await over(stack, tmp_path, flood, "drain = 1")
        with socket.create_connection(("127.0.0.1", front.port)) as deaf:
            body = httpx.Request("POST", "http://x", json=CHAT | {"model": "m", "stream": True}).content
            head_of_it = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
            deaf.sendall(head_of_it % len(body) + body)
            await eventually(lambda: behind.asked)
            await asyncio.sleep(0.5)
            front.process.send_signal(signal.SIGTERM)
            assert await front.ended() == 0
            assert "Traceback" not in front.said


# --- what is expected of uvicorn ----------------------------------------------------------------------------------


def server() -> uvicorn.Server:
    return uvicorn.Server(settings(configured("http://127.0.0.1:9"), app=None))


def without(name: str) -> Callable[..., Any]:
    """Return the handler of SIGTERM of a server that lacks an attribute."""
    made = server()
    delattr(made, name)
    return made.handle_exit


def test_the_installed_uvicorns_server_is_as_expected(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(running_server(server().handle_exit), RunningServer)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("handler", "fault"),
    [
        (signal.SIG_DFL, "its server is not behind its handler of SIGTERM"),
        (lambda *_: None, "its server is not behind its handler of SIGTERM"),
        ([].append, "its server is not behind its handler of SIGTERM"),
        (without("should_exit"), "Server has no should_exit"),
        (without("server_state"), "Server has no set of connections"),
    ],
    ids=["none", "a function", "another's method", "no flag", "no state"],
)
def test_a_server_that_is_not_as_expected_is_left_alone_and_logged_once(
    handler: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert running_server(handler) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert fault in record.getMessage()


async def test_without_a_server_the_signals_stay_with_whoever_has_them() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    drain.listen(cast(Services, SimpleNamespace(supervisor=SimpleNamespace())), find=lambda: None)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_uvicorns_own_bound_is_behind_the_drains() -> None:
    config = configured("http://127.0.0.1:9")
    bound = settings(config, app=None).timeout_graceful_shutdown
    assert bound is not None
    assert bound > config.server.drain + drain.GRACE


async def test_under_a_uvicorn_that_is_not_as_expected_what_is_in_flight_still_finishes(tmp_path: Path) -> None:
    event = asyncio.Event()
    async with AsyncExitStack() as stack:
        front, _ = await over(stack, tmp_path, held(event), program=("-c", OTHER_UVICORN))
        stream = await stack.enter_async_context(streaming(front, "m"))
        front.process.send_signal(signal.SIGTERM)
        await become(lambda: status(front, "/readyz"), 0)
        assert not stream.done()
        event.set()
        assert (await stream).endswith("data: [DONE]\n\n")
        assert await front.ended() == 0
        assert "is not as expected (it is another one): at SIGTERM the port closes at once" in front.said
        assert "Traceback" not in front.said
