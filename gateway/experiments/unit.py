"""What stays in one arm, as a number of 64 bits: a keyed hash, the same on every worker, gateway and day. Pure.

Its bits are used for different things and are independent of each other: the bucket that decides on the arm, the place
in the map of units that were seen, the draw of conversations for the shadow, and of those that are asked twice.
BLAKE2b (RFC 7693); the key is the experiment's name, so that two experiments draw independently.
"""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from backends.schema import ChatRequest, Message

BUCKETS = 1024
PLACES = 1 << 18  # in the map of units that were seen
_DRAWS = 1 << 24
_KEY = 64  # bytes, the longest that BLAKE2b takes


class DrawnUnit(Struct, frozen=True):
    """A unit's number."""

    number: int

    @property
    def bucket(self) -> int:
        """Which of the 1,024 buckets it is in."""
        return self.number & (BUCKETS - 1)

    @property
    def place(self) -> int:
        """Its place in the map of units that were seen, which some share."""
        return (self.number >> 10) & (PLACES - 1)

    @property
    def draw(self) -> float:
        """A number from 0 to below 1."""
        return ((self.number >> 28) & (_DRAWS - 1)) / _DRAWS

    @property
    def is_third(self) -> bool:
        """Whether it is one of the third that is asked twice."""
        return (self.number >> 52) % 3 == 0


class UnitHash:
    """Makes the units of one experiment."""

    def __init__(self, experiment: str) -> None:
        self._begun = blake2b(digest_size=8, key=experiment.encode()[:_KEY])

    def of(self, tenant: str, parts: Iterable[bytes]) -> DrawnUnit:
        """Return the unit of what a tenant said."""
        hashed = self._begun.copy()
        hashed.update(b"\0".join((tenant.encode(), *parts)))
        return DrawnUnit(int.from_bytes(hashed.digest()))


def of_chat(view: ChatRequest, messages: Raw) -> list[bytes]:
    """Return what a conversation is known by: its messages up to and including the first of the user's.

    `messages` are the same as they were written, for those that are more than a text.
    """
    parts: list[bytes] = []
    for place, message in enumerate(view.messages):
        if not isinstance(message.content, str) or message.tool_calls:
            parts.append(bytes(msgspec.json.decode(messages, type=list[Raw])[place]))
        else:
            parts.append(_said(message))
        if message.role == "user":
            break
    return parts


def _said(message: Message) -> bytes:
    said = (
        f"{message.role}\0{message.content}"
        if message.name is None
        else f"{message.role}\0{message.name}\0{message.content}"
    )
    return said.encode(errors="surrogatepass")


class _BodyFields(Struct):
    """The fields of bodies that hold a conversation: Anthropic's messages, OpenAI's responses."""

    messages: Raw = Raw()
    input: Raw = Raw()
    system: Raw = Raw()
    instructions: Raw = Raw()


class _Turn(Struct):
    role: str = ""


def of_body(body: bytes) -> list[bytes]:
    """Return what a request that is passed on is known by: its conversation's beginning, or all of it."""
    try:
        told = msgspec.json.decode(body, type=_BodyFields)
        turns = msgspec.json.decode(told.messages or told.input, type=list[Raw])
        parts = [bytes(told.system), bytes(told.instructions)]
        for turn in turns:
            parts.append(bytes(turn))
            if msgspec.json.decode(turn, type=_Turn).role == "user":
                break
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # such as a text as input: that is the unit
        return [body]
    return parts
