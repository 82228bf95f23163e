"""The configuration: what is read, and every fault of a file at once, with its place."""

import tomllib
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from gateway.config import (
    AuthConfig,
    Config,
    ConfigError,
    ConfigSource,
    DeploymentConfig,
    LimitsConfig,
    ModelConfig,
    ServerConfig,
    from_urls,
    load,
    notes,
    size,
)
from gateway.config.reader import NOT_WRITTEN

GOOD = """
[server]
host = "127.0.0.1"
port = 9000
workers = 2
max_body = "1MiB"

[timeouts]
connect = 1

[[models]]
name = "llama-3.1-8b"
aliases = ["llama"]
[[models.deployments]]
name = "vllm-a"
engine = "vllm"
url = "http://10.0.0.5:8000/v1/"
model = "meta-llama/Llama-3.1-8B-Instruct"
weight = 90
api_key_env = "VLLM_API_KEY"
[[models.deployments]]
name = "tgi-a"
engine = "tgi"
url = "http://10.0.0.6:8080/"
weight = 10
"""


def faults(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(text, environ)
    return raised.value.faults


def test_a_good_file_is_read_whole_and_keys_come_from_the_environment() -> None:
    config = load(GOOD, {"VLLM_API_KEY": "s3cret"})
    assert config.server.port == 9000
    assert config.server.max_body_bytes == 2**20
    assert config.timeouts.connect == 1
    (model,) = config.models
    assert (model.name, model.aliases) == ("llama-3.1-8b", ["llama"])
    one, two = model.deployments
    assert (one.url, one.api_key, one.weight) == ("http://10.0.0.5:8000", "s3cret", 90)
    assert (two.url, two.api_key, two.model) == ("http://10.0.0.6:8080", "", "")


@pytest.mark.parametrize(("key", "held"), [("abc\n", "abc"), (" abc ", "abc")])
def test_a_key_loses_the_white_space_around_it(key: str, held: str) -> None:
    assert load(GOOD, {"VLLM_API_KEY": key}).models[0].deployments[0].api_key == held


def test_a_key_that_no_header_can_hold_is_a_fault() -> None:
    assert any("header" in fault for fault in faults(GOOD, VLLM_API_KEY="a\nb"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    assert load(GOOD.replace("127.0.0.1", host), {"VLLM_API_KEY": "k"}).server.host == host


def test_every_fault_is_reported_at_once_with_its_place() -> None:
    text = """
        nonsense = 1
        [server]
        port = "high"
        hots = "x"
        [timeouts]
        connect = 0
        [[models]]
        name = "a"
        [[models.deployments]]
        engine = "vllm"
        [[models.deployments]]
        name = "b"
        engine = "vlm"
        url = 5
        [[models]]
        name = "a"
    """
    found = faults(text)
    places = [fault.split(":")[0] for fault in found]
    assert sorted(places) == [
        "models[0].deployments[0].name",
        "models[0].deployments[0].url",
        "models[0].deployments[1].engine",
        "models[0].deployments[1].url",
        "models[1].deployments",
        "models[1].name",
        "nonsense",
        "server.hots",
        "server.port",
        "timeouts.connect",
    ]
    assert "did you mean host?" in next(fault for fault in found if "hots" in fault)
    assert "expected int, got str" in next(fault for fault in found if "port" in fault)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a = \n", "not valid TOML", "line 1"),
        ("", "models", "at least one engine"),
        (GOOD, "models[0].deployments[0].api_key_env", "VLLM_API_KEY"),
        (GOOD.replace('"vllm"', '"vlm"'), "models[0].deployments[0].engine", "vllm, tgi, openai"),
        (GOOD.replace("http://10.0.0.6:8080/", "10.0.0.6"), "models[0].deployments[1].url", "expected a URL"),
        (GOOD.replace("http://10.0.0.6:8080/", "http://a:b@x"), "models[0].deployments[1].url", "without credentials"),
        (GOOD.replace("http://10.0.0.6:8080/", "http://x:99999"), "models[0].deployments[1].url", "expected a URL"),
        (GOOD.replace("tgi-a", "vllm-a"), "models[0].deployments[1].name", "taken by models[0].deployments[0].name"),
        (GOOD.replace('["llama"]', '["llama-3.1-8b"]'), "models[0].name", "taken"),
        (GOOD.replace("1MiB", "big"), "server.max_body", "32MiB"),
        (GOOD.replace("weight = 10", "weight = -1"), "models[0].deployments[1].weight", ">= 0"),
        (GOOD.replace("127.0.0.1", "0.0.0.0"), "server.host", "--allow-anonymous"),
        (GOOD.replace("127.0.0.1", "::1234"), "server.host", "--allow-anonymous"),
        (GOOD.replace("127.0.0.1", "127.0.0.1.evil.example"), "server.host", "--allow-anonymous"),
        (GOOD.replace("tgi-a", "tgi-\\u0007"), "models[0].deployments[1].name", "printable ASCII"),
        (GOOD + "\napi_key = 'x'", "models[0].deployments[1].api_key", "unknown key"),
        (GOOD + "\naddress = '10.0.0.1'", "models[0].deployments[1].address", "unknown key"),
        (GOOD.replace('"tgi"', '""'), "models[0].deployments[1].engine", "length >= 1"),
        (GOOD.replace('"tgi-a"', '""'), "models[0].deployments[1].name", "length >= 1"),
        (GOOD.replace("http://10.0.0.6:8080/", ""), "models[0].deployments[1].url", "length >= 1"),
        (GOOD + '\ndiscover = "srv"', "models[0].deployments[1].discover", "invalid enum value 'srv'"),
        (GOOD + "\nmax_in_flight = -1", "models[0].deployments[1].max_in_flight", ">= 0"),
        (GOOD.replace("aliases", 'policy = "random"\naliases'), "models[0].policy", "invalid enum value 'random'"),
        (GOOD.replace("aliases", "prefix_bytes = 0\naliases"), "models[0].prefix_bytes", ">= 1"),
        (GOOD.replace("aliases", "hedge_after = -1\naliases"), "models[0].hedge_after", ">= 0"),
        (GOOD + "\n[server.drain]", "server.drain", "expected float"),
        (GOOD.replace("port =", "drain = 0\nport ="), "server.drain", "> 0"),
        (GOOD.replace("port =", "drain_notice = -1\nport ="), "server.drain_notice", ">= 0"),
        (GOOD.replace("port =", "keep_alive = 0\nport ="), "server.keep_alive", "> 0"),
        (GOOD.replace("port =", "workers = 0\nport =").replace("workers = 2", ""), "server.workers", ">= 1"),
        (GOOD + "\n[retries]\nattempts = 0", "retries.attempts", ">= 1"),
        (GOOD + "\n[retries]\nbudget = 2", "retries.budget", "<= 1"),
        (GOOD + "\n[breaker]\nshare = 0", "breaker.share", "> 0"),
        (GOOD + "\n[breaker]\nopens = 1", "breaker.opens", "did you mean open?"),
        (GOOD + "\n[health]\ninterval = 0", "health.interval", "> 0"),
        (GOOD + "\n[admission]\nqueue = -1", "admission.queue", ">= 0"),
        (GOOD + '\n[limits]\nstore = "disk"', "limits.store", "invalid enum value 'disk'"),
        (GOOD + '\n[limits]\nurl = "async+nonsense://x"', "limits.url", "expected redis, rediss"),
        (GOOD + '\n[limits]\nurl = "redis://x:y"', "limits.url", "expected host:port"),
        (GOOD + '\n[limits]\nurl = "redis+sentinel://x:1"', "limits.url", "expected the name of the service"),
        (GOOD + "\nlimits = 1", "models[0].deployments[1].limits", "unknown key"),
    ],
)
def test_a_fault_names_its_place_and_what_was_expected(text: str, place: str, words: str) -> None:
    assert any(fault.startswith(place) and words in fault for fault in faults(text)), faults(text)


@pytest.mark.parametrize(("text", "number"), [("10", 10), ("2KiB", 2048), ("3 MiB", 3 * 2**20), ("1GiB", 2**30)])
def test_sizes(text: str, number: int) -> None:
    assert size(text) == number


def test_engines_by_url_are_models_of_their_own_or_all_behind_one_name() -> None:
    urls = {"vllm": ["http://a", "http://b"], "tgi": ["http://c"], "openai": []}
    keys = {"POINTSMAN_VLLM_API_KEY": "k"}
    apart = from_urls(urls, "", keys)
    assert [(model.name, len(model.deployments)) for model in apart] == [("", 1)] * 3
    names = [model.deployments[0].name for model in apart]
    assert names == ["vllm-1", "vllm-2", "tgi"]
    assert [model.deployments[0].api_key for model in apart] == ["k", "k", ""]
    (together,) = from_urls(urls, "llama", keys)
    assert together.name == "llama"
    assert [one.name for one in together.deployments] == names


def test_the_example_is_in_order_and_has_every_key_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "pointsman.toml").read_text()
    load(text, {})
    written = tomllib.loads(text)
    defaults = msgspec.to_builtins(Config())
    assert set(written) == set(defaults)
    for name in set(defaults) - {"models"}:
        assert written[name] == defaults[name]
    (model,) = written["models"]
    assert set(model) | {"experiment"} == set(ModelConfig.__struct_fields__)
    assert model | {"experiment": None} == msgspec.to_builtins(ModelConfig()) | {
        name: model[name] for name in ("name", "aliases", "deployments")
    }
    shown = {key: value for deployment in model["deployments"] for key, value in deployment.items()}
    assert set(shown) | NOT_WRITTEN | {"api_key_env"} == set(DeploymentConfig.__struct_fields__)
    default = msgspec.to_builtins(DeploymentConfig(name="x", engine="vllm", url="http://x"))
    assert {key for key in default if shown.get(key) == default[key]} >= {"max_in_flight", "discover", "vision"}


