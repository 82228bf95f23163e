"""The idle connections to one engine. The one that was used last is used first, so that the others can end."""

import asyncio
from collections import deque

from gateway.upstream.connection import Connection

# Seconds. uvicorn, and so vLLM, closes a connection that was idle for 5 s: it must not be used at that moment.
KEEP_ALIVE = 4.0


class Pool:
    """Keeps connections until they are used again, or have been idle for too long.

    Those that the engine has closed are never given out.
    """

    def __init__(self) -> None:
        self._idle: deque[Connection] = deque()  # the one that was used last at the right
        self._expiry: asyncio.TimerHandle | None = None

    def take(self, now: float) -> Connection | None:
        """Return a connection, if there is one; `now` is by the event loop's clock."""
        while self._idle:
            connection = self._idle.pop()
            if connection.lost:
                continue
            if now - connection.idle_since <= KEEP_ALIVE:
                return connection
            connection.close()
        return None

    def put(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        """Keep a connection whose answer has been read."""
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._expiry is None:
            self._expiry = loop.call_later(KEEP_ALIVE, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expiry = None
        now, idle = loop.time(), self._idle
        while idle and (idle[0].lost or now - idle[0].idle_since >= KEEP_ALIVE):
            connection = idle.popleft()
            if not connection.lost:
                connection.close()
        if idle:
            self._expiry = loop.call_at(idle[0].idle_since + KEEP_ALIVE, self._expire, loop)
