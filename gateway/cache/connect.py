"""A Redis client by its URL: one server, a primary that Sentinels know, or a Cluster.

redis://[user:password@]host:port/db      rediss:// with TLS      unix:///path/to/socket?db=0
redis+sentinel://[user:password@]host:port[,host:port …]/service[/db]
redis+cluster://[user:password@]host:port[,host:port …]
"""

from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

PORTS = {"redis+sentinel": 26379, "redis+cluster": 6379}
DIRECT = ("redis", "rediss", "unix")

Client = Any  # a Redis or a RedisCluster: their types have no common base


def connect(url: str, patience: float) -> Client:
    """Return a client; nothing is sent yet. `patience` is for each connect and each answer, in seconds.

    A connection that broke while it was idle is made anew, once, and at once. Raises ValueError if the URL is none.
    """
    scheme = url.partition("://")[0]
    patient = {"socket_timeout": patience, "socket_connect_timeout": patience}
    settings: dict[str, Any] = patient | {"retry": Retry(NoBackoff(), 1)}
    if scheme in DIRECT:
        return Redis.from_url(url, **settings)
    if scheme not in PORTS:
        raise ValueError(f"expected {', '.join((*DIRECT, *PORTS))} before ://, not '{scheme}'")
    parts = urlsplit(url)
    if parts.username or parts.password:
        settings |= {"username": unquote(parts.username or "") or None, "password": unquote(parts.password or "")}
    hosts = _hosts(parts.netloc.rpartition("@")[2], PORTS[scheme])
    if scheme == "redis+cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]
        return RedisCluster(startup_nodes=nodes, **settings)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("expected the name of the service behind the Sentinels' addresses")
    sentinel: Any = Sentinel
    return sentinel(hosts, sentinel_kwargs=patient).master_for(service, db=int(database or 0), **settings)


def _hosts(listed: str, default: int) -> list[tuple[str, int]]:
    """Return the addresses of a list; an IPv6 one is in brackets."""
    hosts = []
    for one in listed.split(","):
        host, colon, port = one.rpartition(":")
        bare = not colon or one.endswith("]")
        hosts.append((one.strip("[]"), default) if bare else (host.strip("[]"), int(port)))
    return hosts
