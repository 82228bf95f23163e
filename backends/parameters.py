"""The table of parameters: how each is supported on each engine.

Types and ranges are in `backends.schema` (OpenAI API reference); a test keeps the two consistent, and the README's
table is made from both. A dialect consults the table before it accepts a call: a call with a parameter that the engine
cannot honour goes to another engine or is refused; the parameter is never dropped.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
from msgspec import Raw, Struct

from backends.base import Call
from backends.schema import ChatRequest


class Support(Enum):
    """How an engine supports a parameter."""

    SAME = "same"  # sent as it is
    MAPPED = "mapped"  # sent in the engine's own form
    EMULATED = "emulated"  # done by the gateway
    PARTLY = "partly"  # mapped or emulated for some values, unsupported for others
    NEUTRAL = "neutral"  # does not change answers: accepted, and forwarded where it does no harm
    NONE = "unsupported"  # the engine cannot do it
    REFUSED = "refused"  # on every engine


class Parameter(Struct, frozen=True):
    """One row: the name, and the support on vLLM and on TGI. The note is for the README.

    `idle` are the values that ask for nothing: with one of them any engine may answer, as it does without the field.
    """

    name: str
    vllm: Support
    tgi: Support
    note: str = ""
    idle: tuple[Any, ...] = ()


def _neutral(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, Support.NEUTRAL, Support.NEUTRAL) for name in names)


def _vllm_alone(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, Support.SAME, Support.NONE, idle=IDLE.get(name, ())) for name in names)


# vLLM's own parameters at the values that are its defaults.
IDLE: dict[str, tuple[Any, ...]] = {
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "bad_words": ([],),
    "logprob_token_ids": ([],),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "priority": (0,),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "kv_transfer_params": ({},),
    "ec_transfer_params": ({},),
    "vllm_xargs": ({},),
    "thinking_token_budget": (-1,),
    "watermarking": (False,),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "include_reasoning": (True,),
    "mm_processor_kwargs": ({},),
    "media_io_kwargs": ({},),
    "return_prompt_text": (False,),
}

_BOTH = (
    Parameter("model", Support.MAPPED, Support.MAPPED, "the engine's own name for it"),
    Parameter("stream", Support.SAME, Support.SAME),
    Parameter("stream_options", Support.MAPPED, Support.EMULATED, "the usage is always asked for, and shown if wanted"),
    Parameter("temperature", Support.SAME, Support.MAPPED, "TGI: at least 0.01, or greedy"),
    Parameter("top_p", Support.MAPPED, Support.MAPPED, "0 is greedy; TGI: 1 is left out, and any where greedy"),
    Parameter(
        "n", Support.EMULATED, Support.EMULATED, "greedy: one answer repeated; TGI: at most 16, seeds `seed + i`"
    ),
    Parameter(
        "stop", Support.SAME, Support.EMULATED, "TGI leaves its text in, misses it inside a token, and takes four"
    ),
    Parameter("seed", Support.SAME, Support.MAPPED, "TGI: without its sign"),
    Parameter("frequency_penalty", Support.SAME, Support.NONE, "0 is left out", idle=(0,)),
    Parameter(
        "presence_penalty",
        Support.SAME,
        Support.NONE,
        "0 is left out: TGI would make a repetition penalty of it",
        idle=(0,),
    ),
    Parameter("logit_bias", Support.SAME, Support.NONE, "empty is left out", idle=({},)),
)

_CHAT = (
    Parameter(
        "messages",
        Support.PARTLY,
        Support.PARTLY,
        "TGI: text parts joined, images only where it sees, `developer` as `system`",
    ),
    Parameter("max_tokens", Support.SAME, Support.EMULATED, "TGI: in pieces of 1,024, capped by the context"),
    Parameter("max_completion_tokens", Support.SAME, Support.EMULATED, "as `max_tokens`, over which it wins"),
    Parameter("logprobs", Support.SAME, Support.MAPPED, "TGI: bytes are added; null beside tools"),
    Parameter("top_logprobs", Support.MAPPED, Support.MAPPED, "the likeliest, in order"),
    Parameter("response_format", Support.MAPPED, Support.PARTLY, "TGI: a schema needs `properties`; not beside tools"),
    Parameter("tools", Support.MAPPED, Support.EMULATED, "TGI: asked for whole, references resolved; one call at most"),
    Parameter("tool_choice", Support.MAPPED, Support.EMULATED, "`none` leaves the tools out on both"),
    Parameter("tool_prompt", Support.NONE, Support.SAME, "TGI's own: what it says of the tools; null asks for nothing"),
    Parameter("guideline", Support.NONE, Support.SAME, "TGI's own: for templates that know it"),
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
    """Return the table of a call's API: chat or completions."""
    return CHAT if isinstance(call.view, ChatRequest) else TEXT


def unsupported_by_tgi(call: Call) -> Iterator[str]:
    """Yield the names of the call's fields that TGI does not support, unknown fields included.

    Those that ask for nothing are not counted.
    """
    known = table(call)
    for name, value in call.body.items():
        row = known.get(name)
        if (row is None or row.tgi in (Support.NONE, Support.REFUSED)) and not _asks_nothing(row, value):
            yield name


def unsupported_by_vllm(call: Call) -> Iterator[str]:
    """Yield the names of the call's fields that are TGI's alone; without tools there is nothing to say of them."""
    for name in filter(call.body.__contains__, _TGIS):
        if name != "tool_prompt" or (isinstance(call.view, ChatRequest) and call.view.offers_tools):
            yield name


_TGIS = tuple(row.name for row in CHAT.values() if row.vllm is Support.NONE)
_REFUSED = frozenset(row.name for row in (*CHAT.values(), *TEXT.values()) if row.tgi is Support.REFUSED)


def refused(call: Call) -> Iterator[Parameter]:
    """Yield the rows of the call's fields that are refused on every engine."""
    for name in filter(_REFUSED.__contains__, call.body):  # in the client's order
        row = table(call).get(name)
        if row is not None:
            yield row


def _asks_nothing(row: Parameter | None, value: Raw) -> bool:
    return bytes(value) == b"null" or (row is not None and bool(row.idle) and msgspec.json.decode(value) in row.idle)
