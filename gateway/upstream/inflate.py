"""Bodies that an engine, or what stands before it, compresses though it was not asked to (RFC 9110, 8.4)."""

import zlib
from collections.abc import Awaitable, Callable

from gateway.upstream.answer import Malformed

Read = Callable[[], Awaitable[bytes]]

EITHER = 32 + zlib.MAX_WBITS  # gzip's header, or zlib's
AT_ONCE = 1 << 20  # bytes that are made of one read, so that a small answer cannot fill the memory
IDENTITY = (b"", b"identity")
KNOWN = (b"gzip", b"x-gzip", b"deflate")


def inflated(read: Read, coding: bytes) -> Read:
    """Return what reads a body as it was before its content coding. Raises Malformed for one that is not known."""
    coding = coding.strip().lower()
    if coding in IDENTITY:
        return read
    if coding not in KNOWN:
        raise Malformed(f"the content coding {coding.decode('latin-1')!r} was not asked for")
    return Inflated(read).chunk


class Inflated:
    """A compressed body."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._zlib = zlib.decompressobj(EITHER)
        self._begun = False

    async def chunk(self) -> bytes:
        """Return some of the body, as soon as there is any; at the end, nothing. Raises Malformed."""
        while not self._zlib.eof:
            data = self._zlib.unconsumed_tail or await self._read()
            if not data:
                if self._begun:
                    raise Malformed("a compressed body that is cut off")
                return b""
            self._begun = True
            try:
                if some := self._zlib.decompress(data, AT_ONCE):
                    return some
            except zlib.error as error:
                raise Malformed(f"a compressed body that cannot be read: {error}") from error
        while await self._read():  # to the end of the connection's use; nothing belongs there
            pass
        return b""
