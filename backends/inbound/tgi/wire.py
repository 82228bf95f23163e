"""The wire types of TGI's own API (`/generate`, `/generate_stream`, `/`), and of vLLM's completions.

Requests are read as TGI's router reads them: types are strict, unknown fields are ignored; `parameters` without
`do_sample` mean greedy, no `parameters` at all mean sampling (CONTRACT.md 2.1, 3.6). Answers have TGI's fields in
TGI's order. Of vLLM's completions, only the fields that are used are named.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from backends.inbound.tgi import serde

U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
I32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
MAX_U64 = 2**64 - 1


# --- requests --------------------------------------------------------------------------------------------


class Grammar(Struct, frozen=True):
    """`grammar`: a regular expression, a JSON schema, or a schema with a name."""

    type: Literal["json", "json_object", "regex", "json_schema"]
    value: Any

    def __post_init__(self) -> None:
        if self.type == "regex" and not isinstance(self.value, str):
            raise ValueError("a regular expression is a string")
        if self.type == "json_schema" and not (isinstance(self.value, dict) and "schema" in self.value):
            raise ValueError("a named schema has a schema")


class Parameters(Struct, frozen=True, kw_only=True):
    """`parameters` of a request."""

    best_of: Annotated[int, Meta(ge=0)] | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: I32 | None = None
    top_p: float | None = None
    typical_p: float | None = None
    do_sample: bool = False
    max_new_tokens: U32 | None = None
    return_full_text: bool | None = None
    stop: list[str] = []
    truncate: Annotated[int, Meta(ge=0)] | None = None
    watermark: bool = False
    details: bool = False
    decoder_input_details: bool = False
    seed: Annotated[int, Meta(ge=0)] | None = None
    top_n_tokens: U32 | None = None
    grammar: Grammar | None = None
    adapter_id: str | None = None

    def __post_init__(self) -> None:
        if max(self.best_of or 0, self.truncate or 0, self.seed or 0) > MAX_U64:
            raise ValueError("more than 64 bits")


def _sampling() -> Parameters:
    return Parameters(do_sample=True)


class Generate(Struct, frozen=True):
    """The body of `/generate` and `/generate_stream`."""

    inputs: str
    parameters: Parameters = msgspec.field(default_factory=_sampling)


class CompatGenerate(Generate, frozen=True):
    """The body of `POST /` and `/invocations`, where `stream` selects a stream."""

    stream: bool = False


class TgiRequest(Struct, frozen=True):
    """A parsed request. `compat`: it came to `/`, whose answers are arrays, with the prompt before the text."""

    inputs: str
    parameters: Parameters
    stream: bool
    compat: bool

    @property
    def full_text(self) -> bool:
        """Whether the answer's text begins with the prompt."""
        wanted = self.parameters.return_full_text
        return self.compat if wanted is None else wanted

    @property
    def sequences(self) -> int:
        """The number of sequences to sample, of which the best is returned; 0 means 1, as in TGI."""
        return max(self.parameters.best_of or 1, 1)

    @property
    def greedy(self) -> bool:
        """Whether sampling is off: a temperature of 1 alone does not make TGI's server sample."""
        said = self.parameters
        warped = said.temperature not in (None, 1.0) or said.top_k is not None or said.top_p is not None
        return not (said.do_sample or warped or said.typical_p is not None)

    @property
    def details(self) -> bool:
        """Whether a complete answer has details."""
        return self.parameters.details or self.parameters.decoder_input_details

    @property
    def limit(self) -> int | None:
        """The maximum number of tokens to generate; an empty stop sequence ends the answer after the first token."""
        return 1 if "" in self.parameters.stop else self.parameters.max_new_tokens


