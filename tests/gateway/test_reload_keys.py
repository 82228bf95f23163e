"""Each key of the configuration is in force after a reload, or is named as one that needs a restart.

The keys are read off the tables: one that is new fails here until it has a row, and its row fails until it is wired.
"""

import ast
import asyncio
import logging
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import certifi
import msgspec
import pytest

import gateway
from gateway import services
from gateway.config import AdmissionConfig, Config, DeploymentConfig, ModelConfig, check
from gateway.config.reader import NOT_WRITTEN
from gateway.config.tables import ExperimentConfig
from gateway.server.reload import Reload, restart_keys, value_of
from gateway.services import Services
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import ModelRoute

ENVIRON = {"KEY": "secret", "OTHER_KEY": "another"}
DEPLOYMENT = DeploymentConfig(name="a", engine="vllm", url="http://a:8000", model="own", api_key_env="KEY")


def checked(config: Config) -> Config:
    """Return a configuration that has to be without fault, with its keys from the environment."""
    faults: list[str] = []
    made = check(config, ENVIRON, faults)
    assert faults == []
    return made


SIBLING = DeploymentConfig(name="z", engine="vllm", url="http://z:8000", model="own")
BASE = checked(Config(models=[ModelConfig(name="m", deployments=[DEPLOYMENT, SIBLING])]))
EXPERIMENT = ExperimentConfig(name="e", control=["a"], treatment=["z"])


def keys(table: type[msgspec.Struct] = Config, path: str = "") -> Iterator[str]:
    """Return the dotted names of all keys of a table and of those in it."""
    for field in msgspec.structs.fields(table):
        inner = typing.get_args(field.type)[0] if typing.get_origin(field.type) is list else field.type
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield from keys(inner, f"{path}{field.name}.")
        else:
            yield path + field.name


def changed(table: Any, key: str, value: object) -> Any:
    """Return a table with another value of a dotted key; of a list of tables it is the first one's."""
    name, _, inside = key.partition(".")
    if not inside:
        return msgspec.structs.replace(table, **{name: value})
    inner = getattr(table, name)
    if isinstance(inner, list):
        return msgspec.structs.replace(table, **{name: [changed(inner[0], inside, value), *inner[1:]]})
    return msgspec.structs.replace(table, **{name: changed(inner, inside, value)})


async def resolve(host: str, port: int) -> list[str]:
    return ["10.0.0.1"]


