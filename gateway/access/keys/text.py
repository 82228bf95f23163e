"""The text of a key: `sk-pm-<id>-<secret>`; how it is made, hashed, and told from others without being told.

A key is 256 random bits, so SHA-256 is hash enough: there is nothing to guess that a slow hash (bcrypt, Argon2) could
protect, and a slow hash would be paid with every request.
"""

from base64 import b32encode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256

PREFIX = "sk-pm-"
ID_BYTES = 5  # 8 characters of base32
SECRET_BYTES = 32  # 43 characters of base64url


def fresh(token_bytes: Callable[[int], bytes]) -> str:
    """Return the text of a new key; `token_bytes` gives so many random bytes, as `secrets.token_bytes` does."""
    name = b32encode(token_bytes(ID_BYTES)).decode().lower()
    secret = urlsafe_b64encode(token_bytes(SECRET_BYTES)).decode().rstrip("=")
    return f"{PREFIX}{name}-{secret}"


def id_of(text: str) -> str:
    """Return the id that a key names, which is no secret; anything at all if the text is no key."""
    return text[len(PREFIX) :].partition("-")[0]


def digest(text: str) -> bytes:
    """Return the 32 bytes that are kept of a key."""
    return sha256(text.encode(errors="replace")).digest()


def masked(text: str) -> str:
    """Return what may be said of a text that came as a key: of somebody else's secret nothing."""
    return f"{text[: len(PREFIX) + 2]}****" if text.startswith(PREFIX) else "****"