# --- what the command line says -------------------------------------------------------------------------------


def test_flags_win_over_the_file_and_engines_by_url_over_its_models(tmp_path: Path) -> None:
    flags = {"--port": 9999, "--host": "127.0.0.2"}
    given = ConfigSource(
        path=tmp_path / "p.toml", urls={"tgi": ["http://t"]}, flags=flags, environ={"VLLM_API_KEY": "k"}
    )
    config = given.config(GOOD)
    assert (config.server.host, config.server.port, config.server.workers) == ("127.0.0.2", 9999, 2)
    assert [model.deployments[0].url for model in config.models] == ["http://t"]
    assert config.timeouts.connect == 1
    asked = msgspec.structs.replace(given, urls={}, flags={})
    beside = config.experiments  # a file whose name depends on where the configuration is
    assert asked.config(GOOD) == msgspec.structs.replace(load(GOOD, {"VLLM_API_KEY": "k"}), experiments=beside)


def test_the_same_command_line_reads_the_file_again_and_says_every_fault_of_flags_and_file() -> None:
    given = ConfigSource(path=Path("p.toml"), flags={"--port": 0})
    with pytest.raises(ConfigError) as raised:
        given.config(GOOD.replace("weight = 90", "weight = -1"))
    places = [fault.split(":")[0] for fault in raised.value.faults]
    assert places == ["models[0].deployments[0].weight", "--port", "models[0].deployments[0].api_key_env"]


