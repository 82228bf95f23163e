"""The tables of `pointsman.toml`, with their defaults. Times are in seconds unless a unit is written with them."""

import math
import re
from functools import cache
from typing import Annotated, Literal

from msgspec import Meta, Struct

from backends.base import ReasoningField

SIZES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Port = Annotated[int, Meta(ge=1, le=65535)]
Text = Annotated[str, Meta(min_length=1)]
Whole = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Policy = Literal["weighted", "round_robin", "least_busy", "prefix"]
Unit = Literal["conversation", "session", "key", "request"]
PrimaryMetric = Literal["ttft", "itl", "e2e", "errors", "parity"]


class Frozen(Struct, frozen=True, kw_only=True):
    """The way all tables are read."""


class ServerConfig(Frozen, frozen=True, kw_only=True):
    """`[server]`: where to listen, and how large a request may be (a number of bytes, or such as "32MiB")."""

    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Positive = 1
    max_body: str = "32MiB"
    tgi_model: str = ""  # which model TGI's own paths speak for; they name none
    cors_origins: list[str] = []
    keep_alive: Seconds = (
        75.0  # of a client's idle connection, and for a head; longer than clients', so that they close
    )
    drain_notice: Annotated[float, Meta(ge=0)] = 0.0  # after SIGTERM: not ready, and still taking requests
    drain: Seconds = 60.0  # after that: what is in flight may take so long to finish

    @property
    def max_body_bytes(self) -> int:
        """`max_body` in bytes."""
        return size(self.max_body) or 0


class AuthConfig(Frozen, frozen=True, kw_only=True):
    """`[auth]`: without keys the gateway listens on loopback only, unless `allow_anonymous` is set."""

    keys_file: str = ""  # made by `pointsman keys`; relative to the configuration's own directory
    allow_anonymous: bool = False


class TimeoutsConfig(Frozen, frozen=True, kw_only=True):
    """`[timeouts]`. The defaults cut nothing that an SDK would wait for."""

    connect: Seconds = 2.0
    first_event: Seconds = 600.0  # of a stream, for each try
    head: Annotated[float, Meta(ge=0)] = 0.0  # of a whole answer, for each try; 0: there is only the total
    between_events: Seconds = 120.0
    total: Seconds = 3600.0
    keep_alive: Seconds = 15.0  # of silence, after which a stream is told that all is well

    def silence(self, streamed: bool) -> float:
        """Return how many seconds an engine may be silent until it begins to answer."""
        return self.first_event if streamed else self.head or math.inf


class RetriesConfig(Frozen, frozen=True, kw_only=True):
    """`[retries]`: before the client's first byte, and by cause. The first try elsewhere costs no budget."""

    attempts: Positive = 3  # in all
    budget: Share = 0.2  # retries, as a share of the requests
    backoff: Seconds = 0.05  # at most, before the second try; doubled for each more, and drawn below it


class BreakerConfig(Frozen, frozen=True, kw_only=True):
    """`[breaker]`, of each deployment: counts what the engine did wrong, never what a client did."""

    failures: Positive = 5  # in a row
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5  # or of the requests of `window`, if they are 20 or more
    window: Seconds = 10.0
    open: Seconds = 1.0  # for so long nothing is sent there; doubled each time that a trial fails
    most_open: Seconds = 30.0


class HealthConfig(Frozen, frozen=True, kw_only=True):
    """`[health]`: how often each engine is asked, when it is down, and how gently one that comes back is loaded."""

    interval: Seconds = 5.0
    timeout: Seconds = 10.0  # an answer that takes longer is late
    misses: Positive = 3  # late or bad answers in a row, after which it is down; a refused connection counts at once
    slow_start: Annotated[float, Meta(ge=0)] = 10.0


class AdmissionConfig(Frozen, frozen=True, kw_only=True):
    """`[admission]`, of each worker: how much may be in flight, and how much may wait for that, how long."""

    max_in_flight: Positive = 4096
    queue: Whole = 1024
    queue_timeout: Seconds = 30.0


class LimitsConfig(Frozen, frozen=True, kw_only=True):
    """`[limits]`: where the keys' limits are counted, and what holds while that cannot be asked."""

    store: Literal["memory", "redis"] = "memory"
    url: str = "redis://127.0.0.1:6379/0"
    when_down: Literal["open", "closed"] = "open"


class CacheConfig(Frozen, frozen=True, kw_only=True):
    """`[cache]`: answers kept, and where."""

    store: Literal["off", "memory", "redis"] = "off"
    url: str = "redis://127.0.0.1:6379/0"
    ttl: str = "10m"
    max_bytes: str = "256MiB"  # in each worker's memory
    pace: Annotated[float, Meta(ge=0)] = 0.0  # seconds between the events of a stream that is played again


class TelemetryConfig(Frozen, frozen=True, kw_only=True):
    """`[telemetry]`: where traces go, and what the metrics are called."""

    otlp_endpoint: str = ""  # a base URL; /v1/traces is appended for HTTP. Empty: no export
    otlp_protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    sample_ratio: Share = 1.0
    trust_sampling: bool = False  # the client's own flag decides
    content: bool = False  # what was asked and answered, too
    redact: list[str] = []  # of that content: regular expressions, whose matches are taken out
    tgi_names: bool = False  # the metrics under TGI's names, too, whichever engine serves


