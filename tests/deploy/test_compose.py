"""compose.yaml and the image: each file, port, host and option they name is there, and each image has its version."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.__main__ import main
from gateway.config import ConfigSource
from gateway.config.tables import Config
from tests.deploy.promtool import DEPLOY, read

ROOT = DEPLOY.parent
COMPOSE = read(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN = "pointsman:local"
# Where each listens inside its container: our own by their configuration, the rest by their images' defaults.
PORTS = {"redis": {6379}, "prometheus": {9090}, "grafana": {3000}, "sim-vllm": {8000}, "sim-tgi": {8001}}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def having(key: str) -> list[str]:
    """Return the services that say something under a key."""
    return [name for name, service in SERVICES.items() if key in service]


def env(path: Path) -> dict[str, str]:
    """Return what an env file sets."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def filled(text: str, values: dict[str, str]) -> str:
    """Return a text with compose's ${NAME:+more} and ${NAME} filled in."""
    text = re.sub(r"\$\{(\w+):\+((?:[^{}]|\{\w+\})*)\}", lambda found: found[2] if values.get(found[1]) else "", text)
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)


def settings(**urls: list[str]) -> Config:
    """Return the gateway's configuration in compose."""
    path = DEPLOY / "compose.toml"
    return ConfigSource(path=path, urls=urls).config(path.read_text())


def listening() -> dict[str, set[int]]:
    """Return the ports of each service."""
    collector = read(DEPLOY / "otel/collector.yaml")
    received = {urlsplit(f"//{one['endpoint']}").port for one in collector["receivers"]["otlp"]["protocols"].values()}
    (reader,) = collector["service"]["telemetry"]["metrics"]["readers"]
    shown = reader["pull"]["exporter"]["prometheus"]["port"]
    return PORTS | {"pointsman": {settings(vllm=["http://x"]).server.port}, "otel-collector": {*received, shown}}


def named() -> list[str]:
    """Return host:port of everything that one service asks of another."""
    made = settings(vllm=["http://x"])
    scraped = read(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"]
    (source,) = read(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    demo = env(DEPLOY / "demo.env")
    urls = [made.limits.url, made.cache.url, made.telemetry.otlp_endpoint, source["url"], demo["VLLM_URL"]]
    urls += [demo["TGI_URL"], SERVICES["traffic"]["entrypoint"][2]]
    targets = [target for job in scraped for static in job["static_configs"] for target in static["targets"]]
    return [*(urlsplit(url).netloc for url in urls), *targets]


@pytest.mark.parametrize("place", named())
def test_what_a_service_asks_is_another_that_listens_there(place: str) -> None:
    host, port = place.split(":")
    assert host in SERVICES
    assert int(port) in listening()[host]


@pytest.mark.parametrize("name", having("ports"))
def test_a_port_is_published_on_loopback_alone_and_somebody_listens_there(name: str) -> None:
    for published in SERVICES[name]["ports"]:
        address, _, inside = published.split(":")
        assert address == "127.0.0.1"
        assert int(inside) in listening()[name]


@pytest.mark.parametrize("name", having("volumes"))
def test_what_a_service_mounts_is_there(name: str) -> None:
    for volume in SERVICES[name]["volumes"]:
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (DEPLOY / source).exists()
        assert source in COMPOSE["volumes"] or volume.endswith(":ro")


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_our_own_or_of_one_version(name: str) -> None:
    image = SERVICES[name]["image"]
    assert image == OWN or re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-alpine)?", image)


@pytest.mark.parametrize("name", having("build"))
def test_what_runs_our_code_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert (service["image"], service["read_only"], service["cap_drop"]) == (OWN, True, ["ALL"])
    assert "user" not in service


@pytest.mark.parametrize("name", ["pointsman", "sim-vllm", "sim-tgi"])
def test_a_command_is_one_that_pointsman_takes(name: str) -> None:
    words = shlex.split(filled(SERVICES[name]["command"], env(DEPLOY / "demo.env")))
    command = main.commands[words[0]]
    asked = command.make_context(words[0], words[1:])
    assert asked.params.get("vllm") == (("http://sim-vllm:8000",) if name == "pointsman" else None)


@pytest.mark.parametrize("urls", [{"vllm": ["http://a:1"]}, {"tgi": ["http://a:1"]}])
def test_the_gateway_takes_its_configuration_over_one_engine_or_the_other(urls: dict[str, list[str]]) -> None:
    made = settings(**urls)
    assert len(made.models) == 1
    assert made.server.host == "0.0.0.0"


def test_the_demo_is_of_simulators_alone_and_they_run_only_there() -> None:
    demo = env(DEPLOY / "demo.env")
    only = {name for name, service in SERVICES.items() if service.get("profiles") == [demo["COMPOSE_PROFILES"]]}
    assert only == {"sim-vllm", "sim-tgi", "traffic"}
    for name in only:
        assert demo["MODEL"] in str(SERVICES[name].get("command")) + str(SERVICES[name].get("entrypoint"))


def test_compose_waits_for_what_is_in_flight() -> None:
    server = settings(vllm=["http://x"]).server
    assert int(SERVICES["pointsman"]["stop_grace_period"].removesuffix("s")) > server.drain_notice + server.drain


def test_the_image_holds_what_the_package_is_built_from_and_nothing_else() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    taken = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    built = {*wheel["packages"], *wheel["force-include"], *project["project"]["license-files"]}
    assert "*" in ignored
    assert taken == copied == built | {"pyproject.toml", "requirements.lock", project["project"]["readme"]}
    assert all((ROOT / name).exists() for name in taken)


def test_the_image_is_of_one_version_locked_and_runs_as_nobody_special() -> None:
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M))
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases.pop())
    assert "-c requirements.lock" in DOCKERFILE
    assert re.search(r"^USER [1-9]\d+$", DOCKERFILE, re.M)
    assert "/healthz" in DOCKERFILE
