"""How a connection to an engine is made: by TCP to the address that answers first (RFC 8305), with TLS, or by a Unix
socket.
"""

import asyncio
import socket
import ssl
from functools import cached_property
from typing import Any

import aiohappyeyeballs

from gateway.upstream.address import Address
from gateway.upstream.connection import Connection

EYEBALLS_DELAY = 0.25  # seconds from one attempt to the next (RFC 8305, 5)
NAMES_KEPT = 10.0  # seconds, for which the addresses of a name are used


class Dialer:
    """Makes the connections to one address."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._found: list[Any] = []  # the addresses of its name
        self._found_until = 0.0
        self._lookup: asyncio.Task[list[Any]] | None = None

    async def connect(self, connection: Connection) -> None:
        """Connect. Raises OSError (of it socket.gaierror and ssl.SSLError), and UnicodeError for what is no name."""
        loop, address = asyncio.get_running_loop(), self._address
        tls: dict[str, Any] = {}
        if address.server_name:
            tls = {"ssl": self._tls, "server_hostname": address.server_name}
        if address.socket:
            await loop.create_unix_connection(lambda: connection, address.socket)
        elif address.in_numbers:
            await loop.create_connection(lambda: connection, address.host, address.port, **tls)
        else:
            connected = await self._connected(loop)
            try:
                await loop.create_connection(lambda: connection, sock=connected, **tls)
            except BaseException:
                connected.close()
                raise

    async def _connected(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """Return a socket that is connected to the first address of the name that answers."""
        try:
            return await aiohappyeyeballs.start_connection(
                await self._addresses(loop), happy_eyeballs_delay=EYEBALLS_DELAY, interleave=1, loop=loop
            )
        except OSError:
            self._found_until = 0.0  # the name may have moved
            raise

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> list[Any]:
        """Return the addresses of the name. Of many who ask at once, one looks it up."""
        if loop.time() < self._found_until:
            return self._found
        if self._lookup is None:
            self._lookup = loop.create_task(self._look_up(loop))
        return await asyncio.shield(self._lookup)

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> list[Any]:
        try:
            self._found = await loop.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM)
            self._found_until = loop.time() + NAMES_KEPT
            return self._found
        finally:
            self._lookup = None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """What TLS is spoken by; made when it is first needed, as the system's certificates take milliseconds."""
        return tls_context(self._address)


def tls_context(address: Address) -> ssl.SSLContext:
    """Return by what TLS is spoken with an engine: whom it has to be, and which certificates are trusted for that."""
    context = ssl.create_default_context(cafile=address.ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    if not address.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
