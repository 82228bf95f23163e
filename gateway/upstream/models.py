"""Which models there are, and which deployments serve each: discovered from the engines, again and again.

An engine may come up later than the gateway, go away, and come back with another model; the catalog follows.
A model keeps the engines that offered it while they are away, so that a client is told 503 and not 404.
"""

from hashlib import sha256

from msgspec import Struct
from msgspec.structs import replace

from backends.base import ServedModel
from gateway.access.principal import ANYBODY, Principal
from gateway.config import Config, DeploymentConfig, ModelConfig
from gateway.http.errors import RETRY_AFTER, ModelNotFound, Unavailable
from gateway.upstream.breaker import Breaker
from gateway.upstream.endpoints import Endpoint

# What TGI's examples and huggingface_hub send for "the model that you serve", besides nothing at all.
ANY_MODEL = frozenset({"", "tgi", "dummy"})


class Candidate(Struct, frozen=True):
    """A deployment that serves a model: what a request must call the model there, and its context length in tokens.

    `only`: no other deployment serves the model. Then it is not ejected for what it answers over HTTP.
    """

    endpoint: Endpoint
    model: str
    max_model_len: int | None
    supports_vision: bool = False
    served: str = ""  # what the engine itself says that this is
    system_fingerprint: str = ""  # of all that it says of itself
    only: bool = False

    @property
    def breaker(self) -> Breaker:
        """The circuit breaker that lets the model's requests through, or not."""
        return self.endpoint.connection if self.only else self.endpoint.breaker

    def may_be_asked(self, now: float) -> bool:
        """Whether its circuit lets requests through, and it has not asked to be left in peace."""
        return self.breaker.allows(now) and now >= self.endpoint.pause.until

    def ready(self, now: float) -> bool:
        """Whether it is up, and its circuit lets requests through. One that has no room for a moment is ready."""
        return self.endpoint.up and self.breaker.allows(now)


class ModelRoute(Struct, frozen=True):
    """A model as clients see it."""

    name: str
    aliases: list[str]
    candidates: list[Candidate]
    settings: ModelConfig
    served: tuple[str, ...] = ()  # what its engines say that it is
    by_capability: bool = True  # what only some of the engines can do to those; else it is refused
    with_tgi_peer: bool = False  # one of the engines is a TGI

    @property
    def tools_in_prompt(self) -> bool:
        """Whether tools go into the prompt of an engine whose chat template knows none."""
        wanted = self.settings.tools_in_prompt
        return wanted == "always" or (wanted == "auto" and self.with_tgi_peer)

    def ready(self, now: float) -> bool:
        """Whether at least one deployment is up, and its circuit closed."""
        return any(candidate.ready(now) for candidate in self.candidates)

    @property
    def max_model_len(self) -> int | None:
        """The context that all of its engines have."""
        return min((candidate.max_model_len for candidate in self.candidates if candidate.max_model_len), default=None)


