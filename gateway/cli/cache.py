"""`pointsman cache stats` and `pointsman cache purge`: what the gateways share in Redis.

Each returns its exit status: 0 done, 2 wrong usage, 3 Redis could not be asked. What is asked for goes to stdout.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway import config
from gateway.cache.redis import RedisTier, shared_cache
from gateway.redis.connect import REDIS_ERRORS
from gateway.redis.url import parse_redis_url, redacted

WRONG = 2
AWAY = 3

T = TypeVar("T")


class Failed(Exception):
    """A command ends here, with its exit status and a line for each thing to say."""

    def __init__(self, status: int, *lines: str) -> None:
        super().__init__(*lines)
        self.status = status
        self.lines = lines


def stats(settings: str | None, url: str | None) -> int:
    """Print a table of the models: how many answers are kept of each, and their bytes."""
    return _status(lambda: _table(_asked(locate(settings, url), lambda redis: redis.stats())))


def purge(settings: str | None, url: str | None, model: str | None) -> int:
    """Delete what is kept of a model, or everything.

    What a running gateway holds in its own memory stays there until its time is over.
    """

    def said() -> str:
        count = _asked(locate(settings, url), lambda redis: redis.purge(model))
        whose = f"of {model}" if model else "of all models"
        return f"{count:,} {'answer' if count == 1 else 'answers'} {whose} deleted."

    return _status(said)


def locate(settings: str | None, url: str | None) -> str:
    """Return the URL of the Redis: the one given, or the configuration's. Raises Failed."""
    if url:
        return _checked(url, "--url")
    if not settings:
        raise Failed(WRONG, "expected --config FILE or --url URL, to know where the answers are kept")
    faults: list[str] = []
    try:
        cache = config.read(Path(settings).read_text(), faults).cache
    except config.ConfigError as error:
        raise Failed(WRONG, *(f"{settings}: {fault}" for fault in error.faults)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(WRONG, f"{settings}: {error}") from error
    if not faults and cache.store != "redis":
        faults = [f'cache.store: "{cache.store}" keeps nothing in Redis; what a gateway has in memory ends with it']
    if faults:
        raise Failed(WRONG, *(f"{settings}: {fault}" for fault in faults))
    return _checked(cache.url, f"{settings}: cache.url")


def _checked(url: str, place: str) -> str:
    try:
        parse_redis_url(url)
    except ValueError as error:
        raise Failed(WRONG, f"{place}: {error}") from error
    return url


def _asked(url: str, question: Callable[[RedisTier], Awaitable[T]]) -> T:
    async def ask() -> T:
        redis = shared_cache(url)
        try:
            return await question(redis)
        except REDIS_ERRORS as error:
            raise Failed(
                AWAY, f"Redis at {redacted(url)} cannot be asked: {str(error) or 'no answer in time'}"
            ) from error
        finally:
            await redis.close()

    return asyncio.run(ask())


def _table(found: dict[str, tuple[int, int]]) -> str:
    if not found:
        return "The cache is empty."
    width = max(len("model"), *map(len, found))
    lines = [f"{'model':<{width}}  {'answers':>9}  {'bytes':>13}"]
    lines += [f"{model:<{width}}  {entries:>9,}  {size:>13,}" for model, (entries, size) in sorted(found.items())]
    return "\n".join(lines)


def _status(command: Callable[[], str]) -> int:
    try:
        print(command())
    except Failed as failed:
        for line in failed.lines:
            print(f"pointsman: {line}", file=sys.stderr)
        return failed.status
    return 0
