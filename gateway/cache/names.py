"""The names of the keys in Redis. Pure."""

from urllib.parse import quote

PREFIX = "pointsman:1:"
LEASE = ":lease"  # at the end of a name: no value, but somebody's promise of one


def of_model(model: str) -> str:
    """Return how the names of a model's values begin; nothing in them is a pattern or a Cluster's hash tag."""
    return f"{PREFIX}{quote(model, safe='')}:"


def name_of(model: str, digest: bytes) -> str:
    """Return the name of a value."""
    return of_model(model) + digest.hex()
