"""The configuration: frozen, typed, and read with every fault reported at once.

`load` takes the text of `pointsman.toml` and the environment; nothing here reads a file or `os.environ`.
"""

from collections.abc import Mapping

from gateway.config.checks import check, notes
from gateway.config.load import from_urls, read, with_flags
from gateway.config.source import ConfigSource
from gateway.config.tables import (
    AdmissionConfig,
    AuthConfig,
    BreakerConfig,
    CacheConfig,
    Config,
    ConfigError,
    DeploymentConfig,
    ExperimentConfig,
    ExperimentsConfig,
    HealthConfig,
    LimitsConfig,
    LoggingConfig,
    ModelConfig,
    RetriesConfig,
    ServerConfig,
    TelemetryConfig,
    TimeoutsConfig,
    duration,
    size,
)

__all__ = [
    "AdmissionConfig",
    "AuthConfig",
    "BreakerConfig",
    "CacheConfig",
    "Config",
    "ConfigError",
    "ConfigSource",
    "DeploymentConfig",
    "ExperimentConfig",
    "ExperimentsConfig",
    "HealthConfig",
    "LimitsConfig",
    "LoggingConfig",
    "ModelConfig",
    "RetriesConfig",
    "ServerConfig",
    "TelemetryConfig",
    "TimeoutsConfig",
    "check",
    "duration",
    "from_urls",
    "load",
    "notes",
    "read",
    "size",
    "with_flags",
]


def load(text: str, environ: Mapping[str, str]) -> Config:
    """Read and check `pointsman.toml`. Raises ConfigError with every fault in it."""
    faults: list[str] = []
    config = check(read(text, faults), environ, faults)
    if faults:
        raise ConfigError(faults)
    return config
