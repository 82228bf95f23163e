"""Reads an engine's load from its metrics (CONTRACT.md 6); all engines' figures have the same names here.

Prometheus text, format 0.0.4: a line is `name{labels} value`. Only a few lines of thousands are of interest, so the
text is searched for those. If an engine has several replicas, each with its own label, their values are added up; of
the KV cache's use, the maximum is taken.
"""

import re
from collections.abc import Mapping
from math import isfinite

from msgspec import Struct


class Load(Struct, frozen=True, kw_only=True):
    """Running and waiting requests, used fraction of the KV cache (0 to 1), prefix cache queries and hits in tokens.

    None: the engine does not report it.
    """

    running: float | None = None
    waiting: float | None = None
    kv_use: float | None = None
    prefix_queries: float | None = None
    prefix_hits: float | None = None


class LoadReader:
    """Reads an engine's metrics: `path` is where they are, `names` maps the fields of Load to the engine's metrics."""

    def __init__(self, path: str, names: Mapping[str, str]) -> None:
        self.path = path  # empty: the engine has none
        self._fields = {name.encode(): field for field, name in names.items()}
        any_name = b"|".join(re.escape(name) for name in self._fields)
        self._line = re.compile(rb"^(" + any_name + rb")(?:\{[^\n]*\})? ([0-9.eE+-]+)", re.MULTILINE)

    def read(self, body: bytes) -> Load:
        """Return the load; a value that cannot be read is None."""
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
