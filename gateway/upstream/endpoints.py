"""One deployment as it is known now: is it up, what it serves, what it has in flight, how its breaker stands."""

import logging

from yarl import URL

from backends import BACKENDS
from backends.base import Backend, ServedModel
from backends.loads import Load
from gateway.config import BreakerConfig, DeploymentConfig
from gateway.http.errors import UpstreamIdleTimeout
from gateway.upstream.breaker import Breaker

KEPT_URLS = 256

log = logging.getLogger("pointsman")


class Endpoint:
    """One deployment, as it is known now. Times are monotonic, in seconds."""

    def __init__(self, deployment: DeploymentConfig, rules: BreakerConfig, slow_start: float) -> None:
        self.name = deployment.name
        self.engine = deployment.engine
        self.url = deployment.url
        self.backend: Backend = BACKENDS[deployment.engine]
        self.headers = {"content-type": "application/json"}
        if deployment.api_key:
            self.headers["authorization"] = f"Bearer {deployment.api_key}"
        self.answer_headers = [
            (b"x-pointsman-engine", deployment.engine.encode()),
            (b"x-pointsman-deployment", deployment.name.encode()),
        ]
        self.served: list[ServedModel] = []
        self.up = False
        self.reason_down = "not checked yet"
        self.breaker = Breaker(rules)
        self.in_flight = 0
        self.figures = Load()  # the engine's own, as it said last
        self.last_attempt_at = 0.0
        self._warm_at = 0.0
        self._base = URL(deployment.url)
        self.server_name: str | None = None  # for TLS, where the URL has a number in the place of the name
        if deployment.address:
            self.headers["host"] = self._base.host_port_subcomponent or ""  # a usual port is not named in it
            self.server_name = self._base.host
            self._base = self._base.with_host(deployment.address)
        self._urls: dict[str, URL] = {}
        self.adopt(deployment, rules, slow_start)

    def adopt(self, deployment: DeploymentConfig, rules: BreakerConfig, slow_start: float) -> None:
        """Take over what a changed configuration says, where it is still the same engine."""
        self.deployment = deployment
        self.breaker.rules = rules
        self._slow_start = slow_start
        self.model = deployment.model
        self.weight = deployment.weight
        self.vision = deployment.vision
        self.max_in_flight = deployment.max_in_flight

    def is_for(self, deployment: DeploymentConfig) -> bool:
        """Whether it is the engine that a configuration names: what differs can be adopted."""
        mine, identity = self.deployment, ("name", "engine", "url", "api_key", "address")
        return all(getattr(mine, name) == getattr(deployment, name) for name in identity)

    def at(self, path: str) -> URL:
        """Return the URL of a path and its query; kept, as taking a text apart costs each request."""
        if path not in self._urls:
            if len(self._urls) >= KEPT_URLS:  # clients' ids and queries would never end
                self._urls.clear()
            self._urls[path] = URL(str(self._base).rstrip("/") + path)
        return self._urls[path]

    def ready(self, now: float) -> bool:
        """Whether it is up, and its circuit lets requests through."""
        return self.up and self.breaker.allows(now)

    def lacks(self, now: float) -> str:
        """Return why it is not ready."""
        return self.reason_down if self.breaker.allows(now) else self.breaker.describe(now)

    def silence(self, limit: float) -> UpstreamIdleTimeout:
        """Return the error of having been silent for so many seconds."""
        return UpstreamIdleTimeout(f"The engine {self.name} was silent for {limit:g} s.")

    @property
    def load(self) -> float:
        """How many requests it has: those sent from here, and those that it says wait there."""
        return self.in_flight + (self.figures.waiting or 0.0)

    def effective_weight(self, now: float) -> float:
        """Return its effective weight; one that has just recovered ramps up from a tenth."""
        left = self._warm_at - now
        return self.weight if left <= 0 else self.weight * max(0.1, 1 - left / self._slow_start)

    def begin_attempt(self, now: float) -> bool:
        """Note that an attempt begins there; return whether it is a half-open probe."""
        self.last_attempt_at = now
        return self.breaker.began(now)

    def mark_recovered(self, now: float) -> None:
        """Note that it has recovered."""
        self._warm_at = now + self._slow_start
        log.info("%s: circuit closed, the engine has recovered", self.name)

    def mark_up(self, served: list[ServedModel], now: float) -> bool:
        """Note what the engine serves; return whether that is news."""
        news = not self.up or served != self.served
        if news:
            names = ", ".join(f"{one.name} ({one.max_model_len or '?'} tokens)" for one in served) or "nothing"
            log.info("%s at %s serves %s", self.name, self.url, names)
        if not self.up:
            self._warm_at = now + self._slow_start
        self.up, self.served, self.reason_down = True, served, ""
        return news

    def mark_down(self, why: str) -> None:
        """Note that the engine does not answer."""
        if self.reason_down != why:
            log.warning("%s: %s", self.name, why)
        self.up, self.reason_down, self.figures = False, why, Load()
