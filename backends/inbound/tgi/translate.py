"""TGI's own API in front of vLLM: a TGI request becomes a vLLM completion request.

Where the two engines differ, TGI's behaviour applies (CONTRACT.md 2.1 "TGI native", 2.3, 3.2, 3.6, 4.4): its ranges
and error messages, its rule for when to sample; a request beyond the context is refused instead of cut off, the stop
string stays in the answer, and each token is an event of its own. A parameter that vLLM cannot honour is refused by
name. `read`, from a client's bytes to `TgiRequest`, is also used when the engine is a TGI.
"""

import re
from typing import Any, TypeVar

import msgspec

from backends import problem
from backends.base import BackendError, Cause, UpstreamRequest
from backends.failures import NOT_THE_PROTOCOL
from backends.inbound.tgi import serde
from backends.inbound.tgi.wire import (
    COMPAT,
    GENERATE,
    CompatGenerate,
    Detokenized,
    Generate,
    Grammar,
    TgiInfo,
    TgiRequest,
    Tokenized,
)
from backends.openai import TEXT

WHOLE = "/generate"
STREAM = "/generate_stream"
COMPAT_PATH = "/"
COMPAT_PATHS = frozenset({COMPAT_PATH, "/invocations"})  # whose body says whether it is to be streamed

# TGI's own defaults, which `GET /info` reports for a vLLM.
MAX_SEQUENCES = 2
MAX_STOPS = 4
MAX_TOP_TOKENS = 5
PIECE = 1024  # TGI checks whether this many tokens fit, even if more are requested
MAX_SPECIAL = 16  # special tokens that a tokenizer may add to a prompt
HOTTEST = 2.0  # vLLM's limit; TGI has none

# Of TGI's parameters, those that have another meaning on vLLM, or that vLLM does not know.
EMULATED = ("best_of", "decoder_input_details", "grammar", "stop", "top_n_tokens", "truncate")

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_generate = msgspec.json.Decoder(Generate).decode
_compat = msgspec.json.Decoder(CompatGenerate).decode


# --- requests -------------------------------------------------------------------------------------------------


def read(path: str, body: bytes) -> TgiRequest:
    """Read a request as TGI does. Raises serde.Rejected, with TGI's message."""
    decode, kind, check = (_compat, CompatGenerate, COMPAT) if path in COMPAT_PATHS else (_generate, Generate, GENERATE)
    try:
        given = decode(body)
    except (*problem.UNREADABLE, ValueError):
        given = msgspec.convert(serde.read(body, check), kind)
    compat = isinstance(given, CompatGenerate)
    stream = given.stream if isinstance(given, CompatGenerate) else path == STREAM
    return TgiRequest(given.inputs, given.parameters, stream, compat)


def with_details(body: bytes) -> bytes:
    """Return a valid request's body with `details` switched on: they hold the token counts."""
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError:  # there is text after the JSON value
        value = serde.scan(body.decode()).value
    value.setdefault("parameters", {"do_sample": True})["details"] = True
    return _encode(value)


def refusal(asked: TgiRequest) -> str | None:
    """Return why a request is refused, or None: TGI's own messages in TGI's order, then what vLLM cannot do."""
    return _unstreamable(asked) or _out_of_range(asked) or _bad_grammar(asked.parameters.grammar) or _not_vllm(asked)


def _unstreamable(asked: TgiRequest) -> str | None:
    said = asked.parameters
    if asked.stream and said.best_of not in (None, 1):
        return "`best_of` != 1 is not supported when streaming tokens"
    if asked.stream and said.decoder_input_details:
        return "`decoder_input_details` == true is not supported when streaming tokens"
    return None


