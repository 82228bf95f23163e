"""`pointsman cache stats` and `pointsman cache purge`: what the gateways share in Redis. Each returns what to print."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gateway.cache.redis import FAILED, Redis

T = TypeVar("T")


class CacheAway(Exception):
    """Redis cannot be asked; the message says why."""


def stats(url: str) -> str:
    """Return a table of the models: how many answers are kept of each, and their bytes. Raises CacheAway."""
    found = _asked(url, lambda redis: redis.stats())
    if not found:
        return "The cache is empty."
    width = max(len("model"), *map(len, found))
    lines = [f"{'model':<{width}}  {'answers':>9}  {'bytes':>13}"]
    lines += [f"{model:<{width}}  {entries:>9,}  {size:>13,}" for model, (entries, size) in sorted(found.items())]
    return "\n".join(lines)


def purge(url: str, model: str | None = None) -> str:
    """Delete what is kept of a model, or everything. Raises CacheAway.

    What a running gateway holds in its own memory stays there until its time is over.
    """
    count = _asked(url, lambda redis: redis.purge(model))
    whose = f"of {model}" if model else "of all models"
    return f"{count:,} {'answer' if count == 1 else 'answers'} {whose} deleted."


def _asked(url: str, question: Callable[[Redis], Awaitable[T]]) -> T:
    async def ask() -> T:
        try:
            redis = Redis(url)
        except ValueError as error:
            raise CacheAway(f"{url} is no address of a Redis: {error}") from error
        try:
            return await question(redis)
        except FAILED as error:
            raise CacheAway(f"Redis at {url} cannot be asked: {error or 'no answer in time'}") from error
        finally:
            await redis.close()

    return asyncio.run(ask())
