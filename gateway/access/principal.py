"""Who asks: what a key stands for. Without keys all are the same nobody in particular."""

from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

Tier = Literal["priority", "flex"]


class Principal(Struct, frozen=True, kw_only=True):
    """A key's holder. `id` is the key's own, and empty without keys; a limit of 0 is none.

    `models` are patterns of model names (`llama-*`), none meaning all. `tier` is the best that the key may ask for.
    """

    id: str = ""
    tenant: str = ""
    models: tuple[str, ...] = ()
    admin: bool = False
    tier: Tier = "priority"
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    max_in_flight: int = 0

    @property
    def limited(self) -> bool:
        """Whether the key has any limit."""
        return bool(self.requests_per_minute or self.tokens_per_minute or self.max_in_flight)

    def may_ask(self, model: str) -> bool:
        """Whether the key is good for a model."""
        return not self.models or any(fnmatchcase(model, pattern) for pattern in self.models)


ANYBODY = Principal()
