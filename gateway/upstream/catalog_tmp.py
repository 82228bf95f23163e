"""Which models there are, and which engines offer each: asked of the engines, again and again.

An engine may come up later than the gateway, go away, and come back with another model; the catalog follows.
A model keeps the engines that offered it while they are away, so that a client is told 503 and not 404.
"""

import logging

from msgspec import Struct
from yarl import URL

from backends import BACKENDS
from backends.base import Backend, Served
from backends.loads import Load
from gateway.config import Breaker, Config, Deployment, Model
from gateway.http.errors import RETRY_AFTER, ModelNotFound, Unavailable
from gateway.upstream.breaker import Breaker as CircuitBreaker

# What TGI's examples and huggingface_hub send for "the model that you serve", besides nothing at all.
ANY_MODEL = frozenset({"", "tgi", "dummy"})

log = logging.getLogger("pointsman")


class Target:
    """One deployment, as it is known now. Times are monotonic, in seconds."""

    def __init__(self, deployment: Deployment, rules: Breaker, slow_start: float) -> None:
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
        self.served: list[Served] = []
        self.up = False
        self.trouble = "it has not been asked yet"
        self.breaker = CircuitBreaker(rules)
        self.in_flight = 0
        self.figures = Load()  # the engine's own, as it said last
        self.asked_at = 0.0
        self._warm_at = 0.0
        self._base = URL(deployment.url)
        self.server_name: str | None = None  # for TLS, where the URL has a number in the place of the name
        if deployment.address:
            self.headers["host"] = self._base.host_port_subcomponent or ""  # a usual port is not named in it
            self.server_name = self._base.host
            self._base = self._base.with_host(deployment.address)
        self._urls: dict[str, URL] = {}
        self.adopt(deployment, rules, slow_start)

    def adopt(self, deployment: Deployment, rules: Breaker, slow_start: float) -> None:
        """Take over what a changed configuration says, where it is still the same engine."""
        self.deployment = deployment
        self.breaker.rules = rules
        self._slow_start = slow_start
        self.model = deployment.model
        self.weight = deployment.weight
        self.vision = deployment.vision
        self.max_in_flight = deployment.max_in_flight

    def is_for(self, deployment: Deployment) -> bool:
        """Whether it is the engine that a configuration names: what differs can be adopted."""
        mine = self.deployment
        return all(getattr(mine, name) == getattr(deployment, name) for name in ("name", "engine", "url", "api_key"))

    def at(self, path: str) -> URL:
        """Return the URL of a path; made once, as taking a text apart costs each request."""
        if path not in self._urls:
            self._urls[path] = URL(str(self._base).rstrip("/") + path)
        return self._urls[path]

    def ready(self, now: float) -> bool:
        """Whether it is there, and its breaker lets requests through."""
        return self.up and self.breaker.allows(now)

    def lacks(self, now: float) -> str:
        """Return why it is not ready."""
        left = self.breaker.opened_until - now
        return self.trouble if self.breaker.allows(now) else f"it failed too often, and is left alone for {left:.1f} s"

    @property
    def load(self) -> float:
        """How many requests it has: those sent from here, and those that it says wait there."""
        return self.in_flight + (self.figures.waiting or 0.0)

    def share(self, now: float) -> float:
        """Return its weight; one that has just come (back) begins with a tenth, to fill its caches gently."""
        left = self._warm_at - now
        return self.weight if left <= 0 else self.weight * max(0.1, 1 - left / self._slow_start)

    def begins(self, now: float) -> bool:
        """Note that a request goes there; return whether it is a trial."""
        self.asked_at = now
        return self.breaker.began(now)

    def returned(self, now: float) -> None:
        """Note that it has recovered."""
        self._warm_at = now + self._slow_start
        log.info("%s is back", self.name)

    def heard(self, served: list[Served], now: float) -> bool:
        """Note what the engine serves; return whether that is news."""
        news = not self.up or served != self.served
        if news:
            names = ", ".join(f"{one.name} ({one.max_model_len or '?'} tokens)" for one in served) or "nothing"
            log.info("%s at %s serves %s", self.name, self.url, names)
        if not self.up:
            self._warm_at = now + self._slow_start
        self.up, self.served, self.trouble = True, served, ""
        return news

    def lost(self, why: str) -> None:
        """Note that the engine does not answer."""
        if self.trouble != why:
            log.warning("%s: %s", self.name, why)
        self.up, self.trouble, self.figures = False, why, Load()


