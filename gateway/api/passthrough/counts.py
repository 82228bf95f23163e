"""The tokens that an answer says were worked, in each API's words.

OpenAI's chat and embeddings: `prompt_tokens`, `completion_tokens`, `total_tokens`. Responses: `input_tokens`,
`output_tokens`. Anthropic: the same two, the prompt's cached tokens apart (`cache_read_input_tokens`,
`cache_creation_input_tokens`; Anthropic API reference, "Usage"). Cohere (`/v2/embed`): `meta.billed_units`.
"""

import msgspec
from msgspec import Raw, Struct

from backends.schema import Usage


class Counts(Struct):
    """A usage, as any of the APIs writes it. A float where a whole number should be is taken."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    total_tokens: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    cache_read_input_tokens: float | None = None
    cache_creation_input_tokens: float | None = None

    @property
    def read(self) -> int | None:
        """The prompt's tokens."""
        if self.input_tokens is not None:
            cached = (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)
            return int(self.input_tokens + cached)
        known = self.prompt_tokens if self.prompt_tokens is not None else self.total_tokens
        return None if known is None else int(known)

    @property
    def written(self) -> int | None:
        """The answer's tokens."""
        known = self.output_tokens if self.output_tokens is not None else self.completion_tokens
        return None if known is None else int(known)


class _Billed(Struct):
    billed_units: Counts | None = None


_counts = msgspec.json.Decoder(Counts | None)
_billed = msgspec.json.Decoder(_Billed | None)


def counts(fields: dict[str, Raw]) -> Counts | None:
    """Return the usage that an answer's fields tell of, if they do."""
    try:
        if "usage" in fields:
            told: Counts | None = _counts.decode(fields["usage"])
            return told
        billed: _Billed | None = _billed.decode(fields["meta"]) if "meta" in fields else None
        return billed.billed_units if billed else None
    except msgspec.DecodeError:
        return None


def usage(read: int, written: int) -> Usage:
    """Return the account of so many tokens of prompt and answer."""
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
