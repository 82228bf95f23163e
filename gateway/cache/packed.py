"""An entry as bytes, for Redis: a header of fixed length, and the answer behind it, compressed where it is large.

    4  "PSMC"    magic
    1  version   of what follows
    1  flags     1: compressed (zlib, RFC 1950)
    32 digest    the key it was kept under, so that a value under another's key is known as such
    8  created   Unix seconds, a double
    8  ttl       seconds, a double
    4  size      of the payload, uncompressed
    4  checksum  CRC-32 of all before and of the payload as it stands here

The payload is a MessagePack array: the model, the whole answer, the lines, the usage.
"""

import struct
import zlib
from typing import Literal

import msgspec

from backends.schema import Usage
from gateway.cache.entry import CachedAnswer, Label

MAGIC = b"PSMC"
VERSION = 1
COMPRESSED = 1
WORTH_IT = 1024  # bytes of payload, from which on it is compressed
LEVEL = 1  # the fastest: the lines of a stream are much alike
MAX_SIZE = 8 * 2**20  # bytes of payload

Fault = Literal["corrupt", "version", "oversize", "poisoned"]

_header = struct.Struct(">4sBB32sddI")
_checksum = struct.Struct(">I")
_START = _header.size + _checksum.size
_write = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(tuple[str, bytes, bytes, Usage | None]).decode


class UnreadableEntry(Exception):
    """A value that is no entry of this version, or not the one that was asked for; `fault` says which."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault: Fault = fault


def pack(entry: CachedAnswer) -> bytes:
    """Return an entry as bytes. Raises UnreadableEntry (oversize) if it would not be read again."""
    label = entry.label
    payload = _write((label.model, entry.whole, entry.lines, entry.usage))
    size = len(payload)
    if size > MAX_SIZE:
        raise UnreadableEntry("oversize")
    flags = COMPRESSED if size >= WORTH_IT else 0
    if flags:
        payload = zlib.compress(payload, LEVEL)
    header = _header.pack(MAGIC, VERSION, flags, label.digest, label.created, label.ttl, size)
    return header + _checksum.pack(zlib.crc32(payload, zlib.crc32(header))) + payload


def unpack(value: bytes, digest: bytes) -> CachedAnswer:
    """Return the entry that was kept under a digest. Raises UnreadableEntry."""
    if len(value) > MAX_SIZE + _START:
        raise UnreadableEntry("oversize")
    if len(value) < _START or not value.startswith(MAGIC):
        raise UnreadableEntry("corrupt")
    _, version, flags, kept, created, ttl, size = _header.unpack_from(value)
    if version != VERSION:
        raise UnreadableEntry("version")
    (checksum,) = _checksum.unpack_from(value, _header.size)
    if zlib.crc32(value[_START:], zlib.crc32(value[: _header.size])) != checksum:
        raise UnreadableEntry("corrupt")
    if kept != digest:
        raise UnreadableEntry("poisoned")
    try:
        model, whole, lines, usage = _read(_payload(value[_START:], flags, size))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableEntry("corrupt") from error
    return CachedAnswer(Label(digest, model, created, ttl), whole, lines, usage)


def _payload(data: bytes, flags: int, size: int) -> bytes:
    """Return the payload, of which no more than it says and no more than the limit is ever unpacked."""
    if size > MAX_SIZE:
        raise UnreadableEntry("oversize")
    if flags & COMPRESSED:
        try:
            data = zlib.decompressobj().decompress(data, size + 1)
        except zlib.error as error:
            raise UnreadableEntry("corrupt") from error
    if len(data) != size:
        raise UnreadableEntry("corrupt")
    return data
