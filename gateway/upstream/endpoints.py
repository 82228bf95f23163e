"""One deployment as it is known now: is it up, what it serves, what it has in flight, how its breaker stands."""

import logging

from backends import BACKENDS
from backends.base import Backend, ServedModel
from backends.loads import Load
from gateway.config import BreakerConfig, DeploymentConfig
from gateway.http.errors import UpstreamIdleTimeout
from gateway.upstream.address import address_of
from gateway.upstream.breaker import Breaker
from gateway.upstream.dial import Dialer
from gateway.upstream.pause import NO_PAUSE, Pause
from gateway.upstream.pool import Pool
from gateway.upstream.request_writer import RequestWriter

log = logging.getLogger("pointsman")


class Endpoint:
    """One deployment, as it is known now. Times are monotonic, in seconds."""

    def __init__(self, deployment: DeploymentConfig, rules: BreakerConfig, slow_start: float) -> None:
        self.name = deployment.name
        self.engine = deployment.engine
        self.url = deployment.url
        self.backend: Backend = BACKENDS[deployment.engine]
        self.answer_headers = [
            (b"x-pointsman-engine", deployment.engine.encode()),
            (b"x-pointsman-deployment", deployment.name.encode()),
        ]
        self.served: list[ServedModel] = []
        self.up = False
        self.reason_down = self.public_reason = "not checked yet"
        self.found_dead = False  # by its health checks: what waits there is better asked elsewhere
        self._misses = 0  # late or bad answers to health checks, in a row
        self._heard_at = 0.0  # when a client's request was last answered well
        self.breaker = Breaker(rules)
        self.connection = Breaker(rules)  # counts failed connections and silence alone, for models it serves alone
        self.pause: Pause = NO_PAUSE
        self.credentials_refused = False
        self.in_flight = 0
        self.figures = Load()  # the engine's own, as it said last
        self.last_attempt_at = 0.0
        self._warm_at = 0.0
        self.address = address_of(deployment)
        self.dialer = Dialer(self.address)
        self.pool = Pool()
        self.requests = RequestWriter(self.address, deployment.engine, deployment.api_key)
        self.leaves_out_tools: dict[str, bool] = {}  # by the engine's name of a model: its chat template knows no tools
        self.adopt(deployment, rules, slow_start)

    def adopt(self, deployment: DeploymentConfig, rules: BreakerConfig, slow_start: float) -> None:
        """Take over what a changed configuration says, where it is still the same engine."""
        self.deployment = deployment
        self.breaker.rules = self.connection.rules = rules
        self._slow_start = slow_start
        self.model = deployment.model
        self.weight = deployment.weight
        self.vision = deployment.vision
        self.max_in_flight = deployment.max_in_flight

    def is_for(self, deployment: DeploymentConfig) -> bool:
        """Whether it is the engine that a configuration names: what differs can be adopted."""
        mine, identity = self.deployment, ("name", "engine", "url", "api_key", "address", "ca_file", "verify")
        return all(getattr(mine, name) == getattr(deployment, name) for name in identity)

    @property
    def public_name(self) -> str:
        """The deployment's name as it is configured, which those found behind one name of a host share."""
        address = self.deployment.address
        return self.name.removesuffix(f"@{address}") if address else self.name

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

    def refuse_credentials(self) -> None:
        """Note that it does not take the gateway's key; that is said once, until it has taken it again."""
        if not self.credentials_refused:
            log.error("%s: the engine refuses the gateway's credentials; see api_key_env of the deployment", self.name)
        self.credentials_refused = True

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
            self.leaves_out_tools.clear()  # it may have come back with another template
        if not self.up:
            self._warm_at = now + self._slow_start
        self.up, self.served, self.reason_down, self.public_reason = True, served, "", ""
        self.found_dead, self._misses = False, 0
        return news

    def mark_down(self, why: str, public_reason: str = "it does not answer as expected") -> None:
        """Note that the engine does not answer: `why`, for the log, and what anybody may know of that."""
        if self.reason_down != why:
            log.warning("%s: %s", self.name, why)
        self.up, self.reason_down, self.public_reason, self.figures = False, why, public_reason, Load()
        self._misses = 0

    def record_miss(self, why: str, public_reason: str, began: float, most: int) -> None:
        """Note that the answer to a health check that began then was late or bad; `most` in a row mark it as down."""
        if self.up and self._heard_at >= began:
            return
        misses = self._misses + 1
        if self.up and misses < most:
            log.info("%s: %s (%d in a row; %d mark it as down)", self.name, why, misses, most)
        else:
            self.mark_down(why, public_reason)
            self.found_dead = True
        self._misses = misses

    def heard(self, now: float) -> None:
        """Note a good answer to a client's request, or more of one: it counts as health.

        It marks up an engine that is down for late or bad answers to health checks alone.
        """
        self._heard_at = now
        if self._misses:
            if not self.up:
                self.mark_up(self.served, now)
            self._misses = 0
