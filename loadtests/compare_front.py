"""A gateway in this process in front of the two engines, and how it is asked: the only file that reaches the engines.

Through the gateway because that is how clients reach them: it speaks each engine's dialect, and mends what it mends, so
that a TGI's known faults do not count as differences. Without retries, failover, cache and circuit breaker: what an
engine answers is what is measured. In this process, without a socket in between, as then its share of a latency is the
same for both engines, and a fraction of a millisecond.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlsplit

import msgspec
from litestar import Litestar
from msgspec import Struct

from gateway import config, services
from gateway.app import create_app
from gateway.config import Config, DeploymentConfig, ModelConfig
from gateway.config.load import KEY_VARIABLES
from gateway.experiments.answers import SaidAnswer, Transcript
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import system_fingerprint
from gateway.upstream.pause import NO_PAUSE

CONTROL, TREATMENT = "control", "treatment"
SIDES = (CONTROL, TREATMENT)
TOGETHER = "compared"  # the model that both engines serve, where they are told apart by their kind
CHECKS = 4  # of an engine that fails, before it is held to be gone
BETWEEN_CHECKS = 1.0  # seconds
DONE = "[DONE]"
NEVER = 10**9
SILENCE = 600.0  # seconds of an engine's, after which its answer is held to be lost: as before the first token


class EngineUrl(Struct, frozen=True):
    """An engine as it was given: its kind (a key of backends.BACKENDS), URL, and name for the model, if said."""

    kind: str
    url: str
    model: str = ""

    @property
    def shown(self) -> str:
        """Where it is, without what may be secret in a URL."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Heard(Struct, frozen=True):
    """What came of one request.

    Times are seconds from when it was due: to the first and the last that a model wrote, and to the end. `late` is how
    late it was sent. `trouble` is why there is no whole answer, without the answer's own words.
    """

    answer: SaidAnswer
    first: float
    last: float
    total: float
    late: float
    trouble: str = ""

    @property
    def per_token(self) -> float | None:
        """Seconds a token after the first, by the engine's own count; None of fewer than two tokens."""
        tokens = self.answer.completion_tokens
        return (self.last - self.first) / (tokens - 1) if tokens > 1 and self.last > self.first else None


class Unreachable(Exception):
    """An engine could not be asked; the message says which and why."""


def checked(engines: Sequence[EngineUrl], environ: Mapping[str, str]) -> Config:
    """Return the gateway's configuration. Raises ConfigError if a URL cannot be one."""
    deployments = [
        DeploymentConfig(
            name=side, engine=one.kind, url=one.url, model=one.model, api_key=environ.get(KEY_VARIABLES[one.kind], "")
        )
        for side, one in zip(SIDES, engines, strict=True)
    ]
    if engines[0].kind != engines[1].kind:  # behind one model, as in a migration: then vLLM's answers follow TGI's
        models = [ModelConfig(name=TOGETHER, deployments=deployments)]
    else:
        models = [ModelConfig(name=one.name, deployments=[one]) for one in deployments]
    faults: list[str] = []
    made = config.check(
        Config(
            models=models,
            timeouts=config.TimeoutsConfig(between_events=SILENCE),
            retries=config.RetriesConfig(attempts=1),
            breaker=config.BreakerConfig(failures=NEVER, share=1.0, open=0.001, most_open=0.001),
            logging=config.LoggingConfig(requests=False),
        ),
        environ,
        faults,
    )
    if faults:
        raise config.ConfigError(faults)
    return made


@asynccontextmanager
async def fronted(engines: Sequence[EngineUrl], environ: Mapping[str, str], patience: float) -> AsyncIterator["Front"]:
    """Run the gateway, and wait until it has heard both engines. Raises ConfigError, Unreachable."""
    made = services.make(checked(engines, environ), Random(1), asyncio.get_running_loop().time)
    app = create_app(made)
    async with made.running():  # the application's own lifespan would make a group of what is raised here
        front = Front(app, made, engines)
        await front.ready(patience)
        yield front


