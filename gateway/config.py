"""The configuration: frozen, typed, and read with every fault reported at once.

`load` takes the text of `pointsman.toml` and the environment; nothing here reads a file or `os.environ`.
"""

import difflib
import ipaddress
import re
import tomllib
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from backends import BACKENDS

SIZES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
KEY_VARIABLES = {"vllm": "POINTSMAN_VLLM_API_KEY", "tgi": "POINTSMAN_TGI_API_KEY", "openai": "POINTSMAN_OPENAI_API_KEY"}

Port = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]


class Frozen(Struct, frozen=True, kw_only=True):
    """The way all tables are read."""


class Server(Frozen, frozen=True, kw_only=True):
    """`[server]`: where to listen, and how large a request may be (a number of bytes, or such as "32MiB")."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Meta(ge=1)] = 1
    max_body: str = "32MiB"
    tgi_model: str = ""  # which model TGI's own paths speak for; they name none
    cors_origins: list[str] = []

    @property
    def max_body_bytes(self) -> int:
        """`max_body` in bytes."""
        return size(self.max_body)


class Auth(Frozen, frozen=True, kw_only=True):
    """`[auth]`: without keys the gateway listens on loopback only, unless it is told aloud that anybody may ask."""

    allow_anonymous: bool = False


class Timeouts(Frozen, frozen=True, kw_only=True):
    """`[timeouts]`, in seconds. The defaults cut nothing that an SDK would wait for."""

    connect: Seconds = 2.0
    first_event: Seconds = 600.0  # of a stream; a whole answer has only the total
    between_events: Seconds = 120.0
    total: Seconds = 3600.0
    keep_alive: Seconds = 15.0  # of silence, after which a stream is told that all is well


class Deployment(Frozen, frozen=True, kw_only=True):
    """`[[models.deployments]]`: one engine at one URL.

    `model` is the engine's own name for the model (for TGI, an adapter's); if it is absent, the engine is asked.
    `api_key` is what `api_key_env` names, looked up by `load`; it is never in the file.
    """

    name: str
    engine: str
    url: str
    model: str = ""
    weight: Weight = 1
    vision: bool = False  # for a TGI that takes images and does not say so in /info
    api_key_env: str = ""
    api_key: str = ""


class Model(Frozen, frozen=True, kw_only=True):
    """`[[models]]`: what clients ask for, and the engines behind it. Without a name: whatever they serve.

    A request that only some of the engines can honour is routed to those, or refused, so that all answer alike.
    """

    name: str = ""
    aliases: list[str] = []
    on_unsupported: Literal["route", "refuse"] = "route"
    deployments: list[Deployment] = []


class Config(Frozen, frozen=True, kw_only=True):
    """All of `pointsman.toml`."""

    server: Server = Server()
    auth: Auth = Auth()
    timeouts: Timeouts = Timeouts()
    models: list[Model] = []


class ConfigError(Exception):
    """The configuration has faults; each is a line that names its place and what was expected there."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load(text: str, environ: Mapping[str, str]) -> Config:
    """Read and check `pointsman.toml`. Raises ConfigError with every fault in it."""
    faults: list[str] = []
    config = check(read(text, faults), environ, faults)
    if faults:
        raise ConfigError(faults)
    return config


