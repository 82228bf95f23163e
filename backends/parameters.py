"""The one table of parameters: what becomes of each, on each engine.

Types and ranges stand beside the names in `backends.schema` (OpenAI API reference); a test holds the two together,
and the README's table is made from both. `ways` is what a dialect asks before it accepts a call: a parameter that an
engine has no way to honour is named, and the call goes to another engine or is refused; it is never dropped.
"""

from collections.abc import Iterator
from enum import Enum

from msgspec import Raw, Struct

from backends.base import Call
from backends.schema import ChatRequest


class Support(Enum):
    """How a parameter comes to its effect."""

    SAME = "same"  # sent as it is
    MAPPED = "mapped"  # said in the engine's words
    EMULATED = "emulated"  # done by the gateway
    PARTLY = "partly"  # mapped or emulated for some values, unsupported for others
    NEUTRAL = "neutral"  # changes no answer: taken, and sent where it breaks nothing
    NONE = "unsupported"  # the engine has no way
    REFUSED = "refused"  # on any engine


class Parameter(Struct, frozen=True):
    """One row: the name, and the way on vLLM and on TGI. The note is for people."""

    name: str
    vllm: Support
    tgi: Support
    note: str = ""


def _neutral(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, Support.NEUTRAL, Support.NEUTRAL) for name in names)


def _vllm_alone(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, Support.SAME, Support.NONE) for name in names)


_BOTH = (
    Parameter("model", Support.MAPPED, Support.MAPPED, "the engine's own name for it"),
    Parameter("stream", Support.SAME, Support.SAME),
    Parameter("stream_options", Support.MAPPED, Support.EMULATED, "the usage is always asked for, and shown if wanted"),
    Parameter("temperature", Support.SAME, Support.MAPPED, "TGI: at least 0.01, or greedy"),
    Parameter("top_p", Support.MAPPED, Support.MAPPED, "0 is greedy; TGI: 1 is left out, and any where greedy"),
    Parameter(
        "n", Support.EMULATED, Support.EMULATED, "greedy: one answer repeated; TGI: at most 16, seeds `seed + i`"
    ),
    Parameter("stop", Support.SAME, Support.EMULATED, "TGI leaves its text in, and misses it inside a token"),
    Parameter("seed", Support.SAME, Support.MAPPED, "TGI: without its sign"),
    Parameter("frequency_penalty", Support.SAME, Support.NONE, "0 is left out"),
    Parameter(
        "presence_penalty", Support.SAME, Support.NONE, "0 is left out: TGI would make a repetition penalty of it"
    ),
    Parameter("logit_bias", Support.SAME, Support.NONE, "empty is left out"),
)

_CHAT = (
    Parameter("messages", Support.PARTLY, Support.PARTLY, "TGI: text parts joined, images only where it sees"),
    Parameter("max_tokens", Support.SAME, Support.EMULATED, "TGI: in pieces of 1,024, capped by the context"),
    Parameter("max_completion_tokens", Support.SAME, Support.EMULATED, "as `max_tokens`, over which it wins"),
    Parameter("logprobs", Support.SAME, Support.MAPPED, "TGI: bytes are added; null beside tools"),
    Parameter("top_logprobs", Support.MAPPED, Support.MAPPED, "the likeliest, in order"),
    Parameter("response_format", Support.MAPPED, Support.PARTLY, "TGI: a schema needs `properties`; not beside tools"),
    Parameter("tools", Support.MAPPED, Support.EMULATED, "TGI: asked for whole, references resolved; one call at most"),
    Parameter("tool_choice", Support.MAPPED, Support.EMULATED, "`none` leaves the tools out on both"),
    Parameter("parallel_tool_calls", Support.SAME, Support.EMULATED, "TGI never makes more than one"),
    Parameter("functions", Support.MAPPED, Support.MAPPED, "tools, there and back"),
    Parameter("function_call", Support.MAPPED, Support.MAPPED, "`tool_choice`, there and back"),
    Parameter("modalities", Support.PARTLY, Support.PARTLY, 'only `["text"]`'),
    Parameter("reasoning_effort", Support.SAME, Support.NONE),
    Parameter("audio", Support.REFUSED, Support.REFUSED),
    Parameter("prediction", Support.REFUSED, Support.REFUSED),
    Parameter("web_search_options", Support.REFUSED, Support.REFUSED),
)

