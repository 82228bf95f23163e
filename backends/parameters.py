"""Which of a client's fields matter to the answer.

The ground for one table of parameters: today it knows the fields that OpenAI defines and no engine needs, so
that a dialect can tell a field it must honour from one that it may leave out.
"""

from collections.abc import Iterator

from backends.base import Call

NEUTRAL = frozenset(
    {
        "metadata",
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
"""Fields of OpenAI's that do not change what is generated: taken everywhere, sent nowhere they would break."""


def unknown(call: Call) -> Iterator[str]:
    """Yield the fields, not null, that the call's view does not name and that are not neutral."""
    known = call.view.__struct_fields__
    for name, value in call.body.items():
        if name not in known and name not in NEUTRAL and bytes(value) != b"null":
            yield name