class Offer(Struct, frozen=True):
    """A deployment's offer of a model: what a request must call it there, and how many tokens it holds."""

    target: Target
    model: str
    max_model_len: int | None
    sees: bool = False
    served: str = ""  # what the engine itself says that this is


class Entry(Struct, frozen=True):
    """A model as clients see it."""

    name: str
    aliases: list[str]
    offers: list[Offer]
    settings: Model
    served: tuple[str, ...] = ()  # what its engines say that it is
    routes: bool = True  # what only some of the engines can do to those; else it is refused

    @property
    def beside_tgi(self) -> bool:
        """Whether one of the engines is a TGI."""
        return any(offer.target.engine == "tgi" for offer in self.offers)

    def ready(self, now: float) -> bool:
        """Whether at least one engine is there for it, and not left alone."""
        return any(offer.target.ready(now) for offer in self.offers)

    @property
    def max_model_len(self) -> int | None:
        """The context that all of its engines have."""
        return min((offer.max_model_len for offer in self.offers if offer.max_model_len), default=None)


class Catalog:
    """The models, by every name that clients may use."""

    def __init__(self, config: Config, created: int) -> None:
        self.created = created  # Unix seconds; what `GET /v1/models` says of each
        self.targets: list[Target] = []
        self.entries: dict[str, Entry] = {}
        self._models: list[tuple[Model, list[Target]]] = []
        self._names: dict[str, Entry] = {}
        self.replace(config)

    def replace(self, config: Config) -> None:
        """Follow a changed configuration: an engine that stays keeps all that is known of it, and its requests."""
        known = self.targets
        self.targets = []
        self._models = [
            (model, [self._target(one, config, known) for one in model.deployments]) for model in config.models
        ]
        self.refresh()

    def _target(self, deployment: Deployment, config: Config, known: list[Target]) -> Target:
        target = next((target for target in known if target.is_for(deployment)), None)
        if target is None:
            target = Target(deployment, config.breaker, config.health.slow_start)
        target.adopt(deployment, config.breaker, config.health.slow_start)
        self.targets.append(target)
        return target

    def refresh(self) -> None:
        """Make the list of models anew from what the engines have said."""
        entries: dict[str, Entry] = {}
        for model, targets in self._models:
            for name, offers in _offers(model, targets).items():
                known = entries.get(name)
                aliases = [*(known.aliases if known else []), *model.aliases]
                routes = model.on_unsupported == "route" and (known is None or known.routes)
                settings = known.settings if known else model
                together = [*(known.offers if known else []), *offers]
                served = tuple(sorted({offer.served for offer in together}))
                entries[name] = Entry(name, aliases, together, settings, served, routes)
        self.entries = entries
        self._names = {alias: entry for entry in entries.values() for alias in entry.aliases} | entries

    def find(self, name: str) -> Entry:
        """Return the model that a client means. Raises ModelNotFound, or Unavailable if no engine has answered."""
        entry = self._names.get(name)
        if entry is not None:
            return entry
        if len(self.entries) == 1 and name in ANY_MODEL:
            return next(iter(self.entries.values()))
        if not self.entries:
            raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})
        there = ", ".join(self.entries)
        if not name:
            raise ModelNotFound(f"'model' is required; there are: {there}.", "model")
        raise ModelNotFound(f"The model '{name}' does not exist; there are: {there}.", "model")


def _offers(model: Model, targets: list[Target]) -> dict[str, list[Offer]]:
    """Return the offers of a configured model, by the name that clients use."""
    offers: dict[str, list[Offer]] = {model.name: []} if model.name else {}
    for target in targets:
        for served in _served(target, bool(model.name)):
            offers.setdefault(model.name or served.name, []).append(
                Offer(
                    target,
                    served.model if target.model in ("", served.name) else target.model,
                    served.max_model_len,
                    served.sees or target.vision,
                    f"{target.engine}/{served.name}",
                )
            )
    return offers


def _served(target: Target, named: bool) -> list[Served]:
    """Return what counts of what an engine serves: behind a configured name, one model of it."""
    chosen = [one for one in target.served if target.model in (one.name, one.model)]
    if not named:
        return chosen if target.model else target.served
    if not target.served:  # not heard yet, and still behind the name; an empty model means the engine's own
        return [Served("", "tgi" if target.engine == "tgi" else "")]
    if target.model and not chosen:
        return [Served(target.model, target.model, target.served[0].max_model_len if target.served else None)]
    return (chosen or target.served)[:1]