class LoggingConfig(Frozen, frozen=True, kw_only=True):
    """`[logging]`."""

    requests: bool = True  # a JSON line a request on stderr; for people on a terminal


class ExperimentsConfig(Frozen, frozen=True, kw_only=True):
    """`[experiments]`: where what is counted of experiments is kept: a file for one host, Redis for several."""

    store: Literal["sqlite", "redis"] = "sqlite"
    file: str = "experiments.sqlite3"  # relative to the configuration's own directory
    url: str = "redis://127.0.0.1:6379/0"


class DeploymentConfig(Frozen, frozen=True, kw_only=True):
    """`[[models.deployments]]`: one engine at one URL, or one at each address of a name.

    `model` is the engine's own name for the model (for TGI, an adapter's); if it is absent, the engine is asked.
    `api_key` is what `api_key_env` names, looked up by `load`, and `address` what DNS says; neither is in the file.
    """

    name: Text
    engine: Text
    url: Text
    model: str = ""
    weight: Annotated[float, Meta(ge=0)] = 1.0
    max_in_flight: Whole = 0  # 0: no bound
    slots: Whole = (
        0  # requests that it works on at once: makes the loads of an experiment's arms comparable; 0: unknown
    )
    discover: Literal["static", "dns"] = "static"  # dns: each address of the URL's host is an engine of its own
    vision: bool = False  # for a TGI that takes images and does not say so in /info
    ca_file: str = ""  # certificates to trust instead of the system's; relative to the configuration's own directory
    verify: bool = True  # the engine's certificate; without it anybody in between can read and answer
    api_key_env: str = ""
    api_key: str = ""
    address: str = ""  # of one of the engines behind the URL's host


class ExperimentConfig(Frozen, frozen=True, kw_only=True):
    """`[models.experiment]`: two sets of the model's deployments, compared.

    An arm is an engine, which stands for all of the model's deployments of it, or a list of deployments' names.
    Without a ramp the treatment has the share that the weights of the deployments say.
    """

    name: str
    control: str | list[str]
    treatment: str | list[str]
    unit: Unit = "conversation"  # what stays in one arm
    shadow: Share = 0.05  # of the conversations: their requests are also sent to the treatment
    ramp: tuple[float, ...] = (5.0, 25.0, 50.0)  # per cent of the units that are the treatment's, stage by stage
    promote: bool = False  # after the last stage, where the verdict is success; else a person has to
    alpha: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    margin: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    primary: tuple[PrimaryMetric, ...] = ("ttft", "itl", "parity")
    slo_ttft: Seconds | None = None  # absent: the control's 95th percentile in the epoch before
    stage_time: str = "30m"  # at least
    stage_samples: Positive = 500  # at least, in the treatment
    shadow_in_flight: Positive = 4
    shadow_tools: bool = False  # requests with tools are shadowed, too
    examples: Literal["redacted", "clear"] = "redacted"  # of answers that differ


class ModelConfig(Frozen, frozen=True, kw_only=True):
    """`[[models]]`: what clients ask for, and the engines behind it. Without a name: whatever they serve.

    A request that only some of the engines can honour is routed to those, or refused, so that all answer alike.
    """

    name: str = ""
    aliases: list[str] = []
    on_unsupported: Literal["route", "refuse"] = "route"
    policy: Policy = "weighted"
    reasoning_field: ReasoningField = "both"  # of an answer, in which clients find what the model thought
    tools_in_prompt: Literal["auto", "always", "never"] = "auto"  # where a chat template knows none; auto: beside a TGI
    prefix_bytes: Positive = 512  # of the prompt, by which "prefix" tells one from another
    hedge_after: Annotated[float, Meta(ge=0)] = 0.0  # a stream without a first event by then is asked twice; 0: never
    cache_ttl: str = ""  # instead of cache.ttl
    deployments: list[DeploymentConfig] = []
    experiment: ExperimentConfig | None = None


class Config(Frozen, frozen=True, kw_only=True):
    """All of `pointsman.toml`."""

    server: ServerConfig = ServerConfig()
    auth: AuthConfig = AuthConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    retries: RetriesConfig = RetriesConfig()
    breaker: BreakerConfig = BreakerConfig()
    health: HealthConfig = HealthConfig()
    admission: AdmissionConfig = AdmissionConfig()
    limits: LimitsConfig = LimitsConfig()
    cache: CacheConfig = CacheConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    logging: LoggingConfig = LoggingConfig()
    experiments: ExperimentsConfig = ExperimentsConfig()
    models: list[ModelConfig] = []


class ConfigError(Exception):
    """The configuration has faults; each is a line that names its place and what was expected there."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@cache  # it is asked at each request
def size(text: str) -> int | None:
    """Return a size such as "32MiB" in bytes, or None if it is none."""
    match = re.fullmatch(r"(\d+)\s*(B|KiB|MiB|GiB)?", text.strip())
    return int(match[1]) * SIZES[match[2] or ""] if match and int(match[1]) else None


def duration(text: str) -> float | None:
    """Return a duration such as "10m" in seconds, or None if it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?", text.strip())
    return float(match[1]) * UNITS[match[2] or ""] if match and float(match[1]) else None