@pytest.fixture
async def front(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    """Services of the base configuration, none of which is open, with a DNS of their own."""
    monkeypatch.setattr(services, "resolve", resolve)
    made = services.make(BASE, Random(1))
    yield made
    await made.supervisor.stop()


# --- what is in force at once ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    """Another value of a key, how a gateway shows which one is in force, and what it shows where not the value."""

    value: Any
    shown: Callable[[Services], Any]
    shows: Any = None


def endpoint(made: Services) -> Endpoint:
    return made.catalog.endpoints[0]


def authorization(made: Services) -> str:
    """Return what an engine is told of who asks."""
    head = endpoint(made).requests.head("GET", "/", {}, None).decode()
    return head.partition("authorization: ")[2].partition("\r\n")[0]


def route(made: Services) -> ModelRoute:
    return next(iter(made.catalog.routes.values()))


def when_half_warm(made: Services) -> float:
    """Return the share of an engine that came 50 s ago."""
    new = endpoint(made)
    new.up = False
    new.mark_up([], 0.0)
    return round(new.effective_weight(50.0), 3)


def open_to_all(made: Services) -> bool:
    """Return whether the gateway may listen on all addresses without keys."""
    faults: list[str] = []
    check(changed(made.config, "server.host", "0.0.0.0"), ENVIRON, faults)
    return faults == []


LIVE: dict[str, Live] = {
    "auth.allow_anonymous": Live(True, open_to_all),
    "timeouts.connect": Live(7.0, lambda made: made.upstream._connect_timeout),
    "timeouts.keep_alive": Live(7.0, lambda made: made.sweep.keep_alive),
    "retries.budget": Live(0.7, lambda made: made.budget.share),
    "breaker.failures": Live(7, lambda made: endpoint(made).breaker.rules.failures),
    "breaker.share": Live(0.7, lambda made: endpoint(made).breaker.rules.share),
    "breaker.window": Live(7.0, lambda made: endpoint(made).breaker.rules.window),
    "breaker.open": Live(7.0, lambda made: endpoint(made).breaker.rules.open),
    "breaker.most_open": Live(70.0, lambda made: endpoint(made).breaker.rules.most_open),
    "health.interval": Live(7.0, lambda made: made.prober.health.interval),
    "health.timeout": Live(7.0, lambda made: made.prober.health.timeout),
    "health.misses": Live(7, lambda made: made.prober.health.misses),
    "health.slow_start": Live(100.0, when_half_warm, 0.5),
    "admission.max_in_flight": Live(7, lambda made: made.admission.bounds.max_in_flight),
    "admission.queue": Live(7, lambda made: made.admission.bounds.queue),
    "admission.queue_timeout": Live(7.0, lambda made: made.admission.bounds.queue_timeout),
    "logging.requests": Live(False, lambda made: made.records.logging.requests),
    "models.name": Live("n", lambda made: route(made).name),
    "models.aliases": Live(["n"], lambda made: route(made).aliases),
    "models.on_unsupported": Live("refuse", lambda made: route(made).by_capability, False),
    "models.reasoning_field": Live("reasoning", lambda made: route(made).settings.reasoning_field),
    "models.tools_in_prompt": Live("always", lambda made: route(made).tools_in_prompt, True),
    "models.policy": Live("prefix", lambda made: route(made).settings.policy),
    "models.prefix_bytes": Live(7, lambda made: route(made).settings.prefix_bytes),
    "models.hedge_after": Live(7.0, lambda made: route(made).settings.hedge_after),
    "models.cache_ttl": Live("7m", lambda made: route(made).settings.cache_ttl),
    "models.experiment": Live(EXPERIMENT, lambda made: made.experiments.of("m") is not None, True),
    "models.deployments.name": Live("b", lambda made: endpoint(made).name),
    "models.deployments.engine": Live("tgi", lambda made: endpoint(made).backend.label, "TGI"),
    "models.deployments.url": Live("http://b", lambda made: endpoint(made).address.host, "b"),
    "models.deployments.model": Live("other", lambda made: route(made).candidates[0].model),
    "models.deployments.weight": Live(7.0, lambda made: endpoint(made).weight),
    "models.deployments.max_in_flight": Live(7, lambda made: endpoint(made).max_in_flight),
    "models.deployments.slots": Live(7, lambda made: endpoint(made).deployment.slots),
    "models.deployments.discover": Live("dns", lambda made: endpoint(made).name, "a@10.0.0.1"),
    "models.deployments.vision": Live(True, lambda made: route(made).candidates[0].supports_vision),
    "models.deployments.api_key_env": Live("OTHER_KEY", authorization, "Bearer another"),
    "models.deployments.api_key": Live("x", authorization, "Bearer x"),
    "models.deployments.address": Live("10.0.0.1", lambda made: endpoint(made).address.host),
    "models.deployments.ca_file": Live(certifi.where(), lambda made: endpoint(made).address.ca_file),
    "models.deployments.verify": Live(False, lambda made: endpoint(made).address.verify),
}

# Read anew for each request, from `Services.config`.
PER_REQUEST: dict[str, Any] = {
    "server.max_body": "7KiB",
    "server.tgi_model": "m",
    "server.drain_notice": 7.0,
    "server.drain": 7.0,
    "timeouts.first_event": 7.0,
    "timeouts.head": 7.0,
    "timeouts.between_events": 7.0,
    "timeouts.total": 7.0,
    "retries.attempts": 7,
    "retries.backoff": 7.0,
}

# Needs a restart.
RESTART: dict[str, Any] = {
    "server.host": "127.0.0.7",
    "server.port": 7,
    "server.workers": 7,
    "server.cors_origins": ["http://page"],
    "server.keep_alive": 7.0,
    "auth.keys_file": "keys.toml",
    "limits.store": "redis",
    "limits.url": "redis://other",
    "limits.when_down": "closed",
    "cache.store": "memory",
    "cache.url": "redis://other",
    "cache.ttl": "7m",
    "cache.max_bytes": "7MiB",
    "cache.pace": 0.7,
    "telemetry.otlp_endpoint": "http://collector",
    "telemetry.otlp_protocol": "grpc",
    "telemetry.sample_ratio": 0.7,
    "telemetry.trust_sampling": True,
    "telemetry.content": True,
    "telemetry.redact": ["secret"],
    "telemetry.tgi_names": True,
    "experiments.store": "redis",
    "experiments.file": "other.sqlite",
    "experiments.url": "redis://other",
}


def test_each_key_has_one_row_and_those_that_need_a_restart_are_the_declared_ones() -> None:
    assert sorted(keys()) == sorted([*LIVE, *PER_REQUEST, *RESTART])
    assert list(RESTART) == restart_keys()


@pytest.mark.parametrize("key", LIVE)
async def test_it_is_in_force_where_it_is_used(key: str, front: Services, caplog: pytest.LogCaptureFixture) -> None:
    row = LIVE[key]
    wanted = row.value if row.shows is None else row.shows
    assert row.shown(front) != wanted
    config = changed(BASE, key, row.value)
    front.reload.take(config if key.rpartition(".")[2] in NOT_WRITTEN else checked(config))
    if await front.discovery.look(front.reload.written.models):
        front.reload.renew()
    assert row.shown(front) == wanted
    assert "after a restart" not in caplog.text


@pytest.mark.parametrize("key", PER_REQUEST)
def test_it_is_in_force_for_the_next_request_that_reads_it(
    key: str, front: Services, caplog: pytest.LogCaptureFixture
) -> None:
    assert value_of(front.config, key) != PER_REQUEST[key]
    front.reload.take(checked(changed(BASE, key, PER_REQUEST[key])))
    assert value_of(front.config, key) == PER_REQUEST[key]
    assert "after a restart" not in caplog.text
    section, name = key.split(".")
    assert f"config.{section}" in READ
    assert READ_AS.get(key, name) in READ


def read_names() -> set[str]:
    """Return the attributes that the gateway's code reads, `config.` before those of the configuration itself."""
    names: set[str] = set()
    package = Path(gateway.__file__).parent
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] in ("config", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                of_config = isinstance(node.value, ast.Attribute) and node.value.attr == "config"
                names |= {node.attr, f"config.{node.attr}"} if of_config else {node.attr}
    return names


READ = read_names()
READ_AS = {"server.max_body": "max_body_bytes"}


@pytest.mark.parametrize("key", RESTART)
def test_it_is_named_as_one_that_needs_a_restart_and_keeps_its_value(
    key: str, front: Services, caplog: pytest.LogCaptureFixture
) -> None:
    front.reload.take(checked(changed(BASE, key, RESTART[key])))
    assert [record.message for record in caplog.records] == [
        f"{key}: changed; the new value takes effect after a restart"
    ]
    assert value_of(front.config, key) == value_of(BASE, key)


# --- what needs a restart is told once, and told right -------------------------------------------------------------


def test_a_key_that_needs_a_restart_is_told_of_at_each_change_and_not_between(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pointsman")
    reload = Reload(BASE, list)
    needs, is_back = (
        "server.port: changed; the new value takes effect after a restart",
        "server.port: changed back to the value in force; no restart is needed for it",
    )
    for port, more, told in (
        (8081, 1.0, [needs]),
        (8081, 2.0, []),
        (8082, 2.0, [needs]),
        (8080, 2.0, [is_back]),
        (8080, 3.0, []),
        (8081, 3.0, [needs]),
    ):
        caplog.clear()
        reload.take(changed(changed(BASE, "server.port", port), "timeouts.total", more))
        assert [record.message for record in caplog.records] == told
        assert (reload.config.server.port, reload.config.timeouts.total) == (8080, more)


# --- subscribers ----------------------------------------------------------------------------------------------------


def test_a_subscriber_is_told_of_its_part_alone_when_it_has_changed() -> None:
    reload = Reload(BASE, list)
    told: list[object] = []
    reload.subscribe(lambda config: config.admission, told.append)
    reload.subscribe(lambda config: config.timeouts.connect, told.append)
    reload.take(changed(BASE, "timeouts.total", 7.0))
    assert told == []
    reload.take(changed(BASE, "timeouts.connect", 7.0))
    reload.take(changed(BASE, "timeouts.connect", 7.0))
    assert told == [7.0]
    reload.take(changed(BASE, "admission.queue", 7))
    assert told == [7.0, AdmissionConfig(queue=7), 2.0]


def test_one_that_fails_is_logged_and_keeps_no_other_from_following(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: object) -> None:
        raise ValueError("no")

    reload = Reload(BASE, list)
    told: list[object] = []
    reload.subscribe(lambda config: config.admission, fails)
    reload.subscribe(lambda config: config.admission, told.append)
    reload.take(changed(BASE, "admission.queue", 7))
    assert told == [AdmissionConfig(queue=7)]
    assert "ValueError: no" in caplog.text


def test_the_deployments_that_there_are_now_are_told_without_a_changed_file() -> None:
    other = [ModelConfig(name="m", deployments=[msgspec.structs.replace(DEPLOYMENT, address="10.0.0.1")])]
    now = BASE.models
    reload = Reload(BASE, lambda models: now)
    told: list[object] = []
    reload.subscribe(lambda config: config.models, told.append)
    reload.renew()
    now = other
    reload.renew()
    reload.renew()
    assert told == [other]
    assert reload.written == BASE


@pytest.mark.parametrize(("key", "value"), [("admission.max_in_flight", 2), ("models.deployments.max_in_flight", 2)])
async def test_who_waits_is_given_the_room_that_a_reload_makes(key: str, value: int, front: Services) -> None:
    small = changed(BASE, key, 1)
    front.reload.take(small)
    candidates = route(front).candidates[:1]
    await front.admission.acquire(candidates, "priority", True)
    waiting = asyncio.ensure_future(front.admission.acquire(candidates, "priority", True))
    await asyncio.sleep(0)
    assert front.admission.waiting == 1
    front.reload.take(changed(small, key, value))
    assert front.admission.waiting == 0
    assert await waiting is candidates[0]
