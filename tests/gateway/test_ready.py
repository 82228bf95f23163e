"""`/readyz`: 200 where at least one model can be served, and who is missing, told to anybody without addresses."""

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest

from gateway.api.ops import missing
from gateway.config import BreakerConfig, Config, DeploymentConfig, HealthConfig, ModelConfig
from gateway.upstream.client import public_reason
from gateway.upstream.endpoints import Endpoint
from tests.support.harness import (
    ANSWER,
    Gateway,
    Script,
    checked,
    cuts,
    engine,
    gateway,
    says,
    until,
    whole,
)

NOWHERE = "http://127.0.0.1:9"


def model(name: str, *urls: str, aliases: tuple[str, ...] = ()) -> ModelConfig:
    """Return a model with a deployment at each URL, called after the model."""
    deployments = [
        DeploymentConfig(name=f"{name}-{place}".replace("/", "-"), engine="vllm", url=url)
        for place, url in enumerate(urls, 1)
    ]
    return ModelConfig(name=name, aliases=list(aliases), deployments=deployments)


@asynccontextmanager
async def half_ready() -> AsyncIterator[Gateway]:
    """Run a gateway with a model that is ready, one that has half of its engines, and one that has none."""
    async with engine(says(whole(ANSWER))) as behind:
        models = [
            model("org/well", behind.url, aliases=("w",)),
            model("half", behind.url, NOWHERE),
            model("gone", NOWHERE, aliases=("g",)),
        ]
        async with gateway(checked(Config(models=models)), ready=False) as front:
            catalog = front.services.catalog
            await until(lambda: all(one.up or one.reason_down != "not checked yet" for one in catalog.endpoints))
            yield front


async def ready(front: Gateway, model: str | None = None) -> tuple[int, Any]:
    """Ask whether the gateway is ready, or for one model."""
    answer = await front.client.get("/readyz", params={} if model is None else {"model": model})
    return answer.status_code, answer.json()


REFUSED = "no connection: refused"
MODELS = {"org/well": True, "half": True, "gone": False}


@pytest.mark.parametrize(
    ("asked", "status", "models", "lacking"),
    [
        (None, 200, MODELS, {"half-2": REFUSED, "gone-1": REFUSED}),
        ("", 200, MODELS, {"half-2": REFUSED, "gone-1": REFUSED}),
        ("org/well", 200, {"org/well": True}, {}),
        ("w", 200, {"org/well": True}, {}),
        ("half", 200, {"half": True}, {"half-2": REFUSED}),
        ("gone", 503, {"gone": False}, {"gone-1": REFUSED}),
        ("g", 503, {"gone": False}, {"gone-1": REFUSED}),
    ],
)
async def test_a_model_that_can_be_served_is_enough_and_who_is_missing_is_told(
    asked: str | None, status: int, models: dict[str, bool], lacking: dict[str, str]
) -> None:
    async with half_ready() as front:
        says = "ready" if status == 200 else "not ready"
        assert await ready(front, asked) == (status, {"status": says, "models": models, "missing": lacking})


async def test_an_unknown_model_is_404_in_openais_envelope_without_the_others_names() -> None:
    async with half_ready() as front:
        status, body = await ready(front, "nope")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert body["error"]["message"] == "The model 'nope' does not exist."


@pytest.mark.parametrize("asked", [None, "w", "half", "gone"])
async def test_while_draining_nothing_is_ready(asked: str | None) -> None:
    async with half_ready() as front:
        front.services.draining = True
        status, body = await ready(front, asked)
        assert (status, body["status"]) == (503, "draining")


async def test_head_says_the_same_without_a_body() -> None:
    async with half_ready() as front:
        heads = [await front.client.head("/readyz"), await front.client.head("/readyz?model=gone")]
        assert [(answer.status_code, answer.content) for answer in heads] == [(200, b""), (503, b"")]


@pytest.mark.parametrize("asked", [None, "tiny"])
async def test_before_any_engine_has_answered_nothing_is_ready(asked: str | None) -> None:
    models = [ModelConfig(deployments=[DeploymentConfig(name="v", engine="vllm", url=NOWHERE)])]
    async with gateway(checked(Config(models=models)), ready=False) as front:
        assert (await ready(front, asked))[0] == 503


