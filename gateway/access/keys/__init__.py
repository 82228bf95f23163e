"""API keys: made by `pointsman keys`, kept as hashes in `keys.toml`, checked with each request.

    text      a key as the client sends it: making, hashing and masking it
    table     `keys.toml`, read and written
    file      changing the file: one at a time, and all or nothing
    show      the list, for people and as JSON
    commands  what `pointsman keys create`, `list` and `revoke` do

The Keyring here is what a request meets; it opens no file (see `gateway.server.file_watcher`).
"""

import hmac
import math
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from gateway.access.keys.table import Key, read
from gateway.access.keys.text import PREFIX, digest, id_of, masked
from gateway.access.principal import ANYBODY, Principal
from gateway.http.errors import Unauthorized

__all__ = ["Keyring"]

REFUSED = {"www-authenticate": 'Bearer error="invalid_token"'}  # RFC 6750, 3.1


class _Held(Struct, frozen=True):
    """A key in memory: the digest, whom it stands for, and from when (Unix seconds) it is no good, and why."""

    digest: bytes
    principal: Principal
    ends: float
    why: str


# Compared with in place of an id that is unknown, so that an answer takes as long and does not tell which ids there
# are. No text is known that hashes to nought; it would have expired, besides.
_NOBODY = _Held(bytes(32), ANYBODY, -math.inf, "is nobody's")


class Keyring:
    """The keys in force. Raises ConfigError with every fault of a `keys.toml` that cannot be taken."""

    def __init__(self, text: str) -> None:
        self._held: dict[str, _Held] = {}
        self.take(text)

    def take(self, text: str) -> None:
        """Put the keys of a `keys.toml` in force, or raise ConfigError with every fault and keep those before."""
        keys = read(text)
        limited = {key.principal().account for key in keys if key.principal().limited}
        self._held = {key.id: _hold(key, limited) for key in keys}

    def check(self, presented: str, now: float) -> Principal:
        """Return whom a key stands for at a time in Unix seconds. Raises Unauthorized.

        Only who holds the whole key hears that it has expired or was revoked.
        """
        held = self._held.get(id_of(presented), _NOBODY)
        if not hmac.compare_digest(digest(presented), held.digest):
            message = f"Incorrect API key provided: {masked(presented)}. Ask whoever runs this gateway for a key."
            raise Unauthorized(message, headers=REFUSED)
        if now >= held.ends:
            raise Unauthorized(f"The API key {PREFIX}{held.principal.id}-**** {held.why}.", headers=REFUSED)
        return held.principal


def _hold(key: Key, limited: set[str]) -> _Held:
    """Return a key as it is held in memory; `limited` are the tenants of which some key has limits."""
    ends, why = math.inf, ""
    if key.expires:
        ends, why = key.expires.timestamp(), f"expired at {_said(key.expires)}"
    if key.revoked:  # whatever time it says: a clock that is ahead elsewhere is no reason to wait
        ends, why = -math.inf, f"was revoked at {_said(key.revoked)}"
    principal = key.principal()
    if not principal.limited and principal.account in limited:
        principal = msgspec.structs.replace(principal, tenant_limited=True)
    return _Held(bytes.fromhex(key.hash.removeprefix("sha256:")), principal, ends, why)


def _said(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
