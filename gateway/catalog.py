"""Which models there are, and which engines offer each: asked of the engines, again and again.

An engine may come up later than the gateway, go away, and come back with another model; the catalog follows.
A model keeps the engines that offered it while they are away, so that a client is told 503 and not 404.
"""

import logging
from collections.abc import Iterable

from msgspec import Struct
from yarl import URL

from backends import BACKENDS
from backends.base import Backend, Served
from gateway.config import Deployment, Model
from gateway.errors import RETRY_AFTER, ModelNotFound, Unavailable

# What TGI's examples and huggingface_hub send for "the model that you serve", besides nothing at all.
ANY_MODEL = frozenset({"", "tgi", "dummy"})

log = logging.getLogger("pointsman")


class Target:
    """One deployment, as it is known now."""

    def __init__(self, deployment: Deployment) -> None:
        self.name = deployment.name
        self.engine = deployment.engine
        self.url = deployment.url
        self.weight = deployment.weight
        self.model = deployment.model
        self.vision = deployment.vision
        self.backend: Backend = BACKENDS[deployment.engine]
        self.headers = {"content-type": "application/json"}
        if deployment.api_key:
            self.headers["authorization"] = f"Bearer {deployment.api_key}"
        self.answer_headers = [
            (b"x-pointsman-engine", deployment.engine.encode()),
            (b"x-pointsman-deployment", deployment.name.encode()),
        ]
        self.served: list[Served] = []
        self._urls: dict[str, URL] = {}
        self.up = False
        self.trouble = "it has not been asked yet"

    def at(self, path: str) -> URL:
        """Return the URL of a path; made once, as taking a text apart costs each request."""
        if path not in self._urls:
            self._urls[path] = URL(self.url + path)
        return self._urls[path]

    def heard(self, served: list[Served]) -> bool:
        """Note what the engine serves; return whether that is news."""
        news = not self.up or served != self.served
        if news:
            names = ", ".join(f"{one.name} ({one.max_model_len or '?'} tokens)" for one in served) or "nothing"
            log.info("%s at %s serves %s", self.name, self.url, names)
        self.up, self.served, self.trouble = True, served, ""
        return news

    def lost(self, why: str) -> None:
        """Note that the engine does not answer."""
        if self.trouble != why:
            log.warning("%s: %s", self.name, why)
        self.up, self.trouble = False, why


class Offer(Struct, frozen=True):
    """A deployment's offer of a model: what a request must call it there, and how many tokens it holds."""

    target: Target
    model: str
    max_model_len: int | None
    sees: bool = False


class Entry(Struct, frozen=True):
    """A model as clients see it."""

    name: str
    aliases: list[str]
    offers: list[Offer]
    routes: bool = True  # what only some of the engines can do to those; else it is refused

    @property
    def beside_tgi(self) -> bool:
        """Whether one of the engines is a TGI."""
        return any(offer.target.engine == "tgi" for offer in self.offers)

    @property
    def ready(self) -> bool:
        """Whether at least one engine is there for it."""
        return any(offer.target.up for offer in self.offers)

    @property
    def max_model_len(self) -> int | None:
        """The context that all of its engines have."""
        return min((offer.max_model_len for offer in self.offers if offer.max_model_len), default=None)


class Catalog:
    """The models, by every name that clients may use."""

    def __init__(self, models: Iterable[Model], created: int) -> None:
        self.created = created  # Unix seconds; what `GET /v1/models` says of each
        self._models = [(model, [Target(one) for one in model.deployments]) for model in models]
        self.targets = [target for _, targets in self._models for target in targets]
        self.entries: dict[str, Entry] = {}
        self._names: dict[str, Entry] = {}
        self.refresh()

    def refresh(self) -> None:
        """Make the list of models anew from what the engines have said."""
        self.entries = {}
        for model, targets in self._models:
            for name, offers in _offers(model, targets).items():
                known = self.entries.get(name)
                aliases = [*(known.aliases if known else []), *model.aliases]
                routes = model.on_unsupported == "route" and (known is None or known.routes)
                self.entries[name] = Entry(name, aliases, [*(known.offers if known else []), *offers], routes)
        self._names = {alias: entry for entry in self.entries.values() for alias in entry.aliases} | self.entries

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
