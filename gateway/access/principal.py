"""Who asks: what a key stands for. Without keys all are the same nobody in particular."""

from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

Tier = Literal["priority", "flex"]


class Principal(Struct, frozen=True, kw_only=True):
    """A key's holder. `id` is the key's own, and empty without keys; a limit of 0 is none.

    What is used is counted for the tenant: its keys share the counters, and each has its own limits. `tenant_limited`:
    the key has none, but another one of the tenant's has, so that what this one uses has to be counted. `models` are
    patterns of model names (`llama-*`), none meaning all. `tier` is the best that the key may ask for. `may_shadow`:
    what it asks may be asked of other engines beside, too (`gateway.experiments.shadow`).
    """

    id: str = ""
    tenant: str = ""
    models: tuple[str, ...] = ()
    admin: bool = False
    tier: Tier = "priority"
    may_shadow: bool = True
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0
    tenant_limited: bool = False

    @property
    def account(self) -> str:
        """Whose counters they are: the tenant's, or the key's own if it has none."""
        return self.tenant or self.id

    @property
    def counted(self) -> bool:
        """Whether what it uses has to be counted."""
        return self.limited or self.tenant_limited

    @property
    def limited(self) -> bool:
        """Whether the key itself has any limit."""
        return bool(self.requests_per_minute or self.tokens_per_minute or self.max_in_flight)

    def may_ask(self, model: str) -> bool:
        """Whether the key is good for a model."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


ANYBODY = Principal()
