"""Where an engine is: what its URL says of the host, the port, TLS, and the base below which it is asked."""

import ipaddress
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from gateway.config import DeploymentConfig
from gateway.config.base_url import SOCKET

PORTS = {"http": 80, "https": 443}


class Address(Struct, frozen=True):
    """Where connections go. With a `socket` (the path of a Unix socket) there are no host and port.

    `server_name` is whom the certificate has to name; without it there is no TLS. `ca_file`: the certificates to trust,
    instead of the system's; `verify`: whether the engine's is checked at all. `host_header` and `base` go into each
    request (RFC 9112, 3.2).
    """

    host: str
    port: int
    socket: str
    server_name: str
    ca_file: str
    verify: bool
    host_header: str
    base: str

    @property
    def in_numbers(self) -> bool:
        """Whether the host is an address itself, and not a name that may have several."""
        try:
            ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True


def address_of(deployment: DeploymentConfig) -> Address:
    """Return where a deployment is. Its URL has been checked."""
    parts = urlsplit(deployment.url)
    host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() else parts.hostname
    host = host or ""
    in_socket = parts.scheme == SOCKET
    named = f"[{host}]" if ":" in host else host
    default = PORTS.get(parts.scheme, 0)
    return Address(
        host=deployment.address or host,
        port=parts.port or default,
        socket=unquote(parts.path) if in_socket else "",
        server_name=host if parts.scheme == "https" else "",
        ca_file=deployment.ca_file,
        verify=deployment.verify,
        host_header="localhost" if in_socket else named if parts.port in (None, default) else f"{named}:{parts.port}",
        base="" if in_socket else parts.path.rstrip("/"),
    )