@pytest.mark.parametrize(
    ("path", "keys_file", "found"),
    [
        (Path("/etc/p/pointsman.toml"), "keys.toml", "/etc/p/keys.toml"),
        (Path("/etc/p/pointsman.toml"), "/var/keys.toml", "/var/keys.toml"),
        (Path("pointsman.toml"), "keys.toml", "keys.toml"),
        (Path("pointsman.toml"), "", ""),
    ],
)
def test_the_keys_lie_beside_the_file_that_names_them(path: Path, keys_file: str, found: str) -> None:
    text = GOOD + f'[auth]\nkeys_file = "{keys_file}"\n'
    assert ConfigSource(path=path, environ={"VLLM_API_KEY": "k"}).config(text).auth.keys_file == found


def test_leave_for_anybody_is_given_by_the_flag_or_by_the_file() -> None:
    text = GOOD.replace("127.0.0.1", "0.0.0.0")
    for allowed, more in ((True, ""), (False, "[auth]\nallow_anonymous = true\n")):
        given = ConfigSource(path=Path("p.toml"), allow_anonymous=allowed, environ={"VLLM_API_KEY": "k"})
        assert given.config(text + more).auth.allow_anonymous


@pytest.mark.parametrize(
    ("workers", "keys_file", "store", "said"),
    [(2, "k", "memory", 1), (1, "k", "memory", 0), (2, "", "memory", 0), (2, "k", "redis", 0)],
)
def test_several_workers_that_share_limits_without_redis_are_noted(
    workers: int, keys_file: str, store: Literal["memory", "redis"], said: int
) -> None:
    config = Config(
        server=ServerConfig(workers=workers), auth=AuthConfig(keys_file=keys_file), limits=LimitsConfig(store=store)
    )
    found = notes(config)
    assert len(found) == said
    assert all("2 workers" in note for note in found)
