"""A client's connection without a network: bytes in, and what is written and asked of the transport noted."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from uvicorn.server import ServerState

from gateway.server.client_connection import ClientConnection

App = Callable[[Any, Any, Any], Awaitable[None]]


class NotedTransport(asyncio.Transport):
    """Notes what is written and asked of it; closing it loses the connection at once."""

    def __init__(self) -> None:
        super().__init__(extra={"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.2", 4000)})
        self.writes: list[bytes] = []
        self.closed = self.paused = False
        self.connection: ClientConnection | None = None

    @property
    def written(self) -> bytes:
        """All of it."""
        return b"".join(self.writes)

    def write(self, data: Any) -> None:
        """Note it."""
        self.writes.append(bytes(data))

    def close(self) -> None:
        """Note it, and tell the connection."""
        if not self.closed and self.connection is not None:
            self.closed = True
            self.connection.connection_lost(None)

    def is_closing(self) -> bool:
        """Say whether it was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """Note it."""
        self.paused = True

    def resume_reading(self) -> None:
        """Note it."""
        self.paused = False


def connect(app: App, keep_alive: float = 75.0) -> tuple[ClientConnection, NotedTransport]:
    """Return a connection to an application, and its transport."""
    state = ServerState()
    state.default_headers = [(b"date", b"today")]
    settings = SimpleNamespace(loaded_app=app, timeout_keep_alive=keep_alive)
    connection, transport = ClientConnection(settings, state, {}), NotedTransport()
    transport.connection = connection
    connection.connection_made(transport)
    return connection, transport


async def turns(count: int = 5) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)
