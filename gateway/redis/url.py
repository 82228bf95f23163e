"""Where a Redis is, by its URL: one server, a primary that Sentinels know, or a Cluster. Pure, and without redis-py.

redis://[user:password@]host:port/db      rediss:// with TLS
unix:///path/to/socket?db=0               redis+unix:// is the same
redis+sentinel://[user:password@]host:port[,host:port …]/service[/db]
redis+cluster://[user:password@]host:port[,host:port …]

The query of the first three goes to redis-py as it is (redis-py documentation, "Redis.from_url"), such as
`?ssl_cert_reqs=none`. Without a host it is localhost, without a port the default one.
"""

from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from msgspec import Struct

SERVER = ("redis", "rediss")
SENTINEL = "redis+sentinel"
CLUSTER = "redis+cluster"
SOCKET = ("unix", "redis+unix")
SCHEMES = (*SERVER, SENTINEL, CLUSTER, *SOCKET)
PORT = 6379
SENTINEL_PORT = 26379
NUMBERS = {  # of the query: what redis-py reads as a number
    "db": int,
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_read_size": int,
    "max_connections": int,
    "health_check_interval": int,
    "ssl_min_version": int,
    "protocol": int,
    "timeout": float,
}


class RedisAddress(Struct, frozen=True, kw_only=True):
    """What a URL says: hosts with their ports, as whom, and which database; `service` is a name that Sentinels know.

    Of `unix://` only the scheme is told: redis-py reads the rest.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    username: str | None = None
    password: str | None = None
    service: str = ""
    database: int = 0


def parse_redis_url(url: str) -> RedisAddress:
    """Return what a URL says. Raises ValueError, in words that do not quote the URL, which may hold a password."""
    scheme, colon, _ = url.partition("://")
    if not colon or scheme not in SCHEMES:
        raise ValueError(f"expected {', '.join(SCHEMES)} before ://")
    parts = _split(url)
    _check_query(parts.query)
    if scheme in SOCKET:
        if not parts.path.strip("/"):
            raise ValueError("expected the path of a socket, as in unix:///run/redis.sock")
        return RedisAddress(scheme="unix")
    service, database = _path(parts)
    if database and not database.isdecimal():
        raise ValueError("expected the number of a database at the end")
    return RedisAddress(
        scheme=scheme,
        hosts=_hosts(parts),
        username=unquote(parts.username or "") or None,
        password=unquote(parts.password or "") or None,
        service=service,
        database=int(database or 0),
    )


def redacted(url: str) -> str:
    """Return a URL without its user, its password and its query, for people to read."""
    scheme, colon, rest = url.partition("?")[0].partition("://")
    return scheme + colon + rest.rpartition("@")[2]


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("expected a URL") from None  # the library's words may quote it


def _hosts(parts: SplitResult) -> tuple[tuple[str, int], ...]:
    listed = parts.netloc.rpartition("@")[2]
    if parts.scheme in SERVER:
        if "," in listed:
            raise ValueError(f"expected one host; several are for {SENTINEL}:// and {CLUSTER}://")
        return (_host(listed or "localhost", PORT),)
    default = SENTINEL_PORT if parts.scheme == SENTINEL else PORT
    return tuple(_host(one.strip(), default) for one in listed.split(","))


def _host(listed: str, default: int) -> tuple[str, int]:
    """Return one address of a list; an IPv6 one is in brackets."""
    host, colon, port = listed.rpartition(":")
    if not colon or listed.endswith("]"):
        host, port = listed, str(default)
    if not host.strip("[]") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("expected host:port, or several with commas between")
    return host.strip("[]"), int(port)


def _path(parts: SplitResult) -> tuple[str, str]:
    """Return the name of the service, which only Sentinels are asked for, and the database."""
    path = parts.path.strip("/")
    if parts.scheme in SERVER:
        return "", path
    if parts.scheme == CLUSTER:
        if path not in ("", "0"):
            raise ValueError("expected nothing behind a Cluster's addresses; it has one database")
        return "", ""
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("expected the name of the service behind the Sentinels' addresses")
    return service, database


def _check_query(query: str) -> None:
    for name, (value, *_) in parse_qs(query).items():
        try:
            NUMBERS.get(name, str)(value)
        except ValueError as error:
            raise ValueError(f"expected a number for {name}=") from error
