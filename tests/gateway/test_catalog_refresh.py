"""An engine that was given another model a moment ago is asked for it before a client is told that there is none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx
import pytest

from gateway.api.passthrough import JSON_PATHS
from gateway.config import Config, DeploymentConfig, HealthConfig, ModelConfig, ServerConfig, from_urls
from gateway.upstream.refresh import INTERVAL, CatalogRefresh
from tests.support.clock import Clock
from tests.support.harness import (
    ANSWER,
    Asked,
    Engine,
    Gateway,
    checked,
    engine,
    gateway,
    hangs,
    says,
    settled,
    until,
    when,
    whole,
)

PATHS = ("/v1/chat/completions", "/v1/completions", *JSON_PATHS, "/v1/audio/transcriptions", "/v1/models/", "/readyz")
TGI_PATHS = ("/generate", "/generate_stream", "/", "/info")
MESSAGES = [{"role": "user", "content": "hi"}]
SELDOM = HealthConfig(interval=3600.0)  # what the health checks see is not what these tests are about
TEXT_ANSWER = ANSWER | {"choices": [{"index": 0, "text": "x", "logprobs": None, "finish_reason": "stop"}]}


def lists(behind: Engine, *names: str) -> None:
    """Have an engine serve these models from now on."""
    behind.facts["/v1/models"] = {"data": [{"id": name, "max_model_len": 1024} for name in names]}


async def answers(asked: Asked, writer: Any) -> None:
    """Answer any path as an engine does, well enough for the gateway."""
    writer.write(whole(TEXT_ANSWER if asked.path == "/v1/completions" else ANSWER))


@asynccontextmanager
async def found(*behind: Engine, tgi_model: str = "", patience: float = 60.0) -> AsyncIterator[Gateway]:
    """Run a gateway that asks engines what they serve, and waits for their answers on the busiest machine."""
    models = from_urls({"vllm": [one.url for one in behind]}, "", {})
    given = Config(models=models, health=SELDOM, server=ServerConfig(tgi_model=tgi_model))
    async with gateway(checked(given)) as front:
        services = front.services
        services.catalog_refresh = CatalogRefresh(services.catalog, services.upstream, monotonic, patience=patience)
        yield front


async def asked(front: Gateway, path: str, model: str) -> httpx.Response:
    """Ask a path for a model."""
    if path in ("/v1/models/", "/readyz", "/info"):
        return await front.client.get(path + model if path == "/v1/models/" else f"{path}?model={model}")
    if path == "/v1/audio/transcriptions":
        return await front.client.post(path, data={"model": model}, files={"file": b"x"})
    body = {"inputs": "hi"} if path in TGI_PATHS else {"messages": MESSAGES, "prompt": "hi", "input": "hi"}
    return await front.post(body | ({} if path in TGI_PATHS else {"model": model}), path)


@pytest.mark.parametrize("path", PATHS)
async def test_an_adapter_is_served_by_the_first_request_after_it_was_loaded(path: str) -> None:
    async with engine(answers) as behind:
        lists(behind, "base")
        async with found(behind) as front:
            lists(behind, "base", "org/lora")
            assert (await asked(front, path, "org/lora")).status_code == 200


@pytest.mark.parametrize("path", TGI_PATHS)
async def test_tgis_paths_speak_for_an_adapter_as_soon_as_it_is_loaded(path: str) -> None:
    async with engine(answers) as behind:
        lists(behind, "base")
        async with found(behind, tgi_model="lora") as front:
            lists(behind, "base", "lora")
            answer = await asked(front, path, "")
            assert answer.status_code == 200
            assert "does not exist" not in answer.text
            assert path == "/info" or behind.asked[0].json["model"] == "lora"


async def test_an_adapter_is_served_even_where_it_was_asked_for_just_before_it_was_loaded() -> None:
    async with engine(answers) as behind:
        lists(behind, "base")
        async with found(behind) as front:
            assert (await asked(front, PATHS[0], "lora")).status_code == 404
            lists(behind, "base", "lora")
            assert (await asked(front, PATHS[0], "lora")).status_code == 200


async def test_an_adapter_that_was_unloaded_is_gone_with_the_next_check_or_the_next_unknown_name() -> None:
    async with engine(answers) as behind:
        lists(behind, "base", "one", "two")
        async with found(behind) as front:
            lists(behind, "base", "two")
            assert (await asked(front, PATHS[0], "nope")).status_code == 404
            assert list(front.services.catalog.routes) == ["base", "two"]
            lists(behind, "base")
            await front.services.prober.check(front.services.catalog.endpoints[0])
            assert list(front.services.catalog.routes) == ["base"]


async def test_each_engine_that_says_what_it_serves_is_asked_and_those_behind_a_name_are_not() -> None:
    async with engine(answers) as one, engine(answers) as two, engine(answers) as named:
        for behind in (one, two, named):
            lists(behind, "base")
        models = from_urls({"vllm": [one.url, two.url]}, "", {})
        mine = DeploymentConfig(name="mine", engine="vllm", url=named.url)
        models.append(ModelConfig(name="mine", deployments=[mine]))
        async with gateway(checked(Config(models=models, health=SELDOM))) as front:
            await settled(lambda: sum(map(listed, (one, two, named))))
            lists(two, "base", "lora")
            before = [listed(behind) for behind in (one, two, named)]
            answer = await asked(front, PATHS[0], "lora")
            assert answer.headers["x-pointsman-deployment"] == "vllm-2"
            assert [listed(behind) for behind in (one, two, named)] == [before[0] + 1, before[1] + 1, before[2]]


async def test_an_engine_that_does_not_list_its_models_delays_a_404_by_a_moment_and_stays_up() -> None:
    async with engine(answers) as well, engine(answers) as hung:
        for behind in (well, hung):
            lists(behind, "base")
        async with found(well, hung, patience=2.0) as front:
            hung.hung.add("/v1/models")
            lists(well, "base", "lora")
            answers_to = await asyncio.gather(*(asked(front, PATHS[0], name) for name in ("lora", "nope")))
            assert [answer.status_code for answer in answers_to] == [200, 404]
            assert all(endpoint.up for endpoint in front.services.catalog.endpoints)


@pytest.mark.parametrize("answer", [whole({"error": "x"}, "500 Oops"), whole(b"{"), whole({"data": None}), b"HTTP/9 x"])
async def test_an_engine_that_lists_its_models_badly_keeps_those_it_has(answer: bytes) -> None:
    async with engine(answers) as behind:
        lists(behind, "base")
        async with found(behind) as front:
            del behind.facts["/v1/models"]
            behind.script = says(answer)
            assert (await asked(front, PATHS[0], "nope")).status_code == 404
            assert list(front.services.catalog.routes) == ["base"]
            assert front.services.catalog.endpoints[0].up


# --- how often ----------------------------------------------------------------------------------------------------


def listed(behind: Engine) -> int:
    """Return how often an engine was asked what it serves."""
    return behind.gets["/v1/models"]


def pauses(clock: Clock) -> Callable[[float], Awaitable[None]]:
    """Return a pause that ends when the test has let so much time pass."""

    async def pause(seconds: float) -> None:
        ends = clock.now + seconds
        while clock.now < ends:  # noqa: ASYNC110 - the clock is the test's
            await asyncio.sleep(0)

    return pause


@asynccontextmanager
async def refreshing(behind: Engine) -> AsyncIterator[tuple[CatalogRefresh, Clock, Gateway]]:
    async with found(behind) as front:
        await settled(lambda: listed(behind))
        clock = Clock()
        services = front.services
        yield CatalogRefresh(services.catalog, services.upstream, clock, pauses(clock), 60.0), clock, front


async def test_all_who_wait_share_the_answer_of_an_engine_that_is_asked_once_a_second() -> None:
    async with engine(answers) as behind:
        lists(behind, "base")
        async with refreshing(behind) as (refresh, clock, _front):
            before = listed(behind)
            await asyncio.gather(*(refresh.wait() for _ in range(100)))
            assert listed(behind) == before + 1
            clock.now += INTERVAL / 2
            waiting = [asyncio.ensure_future(refresh.wait()) for _ in range(100)]
            await settled(lambda: listed(behind))
            assert listed(behind) == before + 1
            clock.now += INTERVAL / 2
            await asyncio.gather(*waiting)
            assert listed(behind) == before + 2


async def test_one_who_comes_while_the_engines_are_asked_has_them_asked_again() -> None:
    """What they answer may be older than the request."""
    async with engine(answers) as behind:
        lists(behind, "base")
        async with refreshing(behind) as (refresh, clock, front):
            late = asyncio.Event()
            behind.script = when(late.is_set, whole(behind.facts.pop("/v1/models")))
            before = listed(behind)
            first = asyncio.ensure_future(refresh.wait())
            await until(lambda: listed(behind) == before + 1)
            clock.now += INTERVAL
            lists(behind, "base", "lora")
            second = asyncio.ensure_future(refresh.wait())
            await settled()
            late.set()
            await second
            assert first.done()
            assert "lora" in front.services.catalog.routes


async def test_clients_that_leave_do_not_have_the_engines_asked_more_often_and_leave_nobody_waiting() -> None:
    async with engine(answers) as behind:
        lists(behind, "base")
        async with refreshing(behind) as (refresh, clock, _front):
            behind.hung.add("/v1/models")
            before = listed(behind)
            for _ in range(20):
                leaving = asyncio.ensure_future(refresh.wait())
                await settled(lambda: listed(behind))
                leaving.cancel()
                await asyncio.wait([leaving])
            assert listed(behind) == before + 1
            behind.hung.clear()
            clock.now += INTERVAL
            await refresh.wait()
            assert listed(behind) == before + 2


async def test_a_client_that_leaves_while_the_engines_are_asked_is_noticed() -> None:
    async with engine(hangs()) as behind:
        lists(behind, "base")
        async with found(behind) as front:
            behind.hung.add("/v1/models")
            before = listed(behind)
            asking = asyncio.ensure_future(asked(front, PATHS[0], "nope"))
            await until(lambda: listed(behind) == before + 1)
            asking.cancel()
            await until(lambda: not front.services.sweep.open)
