"""`keys.toml`: a `[[keys]]` table for each key, read with every fault reported at once, and written."""

import tomllib
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.access.principal import Principal, Tier
from gateway.config import ConfigError
from gateway.config.reader import read_table
from gateway.config.tables import Whole

OPENING = """\
# API keys, written by `pointsman keys`. Only their hashes are here: a key that is lost is made anew.
# A running gateway takes in each change. Comments of your own are lost with the next `pointsman keys`.

"""

Text = Annotated[str, Meta(min_length=1)]
Moment = Annotated[datetime, Meta(tz=True)]


class Key(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`[[keys]]`. `hash` is of the key's whole text; `models` are patterns, none meaning all; a limit of 0 is none.

    The keys of a tenant share its cached answers and its counters of requests, tokens and requests in flight; each is
    held to its own limits, by what all of them have used. An old and a new key of one tenant have no more than one.
    """

    id: Annotated[str, Meta(pattern="^[a-z0-9]{8,}$")]
    name: Text
    hash: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
    tenant: str = ""  # the key's own id if there is none
    models: list[Text] = []
    admin: bool = False
    tier: Tier = "priority"
    no_shadow: bool = False  # nothing of what it asks is sent to another engine beside
    requests_per_minute: Whole = 0
    tokens_per_minute: Whole = 0
    max_in_flight: Whole = 0
    created: Moment | None = None
    expires: Moment | None = None
    revoked: Moment | None = None

    def principal(self) -> Principal:
        """Return whom the key stands for."""
        return Principal(
            id=self.id,
            tenant=self.tenant or self.id,
            models=tuple(self.models),
            admin=self.admin,
            tier=self.tier,
            may_shadow=not self.no_shadow,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            max_in_flight=self.max_in_flight,
        )


class File(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of `keys.toml`."""

    keys: list[Key] = []


def read(text: str) -> list[Key]:
    """Read `keys.toml`. Raises ConfigError with every fault in it."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not valid TOML: {error}"]) from error
    faults: list[str] = []
    file = read_table(table, File, "", faults)
    assert isinstance(file, File)
    _tell_apart(file.keys, faults)
    if faults:
        raise ConfigError(faults)
    return file.keys


def write(keys: list[Key]) -> str:
    """Return `keys.toml`. Raises ConfigError if it could not be read again: a file is not broken by writing it."""
    text = OPENING + msgspec.toml.encode(File(keys=keys)).decode()
    read(text)
    return text


def _tell_apart(keys: list[Key], faults: list[str]) -> None:
    """Note ids that are taken twice, and names, except those of keys that are revoked."""
    taken: dict[str, int] = {}
    for place, key in enumerate(keys):
        claims = {"id": key.id, "name": "" if key.revoked else key.name}
        for what, value in claims.items():
            first = taken.setdefault(f"{what} {value}", place)
            if value and first != place:
                faults.append(f"keys[{place}].{what}: the {what} {value} is taken by keys[{first}]")
