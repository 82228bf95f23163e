"""`pointsman cache stats` and `pointsman cache purge`: the answers that gateways share in Redis.

Each prints its result on stdout. Raises CommandFailed: wrong usage, or Redis does not answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gateway.cache.redis import RedisTier, shared_cache
from gateway.cli.exit_status import CommandFailed, ExitStatus
from gateway.cli.settings import written_config
from gateway.redis.connect import REDIS_ERRORS
from gateway.redis.url import parse_redis_url, redacted

T = TypeVar("T")


def stats(config_file: str | None, url: str | None) -> None:
    """Print a table of the models: how many answers each has in the cache, and their bytes."""
    print(_table(_asked(locate(config_file, url), lambda redis: redis.stats())))


def purge(config_file: str | None, url: str | None, model: str | None) -> None:
    """Delete the cached answers of one model, or of all.

    A running gateway keeps what it has in its own memory until that expires.
    """
    count = _asked(locate(config_file, url), lambda redis: redis.purge(model))
    whose = f"of {model}" if model else "of all models"
    print(f"{count:,} {'answer' if count == 1 else 'answers'} {whose} deleted.")


def locate(config_file: str | None, url: str | None) -> str:
    """Return the URL of the Redis: `url`, or the one in the file. Raises CommandFailed."""
    if url:
        return _checked(url, "--url")
    if not config_file:
        raise CommandFailed(ExitStatus.USAGE, "expected --config FILE or --url URL, to find the Redis of the cache")
    cache = written_config(Path(config_file)).cache
    if cache.store != "redis":
        fault = f'cache.store: "{cache.store}" keeps nothing in Redis; expected "redis"'
        raise CommandFailed(ExitStatus.USAGE, f"{config_file}: {fault}")
    return _checked(cache.url, f"{config_file}: cache.url")


def _checked(url: str, place: str) -> str:
    try:
        parse_redis_url(url)
    except ValueError as error:
        raise CommandFailed(ExitStatus.USAGE, f"{place}: {error}") from error
    return url


def _asked(url: str, question: Callable[[RedisTier], Awaitable[T]]) -> T:
    async def ask() -> T:
        redis = shared_cache(url)
        try:
            return await question(redis)
        except REDIS_ERRORS as error:
            why = f"Redis at {redacted(url)} cannot be asked: {str(error) or 'no answer in time'}"
            raise CommandFailed(ExitStatus.UNREACHABLE, why) from error
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