class Front:
    """The running gateway, with the two engines behind it."""

    def __init__(self, app: Litestar, made: services.Services, engines: Sequence[EngineUrl]) -> None:
        self._app = app
        self._services = made
        self._endpoints = dict(zip(SIDES, made.catalog.endpoints, strict=True))
        self._pins = (
            {} if engines[0].kind == engines[1].kind else dict(zip(SIDES, (one.kind for one in engines), strict=True))
        )
        self.engines = dict(zip(SIDES, engines, strict=True))

    async def ready(self, patience: float) -> None:
        """Wait until both engines have answered. Raises Unreachable."""
        clock = asyncio.get_running_loop().time
        until = clock() + patience
        while not all(endpoint.up for endpoint in self._endpoints.values()):
            if clock() > until:
                raise Unreachable("; ".join(self.reason(side) for side in SIDES if not self._endpoints[side].up))
            await asyncio.sleep(0.02)

    def reason(self, side: str) -> str:
        """Return why an engine cannot be asked."""
        engine = self.engines[side]
        return f"the {side} ({engine.kind} at {engine.shown}): {self._endpoints[side].public_reason}"

    def served(self, side: str) -> list[str]:
        """Return the names of what an engine serves, its own names first."""
        return list(dict.fromkeys(name for one in self._endpoints[side].served for name in (one.name, one.model)))

    def fingerprint(self, side: str) -> str:
        """Return what changes when the engine does."""
        endpoint = self._endpoints[side]
        return ",".join(system_fingerprint(endpoint.engine, one) for one in endpoint.served)

    def in_flight(self, side: str) -> int:
        """Return how many requests an engine has from here."""
        return self._endpoints[side].in_flight

    async def gone(self, side: str) -> bool:
        """Whether an engine answers no more, asked a few times for its health."""
        endpoint: Endpoint = self._endpoints[side]
        for left in reversed(range(CHECKS)):
            await self._services.prober.check(endpoint)
            if endpoint.up:
                return False
            await asyncio.sleep(BETWEEN_CHECKS if left else 0)
        return True

    def model(self, side: str) -> str:
        """Return what the gateway calls the model of an engine."""
        return TOGETHER if self._pins else side

    async def ask(self, side: str, path: str, body: bytes, due: float) -> Heard:
        """Send a request to an engine, and read its answer to the end. Times count from `due`, on the loop's clock."""
        clock = asyncio.get_running_loop().time
        self._endpoints[side].pause = NO_PAUSE  # an engine's Retry-After holds nothing back here
        reading = Reading(clock, due)
        late = clock() - due
        inbox = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Any:
            return inbox.pop() if inbox else await asyncio.Event().wait()  # the client stays

        await self._app(self._scope(side, path), receive, reading.send)
        return reading.heard(clock() - due, late)

    def _scope(self, side: str, path: str) -> Any:
        headers = [(b"content-type", b"application/json")]
        headers += [(b"x-pointsman-engine", self._pins[side].encode())] if self._pins else []
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 80),
        }


class Reading:
    """Reads one answer as it comes from the gateway; times are seconds from `due`."""

    def __init__(self, clock: Any, due: float) -> None:
        self._clock = clock
        self._due = due
        self._status = 0
        self._rest = b""
        self._transcript = Transcript()
        self._first = self._last = 0.0
        self._ended = False
        self._trouble = ""

    async def send(self, message: Any) -> None:
        """Take what the application sends."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._rest += message.get("body", b"")
        if self._status == 200:
            *events, self._rest = self._rest.split(b"\n\n")
            for event in events:
                self._event(event)

    def heard(self, total: float, late: float) -> Heard:
        """Return what has come, when there is no more."""
        if self._status != 200:
            self._trouble = f"{self._status} {kind_of(self._rest)}".strip()
        elif not self._ended:
            self._trouble = self._trouble or "200, then no end"
        return Heard(self._transcript.answer(), self._first, self._last, total, late, self._trouble)

    def _event(self, event: bytes) -> None:
        data = event.removeprefix(b"data: ")
        if data == event:  # a comment
            return
        if data.decode() == DONE:
            self._ended = True
            return
        chunk = msgspec.json.decode(data)
        if "error" in chunk:
            self._trouble = f"200, then {kind_of(data)}"
        elif self._transcript.take(chunk):
            self._last = self._clock() - self._due
            self._first = self._first or self._last


def kind_of(body: bytes) -> str:
    """Return an error's code or type: its message may quote the request."""
    try:
        error = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "unreadable"
    word = str(error.get("code") or error.get("type") or "")
    return word if re.fullmatch(r"[\w.-]{0,60}", word) else "an error"
