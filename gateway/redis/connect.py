"""A Redis client by its URL (`gateway.redis.url`)."""

from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from gateway.redis.url import where

Client = Any  # a Redis or a RedisCluster: their types have no common base


def connect(url: str, patience: float) -> Client:
    """Return a client; nothing is sent yet. `patience` is for each connect and each answer, in seconds.

    A connection that broke while it was idle is made anew, once, and at once. Raises ValueError if the URL is none.
    """
    place = where(url)
    patient = {"socket_timeout": patience, "socket_connect_timeout": patience}
    settings: dict[str, Any] = patient | {"retry": Retry(NoBackoff(), 1)}
    if not place.scheme.startswith("redis+"):
        return Redis.from_url(url, **settings)
    if place.username or place.password:
        settings |= {"username": place.username, "password": place.password}
    if place.scheme == "redis+cluster":
        return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in place.hosts], **settings)
    sentinel: Any = Sentinel
    known = sentinel(place.hosts, sentinel_kwargs=patient)
    return known.master_for(place.service, db=place.database, **settings)
