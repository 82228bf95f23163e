"""The list of keys, as a table for people and as JSON for scripts; never a hash. Pure.

The JSON document: {"keys": [{"id", "name", "state": "in force" | "expired" | "revoked", "tenant", "models", "admin",
"tier", "no_shadow", "requests_per_minute", "tokens_per_minute", "max_in_flight", "created", "expires", "revoked"}]}.
Times are of RFC 3339, or null. Fields may be added; none goes away or changes its meaning.
"""

from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from gateway.access.keys.table import Key

COLOURS = {"in force": "green", "expired": "yellow", "revoked": "red"}
LIMITS = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "max_in_flight": "in flight"}


def state(key: Key, now: float) -> str:
    """Return what a key is good for at a time in Unix seconds."""
    if key.revoked:
        return "revoked"
    return "expired" if key.expires and now >= key.expires.timestamp() else "in force"


def document(keys: list[Key], now: float) -> dict[str, Any]:
    """Return the list as this file's opening says."""
    return {"keys": [_fields(key) | {"state": state(key, now)} for key in keys]}


def _fields(key: Key) -> dict[str, Any]:
    fields = {field: getattr(key, field) for field in key.__struct_fields__ if field != "hash"}
    return fields | {"tenant": key.tenant or key.id}


def table(keys: list[Key], now: float) -> Table:
    """Return the list as a table, a row a key."""
    made = Table("id", "name", "state", "tenant", "models", "may", "limits", "expires", box=None, pad_edge=False)
    for key in keys:
        stands = state(key, now)
        cells = [key.tenant or key.id, ", ".join(key.models) or "all", _may(key), _limits(key), _day(key.expires)]
        made.add_row(key.id, Text(key.name), Text(stands, COLOURS[stands]), *(Text(cell) for cell in cells))
    return made


def _may(key: Key) -> str:
    return ", ".join([key.tier, *(["admin"] if key.admin else []), *(["no shadow"] if key.no_shadow else [])])


def _limits(key: Key) -> str:
    given = {words: getattr(key, field) for field, words in LIMITS.items()}
    return ", ".join(f"{value} {words}" for words, value in given.items() if value) or "none"


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else "never"
