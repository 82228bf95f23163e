"""API keys of tests: a good one, variants of it, and a file of faulty ones."""

from datetime import UTC, datetime

import msgspec

from gateway.access.keys import Keyring
from gateway.access.keys.table import Key, write
from gateway.access.keys.text import digest

NOW = 1_800_000_000
SECRET = "c2VjcmV0-c2VjcmV0_c2VjcmV0c2VjcmV0c2VjcmV0c2"
GOOD = f"sk-pm-abcd2345-{SECRET}"
HASH = f"sha256:{digest(GOOD).hex()}"
PLAIN = Key(id="abcd2345", name="alice", hash=HASH)


def at(seconds: float) -> datetime:
    """Return a time in seconds since the epoch as a TOML file holds it."""
    return datetime.fromtimestamp(seconds, UTC)


def ring(*keys: Key) -> Keyring:
    """Return the keyring of a file with these keys."""
    return Keyring(write(list(keys)))


def changed(**fields: object) -> Key:
    """Return the good key with other fields."""
    return msgspec.structs.replace(PLAIN, **fields)


# Each table has a fault, most have several.
FAULTY = f"""
kees = 1
[[keys]]
id = "UPPER"
name = ""
hash = "{GOOD}"
admin = "yes"
[[keys]]
name = "bob"
hash = "{HASH}"
tier = "gold"
max_in_fligth = 1
requests_per_minute = -1
expires = 2027-01-01T00:00:00
[[keys]]
id = "abcd2345"
name = "bob"
hash = "{HASH}"
models = ["a", ""]
[[keys]]
id = "abcd2345"
name = "carol"
hash = "{HASH}"
"""
