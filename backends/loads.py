"""What an engine says of its own load in its metrics (CONTRACT.md 6), under one name for each engine.

Prometheus text, format 0.0.4: a line is `name{labels} value`. Only a few lines of thousands are of interest, so the
text is searched for those. Replicas inside an engine have a label each: their values are added up, and the largest
share counts.
"""

import re
from collections.abc import Mapping
from math import isfinite

from msgspec import Struct


class Load(Struct, frozen=True, kw_only=True):
    """Requests that run and wait, the KV cache's share in use, tokens that the prefix cache was asked for and had.

    None is what the engine does not tell.
    """

    running: float | None = None
    waiting: float | None = None
    kv_use: float | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None


class LoadReader:
    """Reads an engine's metrics; made of where they are, and the engine's name for each field of Load."""

    def __init__(self, path: str, names: Mapping[str, str]) -> None:
        self.path = path  # empty: the engine has none
        self._fields = {name.encode(): field for field, name in names.items()}
        any_name = b"|".join(re.escape(name) for name in self._fields)
        self._line = re.compile(rb"^(" + any_name + rb")(?:\{[^\n]*\})? ([0-9.eE+-]+)", re.MULTILINE)

    def read(self, body: bytes) -> Load:
        """Return what the metrics say; what cannot be read is not there."""
        found: dict[str, float] = {}
        for name, value in self._line.findall(body):
            try:
                number = float(value)
            except ValueError:
                continue
            if not isfinite(number):
                continue
            field = self._fields[name]
            known = found.get(field, 0.0)
            found[field] = max(known, number) if field == "kv_use" else known + number
        return Load(**found)
