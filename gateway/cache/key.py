"""Which calls may be cached, and the key of one: SHA-256 (FIPS 180-4) over all that can change its answer. Pure.

The whole body counts, fields that nothing here knows among them. What cannot matter is folded: white space, the
spelling of strings and numbers, nulls at the top (but those that are answered, `backends.named`), and the order of
fields where the engines read them by name: at the top, in a message, in a part of its content. Everywhere else the
order that the client wrote stays, as it goes into a prompt or a grammar (tools, schemas, template arguments,
documents), and an integer stays another value than the same float, which a template writes differently.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw

from backends.base import Call
from backends.lenient import ANSWERED
from backends.schema import ChatRequest, Request

FORMAT = 1  # of what is hashed

# What changes no answer. `service_tier` and `priority` change only when it comes, `stream_interval` in which pieces.
LEFT_OUT = frozenset(
    {
        "metadata",
        "model",  # its one name and what its engines serve stand for it
        "priority",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_interval",
        "stream_options",
        "user",
    }
)
ONCE = frozenset({"ec_transfer_params", "kv_transfer_params"})  # such an answer names what an engine holds just now
NULL = Raw(b"null")

_begun = sha256()
_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode


def _numbers() -> Iterator[str]:
    """Yield the fields at the top whose type is a number, so that 0 and 0.0 are one value."""
    for field in msgspec.structs.fields(Request):
        kind = msgspec.inspect.type_info(field.type)
        members = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
        if any(isinstance(member, msgspec.inspect.FloatType) for member in members):
            yield field.encode_name


NUMBERS = frozenset(_numbers())


def cacheable(call: Call, asked: bool = False) -> bool:
    """Whether a call's answer may be kept: it is one that comes again, or the client asks for it.

    Not with the usage so far on every chunk: that depends on how the answer came.
    """
    view = call.view
    if not (asked or view.greedy or view.seed is not None) or call.continuous_usage:
        return False
    return ONCE.isdisjoint(call.body) or all(call.body.get(name, NULL) == NULL for name in ONCE)


def digest(
    call: Call, *, tenant: str, model: str, served: Iterable[str] = (), engine: str = "", arm: str = ""
) -> bytes:
    """Return the key of a call, 32 bytes.

    `tenant` is whose answer it is, `model` the one name of what was asked for, `served` what its engines say they
    serve under it. `engine` is the pinned one, `arm` an experiment's; both are empty where there is neither.
    """
    chat = isinstance(call.view, ChatRequest)
    whose = (
        FORMAT,
        chat,
        call.legacy_functions,
        call.with_tgi_peer,
        call.tools_in_prompt,
        tenant,
        model,
        sorted(set(served)),
        engine,
        arm,
    )
    hashed = _begun.copy()  # half the cost of a new one
    hashed.update(_write((whose, _canonical(call.body, chat))))
    return hashed.digest()


def _canonical(body: dict[str, Raw], chat: bool) -> dict[str, Any]:
    """Return the fields that count, in the order of their names. JSON's own framing keeps them apart."""
    canonical: dict[str, Any] = {}
    for name in sorted(body):
        written = body[name]
        if name in LEFT_OUT or (written == NULL and name not in ANSWERED):
            continue
        try:
            value = _read(written)
        except (
            msgspec.DecodeError,
            RecursionError,
        ):  # a number that no float holds: only the same letters are the same
            canonical[name] = {"written": bytes(written).decode()}
            continue
        if name in NUMBERS:
            value = value + 0.0  # -0.0 becomes 0.0
        elif chat and name == "messages":
            value = [_message(message) for message in value]
        canonical[name] = (value,)
    return canonical


def _message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [_in_order(part) for part in content]
    return _in_order(message)


def _in_order(value: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(value.items()))