class Catalog:
    """The models: `routes` by their own names, `names` by every name that clients may use, aliases too."""

    def __init__(self, config: Config, created: int) -> None:
        self.created = created  # Unix seconds; what `GET /v1/models` says of each
        self.endpoints: list[Endpoint] = []
        self.routes: dict[str, ModelRoute] = {}
        self.names: dict[str, ModelRoute] = {}
        self._models: list[tuple[ModelConfig, list[Endpoint]]] = []
        self.replace(config)

    @property
    def discovering(self) -> list[Endpoint]:
        """The deployments that serve what they say they serve, and so may come to serve another model."""
        return [endpoint for model, endpoints in self._models if not model.name for endpoint in endpoints]

    def replace(self, config: Config) -> None:
        """Follow a changed configuration: an engine that stays keeps all that is known of it, and its requests."""
        known = self.endpoints
        self.endpoints = []
        self._models = [
            (model, [self._endpoint(one, config, known) for one in model.deployments]) for model in config.models
        ]
        self.refresh()

    def _endpoint(self, deployment: DeploymentConfig, config: Config, known: list[Endpoint]) -> Endpoint:
        endpoint = next((endpoint for endpoint in known if endpoint.is_for(deployment)), None)
        if endpoint is None:
            endpoint = Endpoint(deployment, config.breaker, config.health.slow_start)
        endpoint.adopt(deployment, config.breaker, config.health.slow_start)
        self.endpoints.append(endpoint)
        return endpoint

    def refresh(self) -> None:
        """Make the list of models anew from what the engines have said."""
        routes: dict[str, ModelRoute] = {}
        for model, endpoints in self._models:
            for name, candidates in _candidates(model, endpoints).items():
                known = routes.get(name)
                aliases = [*(known.aliases if known else []), *model.aliases]
                by_capability = model.on_unsupported == "route" and (known is None or known.by_capability)
                settings = known.settings if known else model
                together = [*(known.candidates if known else []), *candidates]
                together = [replace(candidate, only=len(together) == 1) for candidate in together]
                served = tuple(sorted({candidate.served for candidate in together}))
                with_tgi = any(candidate.endpoint.engine == "tgi" for candidate in together)
                routes[name] = ModelRoute(name, aliases, together, settings, served, by_capability, with_tgi)
        self.routes = routes
        self.names = dict(routes)
        for route in routes.values():
            for alias in route.aliases:
                self.names.setdefault(alias, route)

    def find(self, name: str, principal: Principal = ANYBODY) -> ModelRoute:
        """Return the model that a client means, whether or not its key is good for it.

        Raises ModelNotFound, which tells of no model but those that the key is good for, or Unavailable if no engine
        has answered.
        """
        route = self.names.get(name)
        if route is not None:
            return route
        if len(self.routes) == 1 and name in ANY_MODEL:
            return next(iter(self.routes.values()))
        if not self.routes:
            raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})
        lacking = f"The model '{name}' does not exist" if name else "'model' is required"
        raise ModelNotFound(f"{lacking}{self.listed(principal)}.", "model")

    def listed(self, principal: Principal) -> str:
        """Return the end of a sentence that names the models that a key is good for; nothing if there are none."""
        there = ", ".join(name for name in self.routes if principal.may_ask(name))
        return there and f"; there are: {there}"


def _candidates(model: ModelConfig, endpoints: list[Endpoint]) -> dict[str, list[Candidate]]:
    """Return the candidates of a configured model, by the name that clients use."""
    candidates: dict[str, list[Candidate]] = {model.name: []} if model.name else {}
    for endpoint in endpoints:
        for served in _served(endpoint, bool(model.name)):
            candidates.setdefault(model.name or served.name, []).append(
                Candidate(
                    endpoint,
                    served.model if endpoint.model in ("", served.name) else endpoint.model,
                    served.max_model_len,
                    served.supports_vision or endpoint.vision,
                    f"{endpoint.engine}/{served.name}",
                    system_fingerprint(endpoint.engine, served),
                )
            )
    return candidates


def system_fingerprint(engine: str, served: ServedModel) -> str:
    """Return what clients are told of an engine's configuration: `fp_` and ten hexadecimal digits.

    They are of all that the engine says of itself. It changes when the engine does (OpenAI API reference, "The chat
    completion object"), and tells nothing else.
    """
    said = (engine, served.name, str(served.max_model_len), *served.identity)
    return "fp_" + sha256("\0".join(said).encode()).hexdigest()[:10]


def _served(endpoint: Endpoint, named: bool) -> list[ServedModel]:
    """Return what counts of what an engine serves: behind a configured name, one model of it."""
    chosen = [one for one in endpoint.served if endpoint.model in (one.name, one.model)]
    if not named:
        return chosen if endpoint.model else endpoint.served
    if not endpoint.served:  # not heard yet, and still behind the name; an empty model means the engine's own
        return [ServedModel("", "tgi" if endpoint.engine == "tgi" else "")]
    if endpoint.model and not chosen:
        return [
            ServedModel(endpoint.model, endpoint.model, endpoint.served[0].max_model_len if endpoint.served else None)
        ]
    return (chosen or endpoint.served)[:1]