async def test_with_every_circuit_open_nothing_is_ready_and_the_reason_is_told() -> None:
    async with engine(says(whole(ANSWER))) as behind:
        given = Config(models=[model("m", behind.url)], breaker=BreakerConfig(failures=1, open=60.0))
        async with gateway(checked(given)) as front:
            front.services.catalog.endpoints[0].connection.record_failure(False, front.services.clock())
            status, body = await ready(front)
            assert status == 503
            assert body["missing"]["m-1"].startswith("circuit open for another")


# --- without addresses --------------------------------------------------------------------------------------------

TELLING = {"error": {"message": "no connection to http://127.0.0.1:5555/x, 127.0.0.1", "code": 500}}
UNWELL: dict[str, Script] = {
    "an error that holds an address": says(whole(TELLING, "500 Oops")),
    "a body that holds an address": says(whole(TELLING)),
    "a reset": cuts(b""),
    "half an answer": cuts(whole(ANSWER)[:-5]),
    "garbage": says(b"127.0.0.1 \x00\r\n\r\n"),
}


# The body of a health check is not looked at.
UNWELL_AT = [
    (name, path)
    for name, path in product(UNWELL, ("/health", "/v1/models"))
    if (name, path) != ("a body that holds an address", "/health")
]


@pytest.mark.parametrize(("name", "path"), UNWELL_AT)
async def test_an_engine_that_is_not_well_is_named_without_its_address(name: str, path: str) -> None:
    async with engine(UNWELL[name]) as behind:
        del behind.facts[path]
        given = Config(models=[model("m", behind.url)], health=HealthConfig(interval=0.1))
        async with gateway(checked(given), ready=False) as front:
            await until(lambda: front.services.catalog.endpoints[0].reason_down != "not checked yet")
            status, body = await ready(front)
            assert status == 503
            assert body["missing"] == {"m-1": f"health check failed: GET {path}"}


def endpoint(name: str, address: str = "", why: str = "") -> Endpoint:
    """Return a deployment as it is known at the start, or once it is down."""
    found = DeploymentConfig(name=name, engine="vllm", url="http://pods:8000", address=address)
    made = Endpoint(found, BreakerConfig(), 0.0)
    if why:
        made.mark_down(f"{why} http://{address}", why)
    return made


def test_engines_found_behind_a_name_are_counted_under_the_name_of_their_deployment() -> None:
    addresses = ("10.0.0.1", "10.0.0.2", "fd00::1")
    replicas = [endpoint(f"v@{address}", address, why="refused") for address in addresses]
    replicas[1].mark_up([], 0.0)
    other = endpoint("w@10.0.0.9", "10.0.0.9")
    assert missing([*replicas, endpoint("s"), other], [], 0.0) == {
        "s": "not checked yet",
        "v": "2 of 3: refused",
        "w": "not checked yet",
    }


FAILED: list[tuple[Exception, str]] = [
    (ConnectionRefusedError(111, "Connect call failed ('10.0.0.7', 8000)"), REFUSED),
    (OSError(113, "Connect call failed ('10.0.0.7', 8000)"), "no connection"),
    (OSError("Multiple exceptions: ('10.0.0.7', 8000)"), "no connection"),
    (FileNotFoundError(2, "No such file or directory", "/run/secret.sock"), "no connection"),
    (socket.gaierror(-2, "10.0.0.7"), "no connection: the host's name cannot be resolved"),
    (UnicodeError("10.0.0.7"), "no connection: the host's name cannot be resolved"),
    (ssl.SSLCertVerificationError(1, "not 10.0.0.7"), "no connection: TLS failed"),
    (ssl.SSLError(1, "10.0.0.7"), "no connection: TLS failed"),
    (TimeoutError("10.0.0.7"), "no connection in time"),
]


@pytest.mark.parametrize(("error", "told"), FAILED, ids=lambda one: type(one).__name__)
def test_why_there_is_no_connection_is_told_without_an_address(error: Exception, told: str) -> None:
    assert public_reason(error) == told
