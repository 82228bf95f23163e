"""Where a Redis is, by its URL: one server, a primary that Sentinels know, or a Cluster. Pure.

redis://[user:password@]host:port/db      rediss:// with TLS      unix:///path/to/socket?db=0
redis+sentinel://[user:password@]host:port[,host:port …]/service[/db]
redis+cluster://[user:password@]host:port[,host:port …]
"""

from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct

PORTS = {"redis": 6379, "rediss": 6379, "redis+sentinel": 26379, "redis+cluster": 6379}
SOCKET = "unix"


class Where(Struct, frozen=True, kw_only=True):
    """Who is to be asked: hosts with their ports, as whom, for which database; `service` is what Sentinels know."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    username: str | None = None
    password: str | None = None
    service: str = ""
    database: int = 0


def where(url: str) -> Where:
    """Return what a URL says. Raises ValueError, in words that do not quote the URL, which may hold a password."""
    scheme, colon, _ = url.partition("://")
    if scheme == SOCKET:
        return Where(scheme=scheme)
    if not colon or scheme not in PORTS:
        raise ValueError(f"expected {', '.join((*PORTS, SOCKET))} before ://")
    parts = urlsplit(url)
    listed = parts.netloc.rpartition("@")[2]
    hosts = tuple(_host(one, PORTS[scheme]) for one in listed.split(","))
    if scheme.startswith("redis+"):
        service, database = _service(parts)
    else:
        service, database = "", parts.path.strip("/")
        if len(hosts) > 1:
            raise ValueError("expected one host; several are for redis+sentinel:// and redis+cluster://")
    if database and not database.isdecimal():
        raise ValueError("expected the number of a database at the end")
    return Where(
        scheme=scheme,
        hosts=hosts,
        username=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        service=service,
        database=int(database or 0),
    )


def shown(url: str) -> str:
    """Return a URL without its user and password."""
    scheme, colon, rest = url.partition("://")
    return scheme + colon + rest.rpartition("@")[2]


def _service(parts: SplitResult) -> tuple[str, str]:
    """Return what Sentinels are asked for: the name of a service, and its database. A Cluster has neither."""
    service, _, database = parts.path.strip("/").partition("/")
    if parts.scheme == "redis+sentinel" and not service:
        raise ValueError("expected the name of the service behind the Sentinels' addresses")
    if parts.scheme == "redis+cluster" and service:
        raise ValueError("expected nothing behind a Cluster's addresses; it has one database")
    return service, database


def _host(listed: str, default: int) -> tuple[str, int]:
    """Return one address of a list; an IPv6 one is in brackets."""
    host, colon, port = listed.rpartition(":")
    if not colon or listed.endswith("]"):
        host, port = listed, str(default)
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("expected host:port, or several with commas between")
    return host.strip("[]"), int(port)
