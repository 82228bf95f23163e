"""Engines behind a name: one deployment for each address, as they come and go."""

import asyncio
import ssl
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway import services
from gateway.config import BreakerConfig, Config, DeploymentConfig, ModelConfig
from gateway.upstream import discovery
from gateway.upstream.discovery import Discovery
from gateway.upstream.endpoints import Endpoint
from tests.support.harness import CHAT, MODEL, Engine, Script, checked, gateway, until
from tests.support.processes import answers, held

NAME = "engines.test"


class Names(dict[str, list[str] | Exception]):
    """What DNS says."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """Answer as `discovery.resolve` does."""
        found = self[host]
        if isinstance(found, Exception):
            raise found
        return found


def configured(url: str = f"http://{NAME}:8000", engine: str = "vllm", ca_file: str = "") -> Config:
    """Return a model with one engine that is found by name, and one that is not."""
    found = DeploymentConfig(name="v", engine=engine, url=url, discover="dns", weight=6.0, ca_file=ca_file)
    return checked(Config(models=[ModelConfig(name=MODEL, deployments=[found])]))


def deployments(models: list[ModelConfig]) -> list[tuple[str, str, float]]:
    return [(one.name, one.address, one.weight) for model in models for one in model.deployments]


async def test_each_address_is_a_deployment_and_they_share_the_weight() -> None:
    fixed = DeploymentConfig(name="s", engine="tgi", url="http://s", weight=5.0)
    models = [*configured().models, ModelConfig(name="other", deployments=[fixed])]
    made = Discovery(Names({NAME: ["10.0.0.1", "10.0.0.2", "fd00::1"]}).resolve)
    assert deployments(made.expanded(models)) == [("v", "", 6.0), ("s", "", 5.0)]  # until it has been looked up
    assert await made.look(models)
    found = [(f"v@{address}", address, 2.0) for address in ("10.0.0.1", "10.0.0.2", "fd00::1")]
    assert deployments(made.expanded(models)) == [*found, ("s", "", 5.0)]


async def test_a_lookup_says_whether_an_address_has_come_or_gone() -> None:
    names, models = Names(), configured().models
    made = Discovery(names.resolve)
    changes = []
    for addresses in (["10.0.0.1"], ["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], ["10.0.0.2"], ["10.0.0.2"]):
        names[NAME] = addresses
        changes.append(await made.look(models))
    assert changes == [True, False, True, True, False]
    assert deployments(made.expanded(models)) == [("v@10.0.0.2", "10.0.0.2", 6.0)]


async def test_the_models_are_asked_for_anew_and_a_change_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "INTERVAL", 0.0)
    made = Discovery(Names({NAME: ["10.0.0.1"]}).resolve)
    models: list[ModelConfig] = []
    told: list[int] = []
    running = asyncio.ensure_future(made.run(lambda: models, lambda: told.append(len(models))))
    try:
        await asyncio.sleep(0)
        models += configured().models  # as a reload brings them
        await until(lambda: told)
        assert told == [1]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("failure", [OSError(2, "Name or service not known"), UnicodeError("label too long")])
async def test_a_look_up_that_fails_keeps_what_was_known_is_said_once_and_holds_up_no_other_name(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    names = Names({NAME: ["10.0.0.1"], "other.test": ["10.0.1.1"]})
    other = DeploymentConfig(name="o", engine="vllm", url="http://other.test", discover="dns")
    models = [*configured().models, ModelConfig(name="other", deployments=[other])]
    made = Discovery(names.resolve)
    await made.look(models)
    names[NAME], names["other.test"] = failure, ["10.0.1.2"]
    for _ in range(3):
        await made.look(models)
    assert [name for name, *_ in deployments(made.expanded(models))] == ["v@10.0.0.1", "o@10.0.1.2"]
    assert caplog.text.count(f"v: DNS lookup of {NAME} failed: {failure}") == 1


async def test_the_systems_own_look_up_gives_each_address_once_in_order() -> None:
    assert await discovery.resolve("127.0.0.2", 80) == ["127.0.0.2"]
    found = await discovery.resolve("localhost", 80)
    assert "127.0.0.1" in found
    assert found == sorted(set(found))
    with pytest.raises((OSError, UnicodeError)):
        await discovery.resolve("no..name", 80)


@pytest.mark.parametrize(
    ("url", "address", "connected", "target", "host", "server_name"),
    [
        ("http://e.test:8000", "10.0.0.1", ("10.0.0.1", 8000), "/x", "e.test:8000", ""),
        ("http://e.test/base", "fd00::1", ("fd00::1", 80), "/base/x", "e.test", ""),
        ("https://e.test", "10.0.0.1", ("10.0.0.1", 443), "/x", "e.test", "e.test"),
        ("https://e.test:8443", "fd00::1", ("fd00::1", 8443), "/x", "e.test:8443", "e.test"),
        ("https://e.test", "", ("e.test", 443), "/x", "e.test", "e.test"),
        ("http://[fd00::2]:8000", "", ("fd00::2", 8000), "/x", "[fd00::2]:8000", ""),
        ("http://bücher.test", "", ("xn--bcher-kva.test", 80), "/x", "xn--bcher-kva.test", ""),
    ],
)
def test_an_address_is_asked_under_its_name(
    url: str, address: str, connected: tuple[str, int], target: str, host: str, server_name: str
) -> None:
    endpoint = Endpoint(DeploymentConfig(name="v", engine="vllm", url=url, address=address), BreakerConfig(), 0.0)
    where = endpoint.address
    assert (where.host, where.port) == connected
    assert endpoint.requests.target("/x") == target
    assert (where.host_header, where.server_name) == (host, server_name)


# --- over real sockets ------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(
    script: Script, address: str, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Engine, int]]:
    """Run a scripted engine at an address; give it and its port."""
    made = Engine(script)
    async with await asyncio.start_server(made.serve, address, port, ssl=tls) as server:
        yield made, server.sockets[0].getsockname()[1]
        server.close()
        for writer in made.writers:
            writer.close()


async def test_each_address_is_asked_by_name_and_one_that_goes_finishes_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = Names({NAME: ["127.0.0.1", "127.0.0.2"]})
    monkeypatch.setattr(services, "resolve", names.resolve)
    event = asyncio.Event()
    async with (
        listening(held(event), "127.0.0.1") as (one, port),
        listening(held(event), "127.0.0.2", port) as (two, _),
        gateway(configured(f"http://{NAME}:{port}"), ready=False) as front,
    ):
        await until(lambda: [endpoint.up for endpoint in front.services.catalog.endpoints] == [True, True])
        for _ in range(20):
            answer = await front.post(CHAT)
            assert answer.status_code == 200
            assert answer.headers["x-pointsman-deployment"] in ("v@127.0.0.1", "v@127.0.0.2")
        assert one.asked
        assert two.asked
        assert {asked.headers["host"] for asked in one.asked + two.asked} == {f"{NAME}:{port}"}

        before = len(two.asked)
        streams = [asyncio.ensure_future(front.post(CHAT | {"stream": True})) for _ in range(8)]
        await until(lambda: len(one.asked) + len(two.asked) == 28 and len(two.asked) > before)
        names[NAME] = ["127.0.0.1"]
        assert await front.services.discovery.look(front.services.reload.written.models)
        front.services.reload.renew()
        assert [endpoint.name for endpoint in front.services.catalog.endpoints] == ["v@127.0.0.1"]
        before = len(two.asked)
        assert {(await front.post(CHAT)).status_code for _ in range(5)} == {200}
        event.set()
        for stream in streams:
            assert (await stream).text.endswith("data: [DONE]\n\n")
        assert len(two.asked) == before


async def test_an_address_is_asked_over_tls_for_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -addext subjectAltName=DNS:{NAME}"
    made = await asyncio.create_subprocess_exec(*command.split(), "-keyout", key, "-out", cert, stderr=DEVNULL)
    assert await made.wait() == 0
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    named: list[str | None] = []
    tls.sni_callback = lambda _, name, __: named.append(name)
    monkeypatch.setattr(services, "resolve", Names({NAME: ["127.0.0.1"]}).resolve)
    async with (
        listening(answers(), "127.0.0.1", tls=tls) as (behind, port),
        gateway(configured(f"https://{NAME}:{port}", ca_file=str(cert)), ready=False) as front,
    ):
        await until(lambda: front.services.catalog.endpoints[0].up)
        assert (await front.post(CHAT)).status_code == 200
        assert set(named) == {NAME}
        assert behind.asked[0].headers["host"] == f"{NAME}:{port}"
