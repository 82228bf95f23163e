"""What a client asks of the cache: the words of `cache-control` (RFC 9111, 5.2.1) and `x-pointsman-cache`. Pure."""

from collections.abc import Mapping

from msgspec import Struct

HEADERS = (b"x-pointsman-cache", b"cache-control")
ASKED = b"cache"  # of `x-pointsman-cache`: keep an answer that is not the same each time, too


class CacheControl(Struct, frozen=True):
    """Whether to look an answer up, to keep it, and whether the client asks for that aloud."""

    look: bool = True
    keep: bool = True
    asked: bool = False

    @property
    def share(self) -> bool:
        """Whether the request may share an answer in flight: only one that is both looked up and kept."""
        return self.look and self.keep


NOTHING_SAID = CacheControl()


def words(headers: Mapping[bytes, bytes]) -> CacheControl:
    """Return what a request's headers say: `no-cache` is not looked up, but kept; `no-store` neither."""
    said = [headers[name] for name in HEADERS if name in headers]
    if not said:
        return NOTHING_SAID
    given = {word.strip().lower() for word in b",".join(said).split(b",")}
    no_store = b"no-store" in given
    asked = ASKED in {word.strip().lower() for word in headers.get(HEADERS[0], b"").split(b",")}
    return CacheControl(look=not no_store and b"no-cache" not in given, keep=not no_store, asked=asked)
