"""The configuration as it is written: a file's text, URLs, flags; made of each, and not yet checked."""

import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.config.reader import read_table, read_value
from gateway.config.tables import Config, ConfigError, DeploymentConfig, ModelConfig, ServerConfig

KEY_VARIABLES = {"vllm": "POINTSMAN_VLLM_API_KEY", "tgi": "POINTSMAN_TGI_API_KEY", "openai": "POINTSMAN_OPENAI_API_KEY"}


def read(text: str, faults: list[str]) -> Config:
    """Read `pointsman.toml`, each value by itself, and note every fault. Raises ConfigError if it is not TOML."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not valid TOML: {error}"]) from error
    config = read_table(table, Config, "", faults)
    assert isinstance(config, Config)
    return config


def from_urls(urls: Mapping[str, list[str]], model: str, environ: Mapping[str, str]) -> list[ModelConfig]:
    """Return the models of engines given by URL alone: what each serves is asked of it, or called `model`."""
    deployments = []
    for engine, given in urls.items():
        for place, url in enumerate(given):
            name = engine if len(given) == 1 else f"{engine}-{place + 1}"
            key = environ.get(KEY_VARIABLES[engine], "")
            deployments.append(DeploymentConfig(name=name, engine=engine, url=url, api_key=key))
    if model:
        return [ModelConfig(name=model, deployments=deployments)]
    return [ModelConfig(deployments=[deployment]) for deployment in deployments]


def with_flags(server: ServerConfig, flags: Mapping[str, Any], faults: list[str]) -> ServerConfig:
    """Return `[server]` with the values of flags such as `--port`, noting those that cannot be."""
    fields = {f"--{field.name}": field for field in msgspec.structs.fields(ServerConfig)}
    read = {name: read_value(value, fields[name], name, faults) for name, value in flags.items()}
    return msgspec.structs.replace(server, **{name.removeprefix("--"): value for name, value in read.items()})
