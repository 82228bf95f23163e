"""Which models there are, and which engines offer each: asked of the engines, again and again.

An engine may come up later than the gateway, go away, and come back with another model; the catalog follows.
A model keeps the engines that offered it while they are away, so that a client is told 503 and not 404.
"""

from msgspec import Struct

from backends.base import Served
from gateway.config import Config, DeploymentConfig, ModelConfig
from gateway.http.errors import RETRY_AFTER, ModelNotFound, Unavailable
from gateway.upstream.endpoints import Endpoint

# What TGI's examples and huggingface_hub send for "the model that you serve", besides nothing at all.
ANY_MODEL = frozenset({"", "tgi", "dummy"})


class Candidate(Struct, frozen=True):
    """A deployment's offer of a model: what a request must call it there, and how many tokens it holds."""

    target: Endpoint
    model: str
    max_model_len: int | None
    sees: bool = False
    served: str = ""  # what the engine itself says that this is


class Entry(Struct, frozen=True):
    """A model as clients see it."""

    name: str
    aliases: list[str]
    offers: list[Candidate]
    settings: ModelConfig
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
        self.targets: list[Endpoint] = []
        self.entries: dict[str, Entry] = {}
        self._models: list[tuple[ModelConfig, list[Endpoint]]] = []
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

    def _target(self, deployment: DeploymentConfig, config: Config, known: list[Endpoint]) -> Endpoint:
        target = next((target for target in known if target.is_for(deployment)), None)
        if target is None:
            target = Endpoint(deployment, config.breaker, config.health.slow_start)
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


def _offers(model: ModelConfig, targets: list[Endpoint]) -> dict[str, list[Candidate]]:
    """Return the offers of a configured model, by the name that clients use."""
    offers: dict[str, list[Candidate]] = {model.name: []} if model.name else {}
    for target in targets:
        for served in _served(target, bool(model.name)):
            offers.setdefault(model.name or served.name, []).append(
                Candidate(
                    target,
                    served.model if target.model in ("", served.name) else target.model,
                    served.max_model_len,
                    served.sees or target.vision,
                    f"{target.engine}/{served.name}",
                )
            )
    return offers


def _served(target: Endpoint, named: bool) -> list[Served]:
    """Return what counts of what an engine serves: behind a configured name, one model of it."""
    chosen = [one for one in target.served if target.model in (one.name, one.model)]
    if not named:
        return chosen if target.model else target.served
    if not target.served:  # not heard yet, and still behind the name; an empty model means the engine's own
        return [Served("", "tgi" if target.engine == "tgi" else "")]
    if target.model and not chosen:
        return [Served(target.model, target.model, target.served[0].max_model_len if target.served else None)]
    return (chosen or target.served)[:1]
