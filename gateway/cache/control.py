"""What a client asks of the cache: the words of `cache-control` (RFC 9111, 5.2.1) and `x-pointsman-cache`. Pure."""

from collections.abc import Mapping

from msgspec import Struct

HEADERS = (b"x-pointsman-cache", b"cache-control")
FORCED = b"cache"  # of `x-pointsman-cache`: store an answer that is not the same each time, too


class CacheControl(Struct, frozen=True):
    """Whether an answer is looked up and stored; `forced`: stored although it may differ each time."""

    lookup: bool = True
    store: bool = True
    forced: bool = False

    @property
    def coalesce(self) -> bool:
        """Whether the request may share an answer in flight: only one that is both looked up and kept."""
        return self.lookup and self.store


NOTHING_SAID = CacheControl()


def words(headers: Mapping[bytes, bytes]) -> CacheControl:
    """Return what a request's headers say: `no-cache` is not looked up, but kept; `no-store` neither."""
    said = [headers[name] for name in HEADERS if name in headers]
    if not said:
        return NOTHING_SAID
    given = {word.strip().lower() for word in b",".join(said).split(b",")}
    no_store = b"no-store" in given
    forced = FORCED in {word.strip().lower() for word in headers.get(HEADERS[0], b"").split(b",")}
    return CacheControl(lookup=not no_store and b"no-cache" not in given, store=not no_store, forced=forced)
