"""`loadtests.peers` starts what is installed, and tells its CPU; its upstream answers at once, in the API's forms."""

import asyncio
import json
import os
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from loadtests import peers_launch
from loadtests.asking import ask, session
from loadtests.peers import chosen, cpu
from loadtests.upstream import Upstream

BODY = {"model": "bench", "messages": []}


async def test_the_upstream_answers_whole_and_streamed() -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(3), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, session() as http:
        whole = await ask(http, url, BODY)
        streamed = await ask(http, url, BODY | {"stream": True})
    assert (whole.tokens, whole.events) == (3, [])
    assert (streamed.tokens, len(streamed.events)) == (3, 3)


async def test_the_upstream_reads_chunked_requests_and_several_at_once() -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(1), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        writer.write(chunked + b"GET /v1/models HTTP/1.1\r\n\r\n")
        for kind in ("chat.completion", "list"):
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.partition(b"content-length: ")[2].split()[0])
            assert json.loads(await reader.readexactly(size))["object"] == kind
        writer.close()


def test_cpu_time_is_that_of_the_process() -> None:
    before = cpu(os.getpid())
    while cpu(os.getpid()) - before < 0.05:
        sum(range(10_000))
    assert cpu(os.getpid()) >= before + 0.05


def test_a_peer_that_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {name: wanted("http://127.0.0.1:1", 2, tmp_path) for name, wanted in peers_launch.PEERS.items()}
    assert {name for name, peer in found.items() if peer} == {"pointsman"}
    assert found["pointsman"] is not None
    assert found["pointsman"].command[0] == sys.executable


def test_unknown_peers_are_named() -> None:
    assert chosen("nginx,pointsman") == ["nginx", "pointsman"]
    with pytest.raises(ArgumentTypeError, match="unknown: traefik; there are pointsman"):
        chosen("nginx,traefik")
