"""How the URL of an engine is read: which paths are asked of what is behind it, by the gateway and by the doctor."""

from asyncio import StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from gateway.cli.doctor.ask import direct
from gateway.config import BreakerConfig, Config, DeploymentConfig, ModelConfig
from gateway.config.base_url import base_url
from gateway.upstream.endpoints import Endpoint
from tests.support.harness import ANSWER, CHAT, FACTS, Asked, Engine, checked, engine, gateway, whole

# The dialect, what follows the host in the URL that was given, the base.
BASES = [
    *((kind, given, "") for kind in ("vllm", "tgi") for given in ("", "/", "/v1", "/v1/")),
    *((kind, given, "/a") for kind in ("vllm", "tgi") for given in ("/a", "/a/", "/a/v1", "/a/v1/")),
    ("vllm", "/v1/a/v1", "/v1/a"),
    *(("openai", given, "/v1") for given in ("", "/", "/v1", "/v1/")),
    *(("openai", given, "/api/v3") for given in ("/api/v3", "/api/v3/")),
    ("openai", "/a/v1", "/a/v1"),
    ("openai", "/v1beta/openai/", "/v1beta/openai"),
    ("openai", "/openai", "/openai"),
]
by_base = pytest.mark.parametrize(("kind", "given", "base"), BASES)
VERSION = {"vllm": "/v1", "tgi": "/v1", "openai": ""}  # what a base lacks of the paths of OpenAI's API


def deployment(kind: str, url: str) -> DeploymentConfig:
    """Return a deployment as the configuration has it once it is checked."""
    models = [ModelConfig(name="tiny", deployments=[DeploymentConfig(name="x", engine=kind, url=url)])]
    return checked(Config(models=models)).models[0].deployments[0]


def served(base: str, kind: str) -> dict[str, bytes]:
    """Return what an engine answers that has its paths below a base."""
    api = base + VERSION[kind]
    return {
        api + "/models": whole(FACTS["/v1/models"]),
        api + "/chat/completions": whole(ANSWER),
        api + "/embeddings": whole({"object": "list", "data": [], "model": "own"}),
        **{base + path: whole(FACTS[path]) for path in ("/info", "/health", "/metrics")},
    }


@asynccontextmanager
async def engine_below(base: str, kind: str) -> AsyncIterator[tuple[Engine, list[str]]]:
    """Run an engine that has its paths below a base; give it, and all other paths that it was asked for."""
    answers, unknown = served(base, kind), []

    async def script(asked: Asked, writer: StreamWriter) -> None:
        if asked.path not in answers:
            unknown.append(asked.path)
        writer.write(answers.get(asked.path, whole({"detail": "Not Found"}, "404 Not Found")))

    async with engine(script) as behind:
        behind.facts = {}
        yield behind, unknown


@by_base
def test_a_base_is_what_was_given_without_what_the_dialect_adds(kind: str, given: str, base: str) -> None:
    read = base_url(f"http://host:1{given}", kind)
    assert read == f"http://host:1{base}"
    assert base_url(read, kind) == read


@by_base
async def test_health_facts_and_requests_are_asked_below_the_base(kind: str, given: str, base: str) -> None:
    async with engine_below(base, kind) as (behind, unknown):
        models = [ModelConfig(deployments=[deployment(kind, behind.url + given)])]
        async with gateway(Config(models=models)) as front:
            assert (await front.post(CHAT)).status_code == 200
            assert kind == "tgi" or (await front.post({"model": "tiny", "input": "x"}, "/v1/embeddings")).is_success
            (endpoint,) = front.services.catalog.endpoints
            await front.services.prober.check(endpoint)  # its metrics, too
            assert endpoint.up
        assert unknown == []


@by_base
async def test_the_doctor_asks_below_the_same_base(kind: str, given: str, base: str) -> None:
    async with engine_below(base, kind) as (behind, unknown), direct(deployment(kind, behind.url + given)) as line:
        facts = await line.get("/info" if kind == "tgi" else "/v1/models")
        chat = await line.post("/v1/chat/completions", CHAT)
        assert (facts.status, chat.status, unknown) == (200, 200, [])


async def test_an_engine_behind_a_discovered_address_is_asked_below_the_same_base() -> None:
    found = msgspec.structs.replace(deployment("openai", "http://engines/api/v3"), address="10.0.0.7")
    endpoint = Endpoint(found, BreakerConfig(), 0)
    assert endpoint.address.host == "10.0.0.7"
    assert endpoint.requests.target("/v1/models") == "/api/v3/models"