_TEXT = (
    Parameter("prompt", Support.SAME, Support.PARTLY, "TGI: a request a prompt; token ids by a vLLM's `/detokenize`"),
    Parameter("max_tokens", Support.SAME, Support.EMULATED, "16 if absent; TGI: in pieces of 1,024"),
    Parameter("logprobs", Support.SAME, Support.MAPPED),
    Parameter("echo", Support.SAME, Support.PARTLY, "TGI: not with logprobs"),
    Parameter("best_of", Support.PARTLY, Support.PARTLY, "not above `n`"),
    Parameter("suffix", Support.REFUSED, Support.REFUSED),
)

_NEUTRAL = _neutral(
    "user",
    "metadata",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "service_tier",
    "moderation",
    "verbosity",
)

_OLD_GUIDED = tuple(
    Parameter(name, Support.REFUSED, Support.REFUSED, "vLLM ignores it in silence; use `structured_outputs`")
    for name in (
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "guided_decoding_backend",
        "guided_whitespace_pattern",
    )
)

_VLLM = (
    *_vllm_alone(
        "top_k",
        "min_p",
        "repetition_penalty",
        "length_penalty",
        "use_beam_search",
        "min_tokens",
        "ignore_eos",
        "stop_token_ids",
        "include_stop_str_in_output",
        "bad_words",
        "allowed_token_ids",
        "logprob_token_ids",
        "prompt_logprobs",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "truncate_prompt_tokens",
        "truncation_side",
        "add_special_tokens",
    ),
    Parameter("structured_outputs", Support.SAME, Support.PARTLY, "TGI: `json`, `regex` and `choice`"),
    *_vllm_alone(
        "priority",
        "cache_salt",
        "request_id",
        "session_id",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "kv_transfer_params",
        "ec_transfer_params",
        "vllm_xargs",
        "repetition_detection",
        "thinking_token_budget",
        "stream_interval",
        "watermarking",
    ),
)

_VLLM_CHAT = _vllm_alone(
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "chat_template_kwargs",
    "documents",
    "include_reasoning",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "return_prompt_text",
)

CHAT: dict[str, Parameter] = {row.name: row for row in (*_CHAT, *_BOTH, *_NEUTRAL, *_VLLM, *_VLLM_CHAT, *_OLD_GUIDED)}
TEXT: dict[str, Parameter] = {row.name: row for row in (*_TEXT, *_BOTH, *_NEUTRAL, *_VLLM, *_OLD_GUIDED)}


def table(call: Call) -> dict[str, Parameter]:
    """Return the table for a call's surface."""
    return CHAT if isinstance(call.view, ChatRequest) else TEXT


def unsupported_by_tgi(call: Call) -> Iterator[str]:
    """Yield the fields that the table gives TGI no way for: those it does not know among them.

    A null, a zero penalty and an empty bias ask for nothing.
    """
    known = table(call)
    for name, value in call.body.items():
        row = known.get(name)
        if (row is None or row.tgi in (Support.NONE, Support.REFUSED)) and not _asks_nothing(name, value):
            yield name


_REFUSED = frozenset(row.name for row in (*CHAT.values(), *TEXT.values()) if row.tgi is Support.REFUSED)


def refused(call: Call) -> Iterator[Parameter]:
    """Yield the rows of fields that no engine is given."""
    for name in filter(_REFUSED.__contains__, call.body):  # in the client's order
        row = table(call).get(name)
        if row is not None and bytes(call.body[name]) != b"null":
            yield row


def _asks_nothing(name: str, value: Raw) -> bool:
    written = bytes(value)
    if name in ("frequency_penalty", "presence_penalty"):
        return written == b"null" or float(written) == 0
    return written == b"null" or (name == "logit_bias" and written.strip(b"{} \t\r\n") == b"")
