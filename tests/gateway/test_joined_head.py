"""An answer's head is written together with the beginning of its body, and is never kept back."""

import asyncio
from typing import Any

import pytest

from gateway.server.uvicorn_internals import JoinedHead
from tests.support.harness import ANSWER, CHAT, STREAM, over, says, streamed, whole
from tests.support.raw_client import connected

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Written(asyncio.Transport):
    """A transport that notes what is written, and that it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        """Note it."""
        self.writes.append(data)

    def close(self) -> None:
        """Note it."""
        self.writes.append(b"closed")

    def is_closing(self) -> bool:
        """Say whether it was closed."""
        return b"closed" in self.writes


class PassedOn(Written):
    """A transport that passes on what it notes."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        super().__init__()
        self.writes = writes
        self._transport = transport

    def write(self, data: Any) -> None:
        """Note it, and write it."""
        self.writes.append(data)
        self._transport.write(data)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ([HEAD, b"body"], [HEAD + b"body"]),
        ([HEAD, b""], [HEAD]),
        ([HEAD, b"1", b"2"], [HEAD + b"1", b"2"]),
        ([HEAD, b"1", HEAD], [HEAD + b"1", HEAD]),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", HEAD, b"1"], [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"1"]),
    ],
)
def test_the_head_goes_out_with_what_comes_next(given: list[bytes], written: list[bytes]) -> None:
    transport = Written()
    joined = JoinedHead(transport)
    for data in given:
        joined.write(data)
    assert transport.writes == written
    assert not joined.is_closing()


def test_a_head_alone_goes_out_before_the_connection_is_closed() -> None:
    transport = Written()
    joined = JoinedHead(transport)
    joined.write(HEAD)
    assert transport.writes == []
    joined.close()
    assert transport.writes == [HEAD, b"closed"]
    assert joined.is_closing()


@pytest.mark.parametrize("body", [CHAT, CHAT | {"stream": True}], ids=["whole", "streamed"])
async def test_an_answer_that_is_there_is_one_write(body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []

    class Noted(JoinedHead):
        """One that notes what reaches the real transport."""

        def __init__(self, transport: asyncio.Transport) -> None:
            super().__init__(PassedOn(transport, writes))

    monkeypatch.setattr("gateway.server.uvicorn_internals.JoinedHead", Noted)
    async with over(says(streamed(*STREAM) if "stream" in body else whole(ANSWER))) as (front, _):
        assert (await front.post(body)).status_code == 200
        head, _, rest = writes[0].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert rest
        assert len(writes) == 1 or "stream" in body


async def test_the_answer_to_a_head_is_not_kept_back() -> None:
    async with over(says(whole(ANSWER))) as (front, _), connected(front.port) as client:
        client.write(b"HEAD /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.head()).status == 200
