"""A changed file is in force without a restart and without a failed request; a faulty one changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from backends.base import ServedModel
from gateway.config import BreakerConfig, Config, DeploymentConfig, HealthConfig, ModelConfig
from gateway.upstream.models import Catalog
from tests.support.harness import Script, checked, engine
from tests.support.processes import Served, answers, become, eventually, held, replace, served, streaming, written


@asynccontextmanager
async def over(tmp_path: Path, *scripts: Script) -> AsyncIterator[tuple[Served, Path, list[str]]]:
    """Run a gateway over the first of several scripted engines, as the model `m`; give it, its file and all URLs."""
    async with AsyncExitStack() as stack:
        urls = [(await stack.enter_async_context(engine(script))).url for script in scripts]
        file = tmp_path / "pointsman.toml"
        file.write_text(written({"m": {"v": urls[0]}}))
        yield await stack.enter_async_context(served(file)), file, urls


async def test_a_new_model_answers_soon_and_a_stream_in_flight_ends_as_it_began(tmp_path: Path) -> None:
    event = asyncio.Event()
    async with over(tmp_path, held(event), answers()) as (front, file, urls), streaming(front, "m") as stream:
        assert (await front.chat("new")).status_code == 404

        async def asked() -> int:
            return (await front.chat("new")).status_code

        replace(file, written({"new": {"w": urls[1]}}))
        await become(asked, 200)
        assert (await front.chat("m")).status_code == 404  # its engine is gone from the file
        assert not stream.done()
        event.set()
        assert (await stream).endswith("data: [DONE]\n\n")


async def test_no_request_fails_while_the_file_is_changed_again_and_again(tmp_path: Path) -> None:
    async with over(tmp_path, answers(), answers(), answers()) as (front, file, (a, b, c)):
        statuses: list[int] = []
        done = asyncio.Event()

        async def load(stream: bool) -> None:
            while not done.is_set():
                answer = await front.chat("m", stream=stream)
                finished = not stream or answer.text.endswith("data: [DONE]\n\n")
                statuses.append(answer.status_code if finished else 0)

        loading = [asyncio.ensure_future(load(stream)) for stream in (True, False)]
        for step, (text, heard) in enumerate(
            [
                (written({"m": {"v": f"{a}\nweight = 3"}, "step-1": {"x": a}}), "x at "),
                (written({"m": {"v": a, "w": b}, "step-2": {"y": a}}), "w at "),
                (written({"m": {"w": b}, "step-3": {"z": b}}, "[timeouts]\nconnect = 1"), "z at "),
                (written({"m": {"w": c}, "step-4": {"u": c}}), f"w at {c}"),
                (written({"m": {"w": c, "v": a}, "step-5": {"t": c}}, "[admission]\nmax_in_flight = 9"), "t at "),
            ],
            1,
        ):
            replace(file, text)
            await eventually(lambda heard=heard: heard in front.said)  # type: ignore[misc]  # bound at once
            assert (await front.chat(f"step-{step}")).status_code == 200
        done.set()
        await asyncio.gather(*loading)
        assert len(statuses) > 50
        assert set(statuses) == {200}


async def test_a_faulty_file_changes_nothing_and_every_fault_is_said_with_its_place(tmp_path: Path) -> None:
    async with over(tmp_path, answers()) as (front, file, (url,)):
        replace(file, written({"m": {"v": url}, "n": {"v": "nonsense"}}, "[server]\nprot = 1"))
        await eventually(lambda: "stays in force" in front.said)
        for fault in (
            "server.prot: unknown key; did you mean port?",
            "models[1].deployments[0].name: the deployment v is taken by models[0].deployments[0].name",
            "models[1].deployments[0].url: expected a URL",
        ):
            assert f"{file}: {fault}" in front.said
        assert (await front.chat("m")).status_code == 200
        assert (await front.chat("n")).status_code == 404
        assert "Traceback" not in front.said

        again = '[server]\nhost = "localhost"\nworkers = 3\n'
        replace(file, written({"m": {"v": url}}, again))
        await eventually(lambda: "server.workers: changed; the new value takes effect after a restart" in front.said)
        assert "server.host: changed; the new value takes effect after a restart" in front.said
        assert "server.port" not in front.said  # the flag wins
        assert (await front.chat("m")).status_code == 200


# --- what an engine that stays keeps ----------------------------------------------------------------------------

ENGINE = DeploymentConfig(name="a", engine="vllm", url="http://a", api_key="k")


def of(deployment: DeploymentConfig, **more: object) -> Config:
    given = checked(Config(models=[ModelConfig(name="m", deployments=[deployment])]))
    return msgspec.structs.replace(given, **more)


def changed(**more: object) -> DeploymentConfig:
    return msgspec.structs.replace(ENGINE, **more)


def used() -> Catalog:
    """Return a catalog whose engine is up, at work, and left alone by its breaker."""
    catalog = Catalog(of(ENGINE), 1)
    (endpoint,) = catalog.endpoints
    endpoint.mark_up([ServedModel("own", "own", 100)], 0.0)
    endpoint.in_flight = 3
    for _ in range(5):
        endpoint.breaker.record_failure(False, 10.0)
    assert not endpoint.breaker.allows(10.0)
    return catalog


@pytest.mark.parametrize(
    "after", [changed(weight=7.0), changed(max_in_flight=2), changed(vision=True), changed(model="own")], ids=str
)
def test_an_engine_that_stays_keeps_what_is_known_of_it(after: DeploymentConfig) -> None:
    catalog = used()
    before = catalog.endpoints[0]
    catalog.replace(of(after))
    (endpoint,) = catalog.endpoints
    assert endpoint is before
    assert (endpoint.up, endpoint.in_flight, endpoint.breaker.allows(10.0)) == (True, 3, False)
    now = (endpoint.weight, endpoint.max_in_flight, endpoint.vision, endpoint.model)
    assert now == (after.weight, after.max_in_flight, after.vision, after.model)
    assert [candidate.endpoint for candidate in catalog.find("m").candidates] == [endpoint]


def test_an_engine_that_stays_is_judged_by_the_rules_of_today() -> None:
    catalog = Catalog(of(ENGINE), 1)
    catalog.replace(of(ENGINE, breaker=BreakerConfig(failures=1, open=7.0), health=HealthConfig(slow_start=100.0)))
    (endpoint,) = catalog.endpoints
    assert endpoint.breaker.record_failure(False, 10.0)
    assert not endpoint.breaker.allows(16.9)
    endpoint.mark_up([], 10.0)
    assert endpoint.effective_weight(60.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "after", [changed(url="http://b"), changed(engine="openai"), changed(name="b"), changed(api_key="other")], ids=str
)
def test_another_engine_in_its_place_begins_anew(after: DeploymentConfig) -> None:
    catalog = used()
    catalog.replace(of(after))
    (endpoint,) = catalog.endpoints
    assert (endpoint.up, endpoint.in_flight, endpoint.breaker.allows(10.0)) == (False, 0, True)
    head = endpoint.requests.head("GET", "/x", {}, None)
    assert b"host: b\r\n" in head if "//b" in after.url else b"host: a\r\n" in head
    assert b"authorization: Bearer %b\r\n" % after.api_key.encode() in head