def read(text: str, faults: list[str]) -> Config:
    """Read `pointsman.toml`, each value by itself, and note every fault. Raises ConfigError if it is not TOML."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not valid TOML: {error}"]) from error
    config = _read_table(table, Config, "", faults)
    assert isinstance(config, Config)
    return config


def from_urls(urls: Mapping[str, list[str]], model: str, environ: Mapping[str, str]) -> list[Model]:
    """Return the models of engines given by URL alone: what each serves is asked of it, or called `model`."""
    deployments = []
    for engine, given in urls.items():
        for place, url in enumerate(given):
            name = engine if len(given) == 1 else f"{engine}-{place + 1}"
            key = environ.get(KEY_VARIABLES[engine], "")
            deployments.append(Deployment(name=name, engine=engine, url=url, api_key=key))
    if model:
        return [Model(name=model, deployments=deployments)]
    return [Model(deployments=[deployment]) for deployment in deployments]


def with_flags(server: Server, flags: Mapping[str, Any], faults: list[str]) -> Server:
    """Return `[server]` with the values of flags such as `--port`, noting those that cannot be."""
    fields = {f"--{field.name}": field for field in msgspec.structs.fields(Server)}
    read = {name: _read(value, fields[name], name, faults) for name, value in flags.items()}
    return msgspec.structs.replace(server, **{name.removeprefix("--"): value for name, value in read.items()})


def check(config: Config, environ: Mapping[str, str], faults: list[str]) -> Config:
    """Look at what one field cannot tell, note every fault, and fill in URLs and keys."""
    if not _size(config.server.max_body):
        faults.append(f'server.max_body: expected a size such as "32MiB", got "{config.server.max_body}"')
    if not _is_loopback(config.server.host) and not config.auth.allow_anonymous:
        faults.append(
            f"server.host: {config.server.host} is open to others and there are no keys; "
            "say --allow-anonymous (auth.allow_anonymous = true) if anybody may ask"
        )
    taken: dict[str, str] = {}
    models = [_check_model(model, f"models[{i}]", taken, environ, faults) for i, model in enumerate(config.models)]
    if not models:
        faults.append("models: expected at least one engine: --vllm URL, --tgi URL, or [[models]] in the file")
    return msgspec.structs.replace(config, models=models)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_model(
    model: Model, path: str, taken: dict[str, str], environ: Mapping[str, str], faults: list[str]
) -> Model:
    for name in [*([model.name] if model.name else []), *model.aliases]:
        _claim(f"name {name}", f"{path}.name", taken, faults)
    if not model.deployments:
        faults.append(f"{path}.deployments: expected at least one engine")
    deployments = []
    for place, deployment in enumerate(model.deployments):
        here = f"{path}.deployments[{place}]"
        if not (deployment.name.isascii() and deployment.name.isprintable()):
            faults.append(f"{here}.name: expected printable ASCII, as it goes into a header, got {deployment.name!r}")
        if deployment.name:
            _claim(f"deployment {deployment.name}", f"{here}.name", taken, faults)
        if deployment.engine and deployment.engine not in BACKENDS:
            faults.append(f"{here}.engine: expected one of {', '.join(BACKENDS)}, got {deployment.engine!r}")
        key = deployment.api_key
        if deployment.api_key_env:
            key = environ.get(deployment.api_key_env, "")
            if not key:
                faults.append(f"{here}.api_key_env: the environment has no {deployment.api_key_env}")
        key = key.strip()
        if not (key.isascii() and key.isprintable()):
            faults.append(f"{here}.api_key_env: the key has characters that a header cannot hold")
        url = deployment.url and _url(deployment.url, f"{here}.url", faults)
        deployments.append(msgspec.structs.replace(deployment, url=url, api_key=key))
    return msgspec.structs.replace(model, deployments=deployments)


def _claim(what: str, path: str, taken: dict[str, str], faults: list[str]) -> None:
    if what in taken:
        faults.append(f"{path}: the {what} is taken by {taken[what]}")
    taken[what] = path


def _url(text: str, path: str, faults: list[str]) -> str:
    """Return the engine's base URL: a `/` or `/v1` at its end is what people paste, and means the same."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        good = False
    if not good:
        faults.append(f"{path}: expected a URL such as http://10.0.0.5:8000, got {text!r}")
        return text
    if parts.username or parts.query or parts.fragment:
        faults.append(f"{path}: expected a URL without credentials, query or fragment (keys: api_key_env)")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def size(text: str) -> int:
    """Return a checked size such as "32MiB" in bytes."""
    return _size(text) or 0


def _size(text: str) -> int | None:
    match = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)?", text.strip())
    return int(match[1]) * SIZES[match[2] or ""] if match and int(match[1]) else None


def _read(value: Any, field: msgspec.structs.FieldInfo, path: str, faults: list[str]) -> Any:
    """Read a TOML value, noting each fault with its path; for what is faulty its default, or nothing, stands in."""
    kind = field.type
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _read_table(value, kind, path, faults)
    (item,) = typing.get_args(kind) if typing.get_origin(kind) is list else (None,)
    if isinstance(item, type) and issubclass(item, Struct) and isinstance(value, list):
        return [_read_table(each, item, f"{path}[{i}]", faults) for i, each in enumerate(value)]
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        said, _, inside = str(error).partition(" - at `$")
        faults.append(f"{path}{inside.rstrip('`')}: {said[0].lower()}{said[1:].replace('`', '')}")
        return _nothing(field)


def _read_table(value: Any, kind: type[Struct], path: str, faults: list[str]) -> Struct:
    if not isinstance(value, dict):
        faults.append(f"{path}: expected a table")
        value = {}
    fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "api_key"}
    dot = f"{path}." if path else ""
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(fields)}"
            faults.append(f"{dot}{name}: unknown key; {hint}")
    read: dict[str, Any] = {}
    for name, field in fields.items():
        if name in value:
            read[name] = _read(value[name], field, f"{dot}{name}", faults)
        elif field.required:
            faults.append(f"{dot}{name}: required")
            read[name] = _nothing(field)
    return kind(**read)


def _nothing(field: msgspec.structs.FieldInfo) -> Any:
    """Return what stands in for a value that could not be read; all required ones are text."""
    return "" if field.required else field.default_factory() if callable(field.default_factory) else field.default
