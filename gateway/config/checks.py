"""What one field of the configuration cannot tell: names taken twice, URLs, keys, an open door without keys."""

import ipaddress
import re
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from backends import BACKENDS
from gateway.config.base_url import SOCKET, base_url
from gateway.config.experiment_checks import check_experiments
from gateway.config.tables import CacheConfig, Config, DeploymentConfig, ModelConfig, TelemetryConfig, duration, size
from gateway.redis.url import parse_redis_url


def check(config: Config, environ: Mapping[str, str], faults: list[str]) -> Config:
    """Look at what one field cannot tell, note every fault, and fill in URLs and keys."""
    if not size(config.server.max_body):
        faults.append(f'server.max_body: expected a size such as "32MiB", got "{config.server.max_body}"')
    auth = config.auth
    if not _is_loopback(config.server.host) and not auth.allow_anonymous and not auth.keys_file:
        faults.append(
            f"server.host: {config.server.host} is open to others and there are no keys; "
            "make some (pointsman keys create; auth.keys_file), "
            "or say --allow-anonymous (auth.allow_anonymous = true) if anybody may ask"
        )
    _check_cache(config.cache, faults)
    _redis_url(config.limits.url, "limits.url", faults)
    _redis_url(config.experiments.url, "experiments.url", faults)
    if not config.experiments.file:
        faults.append('experiments.file: expected a file, such as "experiments.sqlite3"')
    _check_telemetry(config.telemetry, faults)
    taken: dict[str, str] = {}
    models = [_check_model(model, f"models[{i}]", taken, environ, faults) for i, model in enumerate(config.models)]
    check_experiments(config, faults)
    if not models:
        faults.append("models: expected at least one engine: --vllm URL, --tgi URL, or [[models]] in the file")
    return msgspec.structs.replace(config, models=models)


def notes(config: Config) -> list[str]:
    """Return what is no fault and should be known all the same, a line each."""
    workers = config.server.workers
    said = []
    if workers > 1 and config.auth.keys_file and config.limits.store == "memory":
        said.append(f"limits.store: without Redis each of the {workers} workers enforces its share of the keys' limits")
    if workers > 1 and config.cache.store == "memory":
        said.append(f"cache.store: without Redis each of the {workers} workers keeps and shares its own answers alone")
    return said


def _check_cache(cache: CacheConfig, faults: list[str]) -> None:
    _duration(cache.ttl, "cache.ttl", faults)
    if not size(cache.max_bytes):
        faults.append(f'cache.max_bytes: expected a size such as "256MiB", got "{cache.max_bytes}"')
    _redis_url(cache.url, "cache.url", faults)


def _redis_url(url: str, path: str, faults: list[str]) -> None:
    try:
        parse_redis_url(url)
    except ValueError as error:  # it does not quote the URL, which may hold a password
        faults.append(f"{path}: {error}")


def _duration(text: str, path: str, faults: list[str]) -> None:
    if not duration(text):
        faults.append(f'{path}: expected a duration such as "10m", got "{text}"')


def _check_telemetry(telemetry: TelemetryConfig, faults: list[str]) -> None:
    endpoint = telemetry.otlp_endpoint
    if endpoint:
        _check_url(endpoint, "telemetry.otlp_endpoint", faults)
    for place, pattern in enumerate(telemetry.redact):
        try:
            re.compile(pattern)
        except re.error as error:
            faults.append(f"telemetry.redact[{place}]: expected a regular expression, got {pattern!r}: {error}")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_model(
    model: ModelConfig, path: str, taken: dict[str, str], environ: Mapping[str, str], faults: list[str]
) -> ModelConfig:
    for name in [*([model.name] if model.name else []), *model.aliases]:
        _claim(f"name {name}", f"{path}.name", taken, faults)
    if model.cache_ttl:
        _duration(model.cache_ttl, f"{path}.cache_ttl", faults)
    if not model.deployments:
        faults.append(f"{path}.deployments: expected at least one engine")
    deployments = []
    for place, deployment in enumerate(model.deployments):
        here = f"{path}.deployments[{place}]"
        if deployment.name:
            _claim(f"deployment {deployment.name}", f"{here}.name", taken, faults)
        deployments.append(_check_deployment(deployment, here, environ, faults))
    return msgspec.structs.replace(model, deployments=deployments)


def _check_deployment(
    deployment: DeploymentConfig, path: str, environ: Mapping[str, str], faults: list[str]
) -> DeploymentConfig:
    if not (deployment.name.isascii() and deployment.name.isprintable()):
        faults.append(f"{path}.name: expected printable ASCII, as it goes into a header, got {deployment.name!r}")
    if deployment.engine and deployment.engine not in BACKENDS:
        faults.append(f"{path}.engine: expected one of {', '.join(BACKENDS)}, got {deployment.engine!r}")
    key = deployment.api_key
    if deployment.api_key_env:
        key = environ.get(deployment.api_key_env, "")
        if not key:
            faults.append(f"{path}.api_key_env: the environment has no {deployment.api_key_env}")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        faults.append(f"{path}.api_key_env: the key has characters that a header cannot hold")
    url = deployment.url
    if url and _check_engine_url(deployment, path, faults):
        url = base_url(url, deployment.engine)
    if deployment.ca_file:
        _check_certificates(deployment.ca_file, f"{path}.ca_file", faults)
    return msgspec.structs.replace(deployment, url=url, api_key=key)


def _check_engine_url(deployment: DeploymentConfig, path: str, faults: list[str]) -> bool:
    """Note what is wrong with the URL of an engine, which may be a Unix socket's; return whether it is one."""
    parts = urlsplit(deployment.url) if deployment.url.startswith(f"{SOCKET}:") else None
    if parts is None:
        return _check_url(deployment.url, f"{path}.url", faults)
    if parts.netloc or not parts.path.startswith("/") or parts.query or parts.fragment:
        faults.append(f"{path}.url: expected a Unix socket such as unix:///run/vllm.sock, got {deployment.url!r}")
        return False
    if deployment.discover != "static":
        faults.append(f"{path}.discover: a Unix socket has no name to look up")
    return True


def _check_certificates(file: str, path: str, faults: list[str]) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        faults.append(f"{path}: expected a file of certificates (PEM), got {file!r}: {error.strerror or error}")


def _claim(what: str, path: str, taken: dict[str, str], faults: list[str]) -> None:
    if what in taken:
        faults.append(f"{path}: the {what} is taken by {taken[what]}")
    taken[what] = path


def _check_url(text: str, path: str, faults: list[str]) -> bool:
    """Note what is wrong with a URL; return whether it is one."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
        (parts.hostname or "").encode("ascii" if text.isascii() else "idna")
    except ValueError:
        good = False
    if not good:
        faults.append(f"{path}: expected a URL such as http://10.0.0.5:8000, got {text!r}")
        return False
    if parts.username or parts.query or parts.fragment:
        faults.append(f"{path}: expected a URL without credentials, query or fragment (keys: api_key_env)")
    return True
