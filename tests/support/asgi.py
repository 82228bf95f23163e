"""Drives an ASGI application without a server: ask, collect what it sends, leave early if wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from backends.sim.http import App

JSON = {"content-type": "application/json"}


class Answer(NamedTuple):
    """What came: `chunks` as they were sent, and whether the answer was finished."""

    status: int
    headers: dict[str, str]
    chunks: list[bytes]
    finished: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


async def ask(
    app: App,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] = JSON,
    *,
    leaves: asyncio.Event | None = None,
) -> Answer:
    """One request. The client stays until the answer is complete, or until `leaves` is set."""
    sent: list[Any] = []
    inbox: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    gone = leaves or asyncio.Event()

    async def receive() -> dict[str, Any]:
        if inbox:
            return inbox.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": raw}, receive, send)
    start: Any = sent[0] if sent else {"status": 0, "headers": []}
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    chunks = [message["body"] for message in sent[1:] if message["body"]]
    return Answer(start["status"], headers, chunks, bool(sent) and not sent[-1].get("more_body", True))