def _out_of_range(asked: TgiRequest) -> str | None:
    said = asked.parameters
    drawn = said.do_sample or any(v is not None for v in (said.temperature, said.top_k, said.top_p, said.typical_p))
    sequences, stops, top = asked.sequences, len(said.stop), said.top_n_tokens or 0
    checks = (
        (sequences > MAX_SEQUENCES, f"`best_of` must be > 0 and <= {MAX_SEQUENCES}. Given: {sequences}"),
        (sequences > 1 and not drawn, "you must use sampling when `best_of` is > 1"),
        (_below(said.temperature, 0), "`temperature` must be strictly positive"),
        (_below(said.repetition_penalty, 0), "`repetition_penalty` must be strictly positive"),
        (not -2 <= (said.frequency_penalty or 0) <= 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
        (not _is_share(said.top_p), "`top_p` must be > 0.0 and < 1.0"),
        (not _is_share(said.typical_p), "`typical_p` must be > 0.0 and < 1.0"),
        (_below(said.top_k, 0), "`top_k` must be strictly positive"),
        (said.max_new_tokens == 0, "`max_new_tokens` must be strictly positive"),
        (stops > MAX_STOPS, f"`stop` supports up to {MAX_STOPS} stop sequences. Given: {stops}"),
        (sequences > 1 and said.seed is not None, "`seed` must not be set when `best_of` > 1"),
        (top > MAX_TOP_TOKENS, f"`top_n_tokens` must be >= 0 and <= {MAX_TOP_TOKENS}. Given: {top}"),
        (not asked.inputs, "`inputs` cannot be empty"),
    )
    return next((words for failed, words in checks if failed), None)


def _below(value: float | None, bound: float) -> bool:
    return value is not None and value <= bound


def _is_share(value: float | None) -> bool:
    return value is None or 0 < value < 1


def _bad_grammar(grammar: Grammar | None) -> str | None:
    if grammar is None or grammar.type == "regex":
        return None
    schema = grammar.value
    if grammar.type == "json_schema":
        schema = schema["schema"]
    elif isinstance(schema, str):
        if fault := serde.syntax_fault(schema):
            return f"grammar is not valid: {fault}"
        schema = _schema(grammar)
    elif not isinstance(schema, dict):
        return "grammar is not supported"
    if not isinstance(schema, dict) or "properties" not in schema:
        return "grammar is not valid: Grammar must have a 'properties' field"
    return None


def _not_vllm(asked: TgiRequest) -> str | None:
    said = asked.parameters
    lacking = "watermark" if said.watermark else "typical_p" if said.typical_p is not None else None
    if lacking:
        return f"`{lacking}` is not supported by vLLM, which serves this model"
    if said.temperature is not None and said.temperature > HOTTEST:
        return f"`temperature` must be <= {HOTTEST} on vLLM, which serves this model"
    return None


# --- whether it fits ------------------------------------------------------------------------------------------


def may_not_fit(asked: TgiRequest, context: int) -> bool:
    """Whether the prompt's tokens have to be counted: it may not fit, by an upper bound of one token per byte."""
    most, truncate = len(asked.inputs.encode()) + MAX_SPECIAL, asked.parameters.truncate
    if truncate is not None:
        if not 0 < truncate < context:
            return True
        most = min(most, truncate)
    return most + min(asked.parameters.max_new_tokens or 1, PIECE) > context


def too_long(asked: TgiRequest, context: int, count: int) -> str | None:
    """Return TGI's message if a prompt of `count` tokens does not fit into `context` tokens, else None."""
    truncate = asked.parameters.truncate
    if truncate is not None:
        if not 0 < truncate < context:
            return f"`truncate` must be strictly positive and less than {context - 1}. Given: {truncate}"
        count = min(count, truncate)
    wanted = asked.parameters.max_new_tokens
    piece = min(max(context - count, 0) if wanted is None else wanted, PIECE)
    if count + piece > context:
        given = f"Given: {count} `inputs` tokens and {piece} `max_new_tokens`"
        return f"`inputs` tokens + `max_new_tokens` must be <= {context}. {given}"
    if count >= context:
        return f"`inputs` must have less than {context - 1} tokens. Given: {count}"
    return None


# --- vLLM's requests ------------------------------------------------------------------------------------------


def encode(asked: TgiRequest, model: str, context: int, seed: int) -> UpstreamRequest:
    """Return the completion request for vLLM. `context` is in tokens; `seed` is used only when sampling."""
    said = asked.parameters
    limit = min(asked.limit or context, context)
    body: dict[str, Any] = {"model": model, "prompt": asked.inputs, "max_tokens": limit} | _settings(asked, seed)
    if said.stop and all(said.stop):
        body |= {"stop": said.stop, "include_stop_str_in_output": True}
    if said.truncate is not None:
        body |= {"truncate_prompt_tokens": said.truncate, "truncation_side": "left"}
    if said.grammar is not None:
        body["structured_outputs"] = _constraint(said.grammar)
    if asked.stream or asked.details or asked.sequences > 1:
        top = said.top_n_tokens or 0
        # By text, the most likely tokens could not be told apart, and their ids would be unknown.
        body |= {"logprobs": top, "return_token_ids": True, "return_tokens_as_token_ids": top > 0}
    if said.decoder_input_details:
        body["prompt_logprobs"] = 0
    if asked.stream or by_pieces(asked):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    adapted = tuple(name for name in EMULATED if getattr(said, name))
    return UpstreamRequest(path=TEXT, body=_encode(body), stream=asked.stream, adapted=adapted)


def by_pieces(asked: TgiRequest) -> bool:
    """Whether to stream from vLLM for a complete answer: with tokens by id, only chunks show each token's text."""
    return bool(asked.parameters.top_n_tokens) and not asked.parameters.decoder_input_details


def _settings(asked: TgiRequest, seed: int) -> dict[str, Any]:
    """Return the sampling parameters, all set, lest the model's `generation_config` apply (CONTRACT.md 0)."""
    said = asked.parameters
    settings: dict[str, Any] = {
        "repetition_penalty": 1.0 if said.repetition_penalty is None else said.repetition_penalty,
        "frequency_penalty": said.frequency_penalty or 0.0,
    }
    if asked.greedy:
        return settings | {"temperature": 0.0}
    settings |= {
        "temperature": 1.0 if said.temperature is None else said.temperature,
        "top_k": said.top_k or 0,
        "top_p": 1.0 if said.top_p is None else said.top_p,
        "min_p": 0.0,
        "seed": masked(seed),
    }
    return settings | {"n": asked.sequences} if asked.sequences > 1 else settings


def masked(seed: int) -> int:
    """Return TGI's 64-bit seed reduced to vLLM's 63 bits."""
    return seed & 0x7FFF_FFFF_FFFF_FFFF


def _constraint(grammar: Grammar) -> dict[str, Any]:
    if grammar.type == "regex":
        return {"regex": grammar.value}
    return {"json": _schema(grammar)}


def _schema(grammar: Grammar) -> Any:
    """Return the JSON schema of a grammar, whose value may be a string or a schema with a name."""
    if grammar.type == "json_schema":
        return grammar.value["schema"]
    return msgspec.json.decode(grammar.value) if isinstance(grammar.value, str) else grammar.value


def count_request(asked: TgiRequest, model: str) -> UpstreamRequest:
    """Return the vLLM request that counts the prompt's tokens."""
    return UpstreamRequest(path="/tokenize", body=_encode({"model": model, "prompt": asked.inputs}), stream=False)


def counted(body: bytes) -> Tokenized:
    """Read the number of tokens and the context length. Raises BackendError."""
    return decoded(body, Tokenized)


def name_request(token: int, model: str) -> UpstreamRequest:
    """Return the vLLM request for the text of one token."""
    return UpstreamRequest(path="/detokenize", body=_encode({"model": model, "tokens": [token]}), stream=False)


def named(body: bytes) -> str:
    """Read the text of a token. Raises BackendError."""
    return decoded(body, Detokenized).prompt


def decoded(body: bytes, kind: type[T]) -> T:
    """Read one of vLLM's answers. Raises BackendError (PROTOCOL_ERROR) if it is not of the type."""
    try:
        return msgspec.json.decode(body, type=kind)
    except problem.UNREADABLE as error:
        raise BackendError(Cause.PROTOCOL_ERROR, NOT_THE_PROTOCOL) from error


# --- /info and errors -----------------------------------------------------------------------------------------


def info(model: str, context: int | None) -> bytes:
    """Return TGI's description of a model that vLLM serves."""
    total = context or 0
    return _encode(
        TgiInfo(
            model_id=model,
            max_best_of=MAX_SEQUENCES,
            max_stop_sequences=MAX_STOPS,
            max_input_tokens=max(total - 1, 0),
            max_total_tokens=total,
        )
    )


_THEIRS = re.compile(r"\b(max_tokens|structured_outputs|prompt|logprobs)\b")
_OURS = {
    "max_tokens": "max_new_tokens",
    "structured_outputs": "grammar",
    "prompt": "inputs",
    "logprobs": "top_n_tokens",
}


def in_tgis_names(message: str) -> str:
    """Return vLLM's message with TGI's parameter names."""
    return _THEIRS.sub(lambda found: _OURS[found[1]], message)


def error(words: str, kind: str) -> bytes:
    """Return TGI's error object."""
    return _encode({"error": words, "error_type": kind})
