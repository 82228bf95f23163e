"""`[cache]` and `cache_ttl` in the configuration: what is a fault, and what each key comes to."""

import sys
from subprocess import run
from typing import Literal

import pytest

from gateway.config import CacheConfig, Config, ConfigError, ServerConfig, load, notes

Store = Literal["off", "memory", "redis"]

MODEL = '[[models]]\nname = "a"\n{}\n[[models.deployments]]\nname = "v"\nengine = "vllm"\nurl = "http://x"\n'


def faults(cache: str, model: str = "") -> list[str]:
    try:
        load(f"[cache]\n{cache}\n" + MODEL.format(model), {})
    except ConfigError as error:
        return error.faults
    return []


@pytest.mark.parametrize(
    ("cache", "model", "said"),
    [
        ('ttl = "soon"', "", 'cache.ttl: expected a duration such as "10m", got "soon"'),
        ('ttl = "0s"', "", "cache.ttl: expected a duration"),
        ('max_bytes = "much"', "", 'cache.max_bytes: expected a size such as "256MiB", got "much"'),
        ('url = "http://me:secret@x"', "", "cache.url: expected redis, rediss"),
        ('url = "redis://me:secret@x:y"', "", "cache.url: expected host:port"),
        ('url = "redis+sentinel://a:1"', "", "cache.url: expected the name of the service"),
        ('url = "redis+cluster://a/1"', "", "cache.url: expected nothing behind"),
        ('url = "redis://a,b"', "", "cache.url: expected one host"),
        ('url = "redis://a/first"', "", "cache.url: expected the number of a database"),
        ("pace = -1", "", "cache.pace: expected"),
        ('store = "disk"', "", "cache.store: "),
        ("size = 1", "", "cache.size: unknown key"),
        ("", 'cache_ttl = "1 fortnight"', 'models[0].cache_ttl: expected a duration such as "10m"'),
    ],
)
def test_a_fault_is_said_with_its_place_and_without_any_password(cache: str, model: str, said: str) -> None:
    (fault,) = faults(cache, model)
    assert fault.startswith(said)
    assert "secret" not in fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://cache",
        "rediss://me:secret@cache:6380/2",
        "unix:///run/redis.sock?db=1",
        "redis+unix:///run/redis.sock?db=1",
        "redis+sentinel://a:26379,b,c/answers/3",
        "redis+cluster://[::1]:7000,b:7001",
    ],
)
def test_every_form_of_a_redis_is_taken_for_the_cache_and_for_limits_alike(url: str) -> None:
    limits = f'[limits]\nstore = "redis"\nurl = "{url}"'
    cache = f'store = "redis"\nurl = "{url}"\nttl = "1h"\nmax_bytes = "1GiB"\n{limits}'
    assert faults(cache, 'cache_ttl = "5s"') == []


def test_workers_that_share_no_redis_are_said_to_keep_their_own() -> None:
    each: list[tuple[int, Store]] = [(1, "memory"), (4, "memory"), (4, "redis"), (4, "off")]
    said = [
        notes(Config(server=ServerConfig(workers=workers), cache=CacheConfig(store=store))) for workers, store in each
    ]
    assert [len(one) for one in said] == [0, 1, 0, 0]
    assert said[1][0].startswith("cache.store: without Redis each of the 4 workers")


def test_reading_the_configuration_does_not_import_redis() -> None:
    code = "import sys, gateway.services; print({'redis', 'limits', 'moka_py'} & set(sys.modules))"
    assert run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
