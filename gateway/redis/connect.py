"""redis-py's own client, by its URL (`gateway.redis.url`), and the errors that it raises."""

from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ClusterError, RedisClusterException, RedisError, ResponseError

from gateway.redis.url import CLUSTER, SENTINEL, RedisAddress, parse_redis_url

Connection = Any  # a Redis or a RedisCluster: their types have no common base

REDIS_ERRORS = (RedisError, RedisClusterException, OSError)  # TimeoutError is an OSError


def connect(url: str, timeout: float) -> Connection:
    """Return a client; nothing is sent yet. `timeout` is for each connect and each answer, in seconds.

    A connection that broke while it was idle is made anew, once, and at once. RESP2, which every server and proxy
    speaks, and which costs no HELLO. Raises ValueError if the URL is none.
    """
    address = parse_redis_url(url)
    settings: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1),
        "protocol": 2,
    }
    if address.scheme not in (SENTINEL, CLUSTER):
        return Redis.from_url(url.removeprefix("redis+") if address.scheme == "unix" else url, **settings)
    credentials: dict[str, Any] = {"username": address.username, "password": address.password}
    if address.scheme == SENTINEL:
        return _primary(address, settings, credentials)
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    return RedisCluster(startup_nodes=nodes, **settings, **credentials)


def is_refusal(error: BaseException) -> bool:
    """Whether Redis is there and does not do what it was asked: it has no memory left, or gives no permission."""
    return isinstance(error, ResponseError) and not isinstance(error, ClusterError)


def _primary(address: RedisAddress, settings: dict[str, Any], credentials: dict[str, Any]) -> Connection:
    """Return a client of the primary that the Sentinels know.

    The Sentinels may have the primary's password or none: they are asked both ways, the one that works first next time.
    """
    make: Any = Sentinel  # redis-py does not type it
    sentinels = make(address.hosts, sentinel_kwargs=settings)
    if address.password:
        with_password = make(address.hosts, sentinel_kwargs=settings | credentials)
        sentinels.sentinels = [*sentinels.sentinels, *with_password.sentinels]
    return sentinels.master_for(address.service, db=address.database, **settings, **credentials)