_STRING = serde.plain("a string", str)
_BOOL = serde.plain("a boolean", bool)
_F32 = serde.option(serde.plain("f32", int, float))
_U32 = serde.option(serde.integer("u32", 0, 2**32 - 1))
_U64 = serde.option(serde.integer("u64", 0, MAX_U64))
_USIZE = serde.option(serde.integer("usize", 0, MAX_U64))
_SCHEMA = serde.struct("struct JsonSchemaConfig", {"name": serde.option(_STRING), "schema": serde.anything}, "schema")
_GRAMMAR = serde.tagged(
    "GrammarType", {"json": serde.anything, "json_object": serde.anything, "regex": _STRING, "json_schema": _SCHEMA}
)
_PARAMETERS = serde.struct(
    "struct GenerateParameters",
    {
        "best_of": _USIZE,
        "temperature": _F32,
        "repetition_penalty": _F32,
        "frequency_penalty": _F32,
        "top_k": serde.option(serde.integer("i32", -(2**31), 2**31 - 1)),
        "top_p": _F32,
        "typical_p": _F32,
        "do_sample": _BOOL,
        "max_new_tokens": _U32,
        "return_full_text": serde.option(_BOOL),
        "stop": serde.several(_STRING),
        "truncate": _USIZE,
        "watermark": _BOOL,
        "details": _BOOL,
        "decoder_input_details": _BOOL,
        "seed": _U64,
        "top_n_tokens": _U32,
        "grammar": serde.option(_GRAMMAR),
        "adapter_id": serde.option(_STRING),
    },
)
GENERATE = serde.struct("struct GenerateRequest", {"inputs": _STRING, "parameters": _PARAMETERS}, "inputs")
COMPAT = serde.struct(
    "struct CompatGenerateRequest", {"inputs": _STRING, "parameters": _PARAMETERS, "stream": _BOOL}, "inputs"
)


# --- answers ---------------------------------------------------------------------------------------------


class GenerateToken(Struct):
    """A generated token, or one of its most likely alternatives."""

    id: int
    text: str
    logprob: float | None
    special: bool


class PrefillToken(Struct):
    """A token of the prompt; the first has no logprob."""

    id: int
    text: str
    logprob: float | None


class Sequence(Struct, omit_defaults=True):
    """A sequence of `best_of` that was not the best."""

    generated_text: str
    finish_reason: str
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GenerateToken]
    top_tokens: list[list[GenerateToken]] = []


class GenerateDetails(Struct, omit_defaults=True):
    """The `details` of a complete answer."""

    finish_reason: str
    generated_tokens: int
    seed: int | None
    prefill: list[PrefillToken]
    tokens: list[GenerateToken]
    best_of_sequences: list[Sequence] | None = None
    top_tokens: list[list[GenerateToken]] = []


class GenerateAnswer(Struct, omit_defaults=True):
    """A complete answer."""

    generated_text: str
    details: GenerateDetails | None = None


class StreamDetails(Struct):
    """The `details` of a stream's last event."""

    finish_reason: str
    generated_tokens: int
    seed: int | None
    input_length: int


class StreamEvent(Struct):
    """An event of a stream; the last has the complete text, and the details if they were requested."""

    index: int
    token: GenerateToken
    generated_text: str | None
    details: StreamDetails | None


class TopStreamEvent(Struct):
    """An event with the most likely tokens."""

    index: int
    token: GenerateToken
    top_tokens: list[GenerateToken]
    generated_text: str | None
    details: StreamDetails | None


class TgiInfo(Struct, kw_only=True):
    """The answer of `GET /info` (CONTRACT.md 1)."""

    model_id: str
    model_sha: str | None = None
    model_pipeline_tag: str | None = "text-generation"
    max_concurrent_requests: int = 128
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int = 2
    max_client_batch_size: int = 4
    router: str = "text-generation-router"
    version: str = "3.3.6-dev0"
    sha: str | None = None
    docker_label: str | None = None


# --- vLLM's completions -----------------------------------------------------------------------------------


class Logprobs(Struct):
    """The legacy `logprobs`: for each token its text (or `token_id:N`), logprob and most likely alternatives."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class PromptLogprob(Struct):
    """A prompt token's log probability and text."""

    logprob: float | None = None
    decoded_token: str | None = None


class Choice(Struct):
    """A choice, of a complete answer or a chunk."""

    text: str
    index: int = 0
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = None


class CompletionCounts(Struct):
    """The usage: token counts."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class VllmCompletion(Struct):
    """A complete answer or a chunk."""

    choices: list[Choice]
    usage: CompletionCounts | None = None


class Tokenized(Struct):
    """The answer of `/tokenize`."""

    count: int
    max_model_len: int


class Detokenized(Struct):
    """The answer of `/detokenize`."""

    prompt: str
