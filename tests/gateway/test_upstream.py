"""The engine connection: what it takes out of aiohttp's hands is what aiohttp would have given."""

from asyncio import get_running_loop
from random import Random
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest

from gateway.upstream.connection import Drained


def reader(kind: Any) -> Any:
    return kind(Mock(_reading_paused=False), limit=2**16, loop=get_running_loop())


@pytest.mark.parametrize("seed", range(20))
async def test_any_mix_of_chunks_and_reads_gives_the_same_bytes(seed: int) -> None:
    """Whole chunks and pieces of them, read at once and by number, up to the end."""
    chance = Random(seed)
    ours, theirs = reader(Drained), reader(aiohttp.StreamReader)
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
    body = reader(Drained)
    for _ in range(50):
        body.begin_http_chunk_receiving()
        body.feed_data(b"data: x\n\n")
        body.end_http_chunk_receiving()
    assert await body.readany() == b"data: x\n\n" * 50
    assert body._protocol.resume_reading.call_count == 1
