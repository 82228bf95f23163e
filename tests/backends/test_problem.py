"""Engines' errors, as recorded: each has its cause, the field at fault, and words that a client may read."""

from __future__ import annotations

import msgspec
import pytest

from backends import BACKENDS, problem
from backends.base import BackendError, Call, Cause
from backends.odd_events import no_answer
from backends.problem import Problem
from gateway.proxy import parse
from tests.support.dialects import heard
from tests.support.recorded import load, names

CHAT = parse.chat(b'{"messages": [{"role": "user", "content": "a"}], "max_tokens": 1000}', "r", 1)
TEXT = parse.completion(b'{"prompt": "a", "max_tokens": 1000}', "r", 1)
CHAT_STREAM = parse.chat(b'{"messages": [{"role": "user", "content": "a"}], "stream": true}', "r", 1)
TEXT_STREAM = parse.completion(b'{"prompt": "a", "stream": true}', "r", 1)

NOT_HERE = "The engine does not serve this model here."
NO_KEY = "The engine refused the gateway's credentials."
BUSY = "The engine is busy and takes no new requests now."
BROKE = "The engine failed while it generated the answer."
TOO_LONG = "This model's maximum context length is 1024 tokens: the prompt is too long."
NO_AUTO = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
MAX_N = (
    "n must be at most 16384, got 100000. To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
)
NO_VALUE = "response_format: missing field `value`"
_FORMATS = "expected one of `json`, `json_object`, `regex`, `json_schema`"
TEXT_FORMAT = f"response_format.type: unknown variant `text`, {_FORMATS}"
XML_FORMAT = f"response_format.type: unknown variant `xml`, {_FORMATS}"

INVALID, MISSING, CONTEXT, OVERLOADED = Cause.INVALID, Cause.NOT_SERVED, Cause.CONTEXT, Cause.OVERLOADED
NO_METHOD = "Method Not Allowed"
NO_MEDIA = "Expected request with `Content-Type: application/json`"
NO_ANSWER = "The engine answered with status {}, which is no answer; redirects are not followed."
LIMIT = "Failed to buffer the request body: length limit exceeded"

# The beginning of a recording's name, as far as its first underscore, and what its answer is.
RECORDED: list[tuple[str, Cause, str | None, str]] = [
    ("vllm/04c", INVALID, None, "n must be 1 when using greedy sampling, got 2."),
    ("vllm/06c", INVALID, "logprobs", "Requested sample logprobs of 21, which is greater than max allowed: 20"),
    ("vllm/06d", INVALID, "top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true."),
    ("vllm/07e", INVALID, "stop", "stop: Input should be a valid string"),
    ("vllm/07f", INVALID, None, "stop cannot contain an empty string."),
    ("vllm/08b", INVALID, "max_tokens", "max_tokens must be at least 1, got 0."),
    ("vllm/08c", INVALID, "max_tokens", "max_tokens must be at least 1, got -1."),
    (
        "vllm/08d",
        INVALID,
        "max_tokens",
        "max_tokens=5000 cannot be greater than max_model_len=1024. Please request fewer output tokens.",
    ),
    ("vllm/10", INVALID, "temperature", "temperature must be in [0, 2], got 2.5."),
    ("vllm/10b", INVALID, "temperature", "temperature must be non-negative, got -1.0."),
    ("vllm/10c", INVALID, "top_p", "top_p must be in (0, 1], got 0.0."),
    ("vllm/10e", INVALID, None, "presence_penalty must be in [-2, 2], got 3.0."),
    (
        "vllm/10f",
        INVALID,
        "temperature",
        "temperature: Input should be a valid number, unable to parse string as a number",
    ),
    ("vllm/10g", INVALID, None, "n must be at least 1, got 0."),
    (
        "vllm/10i",
        INVALID,
        "logit_bias",
        "logit_bias contains key(s) that cannot be converted to integer token IDs: ['abc']",
    ),
    (
        "vllm/10j",
        INVALID,
        "logit_bias",
        "token_id(s) [999999] in logit_bias contain out-of-vocab token ids. Vocabulary size: 4096",
    ),
    ("vllm/10m", INVALID, None, MAX_N),
    ("vllm/11d", INVALID, "response_format", "response_format: Input should be 'text', 'json_object' or 'json_schema'"),
    (
        "vllm/11e",
        INVALID,
        "response_format",
        "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
    ),
    (
        "vllm/11f",
        INVALID,
        "response_format",
        "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
    ),
    ("vllm/11g", INVALID, "response_format", "response_format: Input should be 'text', 'json_object' or 'json_schema'"),
    ("vllm/11k", INVALID, None, "Grammar error: Invalid type: nonsense"),
    ("vllm/12", INVALID, None, NO_AUTO),
    ("vllm/12b", INVALID, None, NO_AUTO),
    ("vllm/12c", INVALID, None, 'tool_choice="required" requires --tool-call-parser to be set'),
    ("vllm/12d", INVALID, None, 'tool_choice=function "get_w" requires --tool-call-parser to be set'),
    (
        "vllm/12f",
        INVALID,
        "tools",
        "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
    ),
    ("vllm/12g", INVALID, "tool_choice", "When using `tool_choice`, `tools` must be set."),
    (
        "vllm/12h",
        INVALID,
        "tool_choice",
        "The tool specified in `tool_choice` does not match any of the specified `tools`",
    ),
    ("vllm/12i", INVALID, None, 'tool_choice=function "get_w" requires --tool-call-parser to be set'),
    ("vllm/12j", INVALID, None, 'tool_choice="required" requires --tool-call-parser to be set'),
    (
        "vllm/12k",
        INVALID,
        "tool_choice",
        'Invalid value for `tool_choice`: get_w! Only named tools, "none", "auto" or "required" are supported.',
    ),
    ("vllm/13", Cause.MODEL_NOT_FOUND, "model", "The model `nope` does not exist."),
    ("vllm/13d", Cause.MODEL_NOT_FOUND, "model", "The model `nope` does not exist."),
    ("vllm/14", CONTEXT, "messages", TOO_LONG),
    ("vllm/14b", CONTEXT, "messages", TOO_LONG),
    ("vllm/15", INVALID, None, "JSON decode error"),
    ("vllm/15b", INVALID, None, "JSON decode error"),
    ("vllm/15c", INVALID, None, "Unsupported Media Type: Only 'application/json' is allowed"),
    ("vllm/15d", INVALID, None, "Field required"),
    ("vllm/15e", INVALID, "messages", "messages: Field required"),
    ("vllm/15f", INVALID, None, "Cannot apply chat template to an empty conversation. Provide at least one message."),
    ("vllm/15h", INVALID, "messages", "messages: Input should be a valid string"),
    ("vllm/15i", INVALID, None, NO_METHOD),
    ("vllm/15j", MISSING, None, NOT_HERE),
    ("vllm/15k", INVALID, None, "Input should be a valid dictionary or object to extract fields from"),
    ("vllm/16h", INVALID, "suffix", "suffix is only supported for models with FIM completion rendering"),
    ("vllm/16m", INVALID, "prompt", "Either prompt or prompt_embeds must be provided and non-empty."),
    ("vllm/16p", INVALID, "max_tokens", "max_tokens must be at least 1, got 0."),
    ("vllm/16s", INVALID, None, "You must pass at least one prompt"),
    ("vllm/17b", MISSING, None, NOT_HERE),
    ("vllm/19e", INVALID, None, "The engine refused the request."),
    ("vllm/21", MISSING, None, NOT_HERE),
    ("vllm/24d", INVALID, "stream_options", "Stream options can only be defined when `stream=True`."),
    (
        "vllm/25d",
        INVALID,
        "max_tokens",
        "max_tokens=5000 cannot be greater than max_model_len=1024. Please request fewer output tokens.",
    ),
    (
        "vllm/25g",
        INVALID,
        "max_tokens",
        "max_tokens: Input should be a valid integer, got a number with a fractional part",
    ),
    ("vllm/25i", INVALID, None, "JSON decode error"),
    ("vllm/25l", INVALID, None, "tiny is not a multimodal model"),
    ("vllm/B30", Cause.UPSTREAM_AUTH, None, NO_KEY),
    ("vllm/B30b", Cause.UPSTREAM_AUTH, None, NO_KEY),
    ("vllm/B30e", Cause.UPSTREAM_AUTH, None, NO_KEY),
    ("vllm/B40", OVERLOADED, None, BUSY),
    ("vllm/B40b", OVERLOADED, None, BUSY),
    ("vllm/B40d", OVERLOADED, None, BUSY),
    ("vllm/B43b", Cause.FAILED, None, BROKE),
    ("vllm/B43c", OVERLOADED, None, BUSY),
    ("tgi/06b", INVALID, "top_logprobs", "`top_logprobs` must be >= 0 and <= 5. Given: 20"),
    ("tgi/06c", INVALID, "top_logprobs", "`top_logprobs` must be >= 0 and <= 5. Given: 21"),
    ("tgi/07", INVALID, "stop", 'stop: invalid type: string "sess", expected a sequence'),
    ("tgi/07e", INVALID, "stop", "`stop` supports up to 4 stop sequences. Given: 5"),
    ("tgi/08b", INVALID, "max_tokens", "`max_tokens` must be strictly positive"),
    ("tgi/08c", INVALID, "max_tokens", "max_tokens: invalid value: integer `-1`, expected u32"),
    ("tgi/08e", INVALID, None, "duplicate field `max_tokens`"),
    ("tgi/09c", INVALID, "seed", "seed: invalid value: integer `-5`, expected u64"),
    ("tgi/10b", INVALID, "temperature", "`temperature` must be strictly positive"),
    ("tgi/10c", INVALID, "top_p", "`top_p` must be > 0.0 and < 1.0"),
    ("tgi/10d", INVALID, "top_p", "`top_p` must be > 0.0 and < 1.0"),
    ("tgi/10f", INVALID, "temperature", 'temperature: invalid type: string "hot", expected f32'),
    ("tgi/10h", INVALID, "logit_bias", "logit_bias: invalid type: map, expected a sequence"),
    ("tgi/10i", INVALID, "logit_bias", "logit_bias: invalid type: map, expected a sequence"),
    ("tgi/10j", INVALID, "logit_bias", "logit_bias: invalid type: map, expected a sequence"),
    ("tgi/10l", INVALID, "logit_bias", "logit_bias: invalid type: map, expected a sequence"),
    ("tgi/11", INVALID, "response_format", NO_VALUE),
    ("tgi/11b", INVALID, "response_format", NO_VALUE),
    ("tgi/11c", INVALID, "response_format", TEXT_FORMAT),
    ("tgi/11d", INVALID, "response_format", XML_FORMAT),
    ("tgi/11e", INVALID, "response_format", NO_VALUE),
    ("tgi/11j", INVALID, "response_format", NO_VALUE),
    ("tgi/11k", INVALID, "response_format", NO_VALUE),
    ("tgi/11l", INVALID, "response_format", NO_VALUE),
    ("tgi/12h", INVALID, "tools", "Tool with name nope not found"),
    ("tgi/14", CONTEXT, "messages", TOO_LONG),
    ("tgi/15", INVALID, "messages", "messages: EOF while parsing a list"),
    ("tgi/15b", INVALID, None, "expected ident"),
    ("tgi/15c", Cause.MEDIA_TYPE, None, NO_MEDIA),
    ("tgi/15d", INVALID, None, "EOF while parsing a value"),
    ("tgi/15e", INVALID, None, "missing field `messages`"),
    ("tgi/15h", INVALID, "messages", "messages[0]: data did not match any variant of untagged enum MessageBody"),
    ("tgi/15i", INVALID, None, "The engine refused the request."),
    ("tgi/15j", MISSING, None, NOT_HERE),
    ("tgi/15k", INVALID, None, "invalid length 0, expected struct ChatRequest with 19 elements"),
    ("tgi/16e", INVALID, "prompt", "prompt: data did not match any variant of untagged enum PromptDeserializer"),
    ("tgi/16f", INVALID, "prompt", "prompt: data did not match any variant of untagged enum PromptDeserializer"),
    ("tgi/16h", INVALID, None, "Suffix is not supported and can be achieved by preprocessing the prompt."),
    ("tgi/16m", INVALID, "prompt", "`prompt` cannot be empty"),
    ("tgi/16o", INVALID, "max_tokens", "`max_tokens` must be strictly positive"),
    ("tgi/16p", INVALID, "max_tokens", "`max_tokens` must be strictly positive"),
    ("tgi/16s", INVALID, "prompt", "prompt: Empty array detected. Do not use an empty array for the prompt."),
    ("tgi/17b", MISSING, None, NOT_HERE),
    ("tgi/18", INVALID, None, "missing field `inputs`"),
    ("tgi/18b", INVALID, None, "missing field `inputs`"),
    ("tgi/18c", MISSING, None, NOT_HERE),
    ("tgi/19c", MISSING, None, NOT_HERE),
    ("tgi/19d", MISSING, None, NOT_HERE),
    ("tgi/21", MISSING, None, NOT_HERE),
    ("tgi/22", MISSING, None, NOT_HERE),
    ("tgi/22b", MISSING, None, NOT_HERE),
    ("tgi/23", MISSING, None, NOT_HERE),
    ("tgi/24e", INVALID, "stream", "stream: invalid type: null, expected a boolean"),
    ("tgi/25e", INVALID, "max_tokens", 'max_tokens: invalid type: string "3", expected u32'),
    ("tgi/25f", INVALID, "max_tokens", "max_tokens: invalid type: floating point `3.0`, expected u32"),
    ("tgi/25g", INVALID, "max_tokens", "max_tokens: invalid type: floating point `3.5`, expected u32"),
    ("tgi/25h", INVALID, "stream", 'stream: invalid type: string "false", expected a boolean'),
    ("tgi/25j", INVALID, None, "duplicate field `max_tokens`"),
    ("tgi/B11", INVALID, "response_format", NO_VALUE),
    ("tgi/B11l", INVALID, "response_format", NO_VALUE),
    ("tgi/B11m", INVALID, "response_format", NO_VALUE),
    ("tgi/F04", Cause.FAILED, None, BROKE),
    ("tgi/F06", Cause.FAILED, None, BROKE),
    ("tgi/F07", Cause.FAILED, None, BROKE),
    ("tgi/F09", Cause.FAILED, None, BROKE),
    ("tgi/L01", Cause.UPSTREAM_AUTH, None, NO_KEY),
    ("tgi/L02", Cause.UPSTREAM_AUTH, None, NO_KEY),
    ("tgi/L05", Cause.UPSTREAM_AUTH, None, NO_KEY),
    ("tgi/L10", OVERLOADED, None, BUSY),
    ("tgi/L12", OVERLOADED, None, BUSY),
    ("tgi/L14", OVERLOADED, None, BUSY),
    ("tgi/L18", OVERLOADED, None, BUSY),
    ("tgi/N07", INVALID, "seed", "`seed` must not be set when `best_of` > 1"),
    ("tgi/N100", INVALID, None, "duplicate field `max_tokens`"),
    ("tgi/N114", INVALID, None, "Number of prompts exceeds the maximum allowed batch size of 4"),
    ("tgi/N116", INVALID, None, "Suffix is not supported and can be achieved by preprocessing the prompt."),
    ("tgi/N19", INVALID, "response_format", "response_format is not valid: Grammar must have a 'properties' field"),
    ("tgi/N20", INVALID, "response_format", "response_format is not valid: Grammar must have a 'properties' field"),
    ("tgi/N21", INVALID, "max_tokens", "`max_tokens` must be strictly positive"),
    ("tgi/N22", INVALID, "temperature", "`temperature` must be strictly positive"),
    ("tgi/N23", INVALID, "temperature", "`temperature` must be strictly positive"),
    ("tgi/N24", INVALID, "top_p", "`top_p` must be > 0.0 and < 1.0"),
    ("tgi/N25", INVALID, "top_k", "`top_k` must be strictly positive"),
    ("tgi/N26", INVALID, "logprobs", "`logprobs` must be >= 0 and <= 5. Given: 6"),
    ("tgi/N27", INVALID, "stop", "`stop` supports up to 4 stop sequences. Given: 5"),
    ("tgi/N28", INVALID, "stop", 'stop: invalid type: string "a", expected a sequence'),
    ("tgi/N29", INVALID, "prompt", "`prompt` cannot be empty"),
    ("tgi/N30", CONTEXT, "prompt", TOO_LONG),
    ("tgi/N34", INVALID, None, "missing field `inputs`"),
    ("tgi/N35", INVALID, None, "EOF while parsing an object"),
    ("tgi/N36", Cause.MEDIA_TYPE, None, NO_MEDIA),
    ("tgi/N37", INVALID, None, "The engine refused the request."),
    ("tgi/N38", INVALID, "seed", "seed: invalid value: integer `-1`, expected u64"),
    ("tgi/N67", MISSING, None, NOT_HERE),
    ("tgi/N71", Cause.TOO_LARGE, None, LIMIT),
    ("tgi/N84", INVALID, "tools", "Grammar and tools are mutually exclusive"),
    ("tgi/N92", INVALID, "tools", "tools[0].function: missing field `arguments`"),
    ("tgi/N95", INVALID, "repetition_penalty", "`repetition_penalty` must be strictly positive"),
    ("tgi/N96", INVALID, "top_p", "`top_p` must be > 0.0 and < 1.0"),
    ("tgi/N98", INVALID, "stream", "stream: invalid type: null, expected a boolean"),
]
# Not errors but answers, or the ground for asking once more: see `test_tgi`.
OTHERWISE = {
    *("08d", "12", "12b", "12f", "12k", "14c", "25c", "25d", "B12", "B12l"),
    *("N106", "N107", "N31", "N85", "N87", "N89", "N90"),
}


@pytest.mark.parametrize(("name", "cause", "param", "message"), RECORDED, ids=[row[0] for row in RECORDED])
def test_recorded(name: str, cause: Cause, param: str | None, message: str) -> None:
    failure = failed(name)
    assert (failure.cause, failure.param, failure.message) == (cause, param, message)


@pytest.mark.parametrize("name", [row[0] for row in RECORDED])
def test_a_client_reads_nothing_of_the_engines_code(name: str) -> None:
    """No dump of pydantic's, no place in a body that the client never sent, no word for the engine's own settings."""
    failure = failed(name)
    for inside in (
        "validation error",
        "(parameter=",
        "(value=",
        "body.",
        "'loc'",
        "'type':",
        " at line ",
        "JSON body into",
    ):
        assert inside not in failure.message
    assert "\n" not in failure.message
    assert failure.param is None or failure.param.isidentifier()


def test_no_recorded_error_is_left_out() -> None:
    tabled = {row[0] for row in RECORDED} | {f"tgi/{name}" for name in OTHERWISE}
    for engine in ("vllm", "tgi"):
        for name in names(engine):
            if load(f"{engine}/{name}").status >= 400:
                assert f"{engine}/{name}".split("_", maxsplit=1)[0] in tabled


SHAPES: list[tuple[bytes, Problem]] = [
    (b"", Problem()),
    (b"null", Problem()),
    (b"[]", Problem()),
    (b"7", Problem()),
    (b"{}", Problem()),
    (b'{"error": null}', Problem()),
    (b'{"error": 7}', Problem()),
    (b'{"error": {"message": null}}', Problem()),
    (b'{"error": {"message": {"a": 1}, "param": "n"}}', Problem("", "n")),
    (b'{"error": {"message": "no"}}', Problem("no")),
    (b'{"error": {"message": "no", "param": 7, "type": "t"}}', Problem("no", None, "t")),
    (b'{"error": {"message": "no", "param": "body.a.b"}}', Problem("no", "a")),
    (b'{"error": {"message": "no", "param": "body"}}', Problem("no")),
    (b'{"error": {"message": "no", "param": "body.7"}}', Problem("no")),
    (b'{"error": {"message": "no", "param": ""}}', Problem("no")),
    (b'{"error": "no"}', Problem("no")),
    (b'{"error": "no", "error_type": "kind"}', Problem("no", None, "kind")),
    (b'{"detail": "Not Found"}', Problem("Not Found")),
    (b'{"detail": [{"loc": ["body"]}]}', Problem()),
    (b'{"message": "no", "type": "t", "param": null}', Problem("no", None, "t")),
    (b'{"error": {"message": "no", "code": 503}}', Problem("no", status=503)),
    (b'{"error": {"message": "no", "code": "503"}}', Problem("no", status=503)),
    (b'{"error": {"message": "no", "code": "rate_limit_exceeded"}}', Problem("no", status=429)),
    (b'{"error": {"message": "no", "type": "insufficient_quota"}}', Problem("no", None, "insufficient_quota", 429)),
    (b'{"error": {"message": "no", "type": "Service Unavailable"}}', Problem("no", None, "Service Unavailable", 503)),
    (b'{"error": {"message": "no", "type": "NotFoundError"}}', Problem("no", None, "NotFoundError", 404)),
    (
        b'{"error": {"message": "no", "type": "invalid_request_error"}}',
        Problem("no", None, "invalid_request_error", 400),
    ),
    (b'{"error": {"message": "no", "code": 7, "status": true}}', Problem("no")),
    (b'{"error": {"type": "overloaded_error"}}', Problem("", None, "overloaded_error", 503)),
    (
        b'{"error": {"message": "Model is overloaded", "http_status_code": 422}}',
        Problem("Model is overloaded", status=503),
    ),
    (b'{"error": "Model is overloaded"}', Problem("Model is overloaded", status=503)),
    (b"Overloaded", Problem("Overloaded", status=503)),
    (b"The server is currently busy.", Problem("The server is currently busy.", status=503)),
    (b"A tool: it is overloaded", Problem("A tool: it is overloaded")),
    (b"no room\n", Problem("no room")),
    (b"<html><body>502 Bad Gateway</body></html>", Problem()),
    (b"\n <!DOCTYPE html>", Problem()),
    (b'{"error": "\xff"}', Problem('{"error": "\ufffd"}')),
    (b"\xff\xfe", Problem("\ufffd\ufffd")),
    (b"x" * 5000, Problem("x" * 500)),
]


@pytest.mark.parametrize(("body", "found"), SHAPES)
def test_any_body_is_read(body: bytes, found: Problem) -> None:
    assert problem.read(body) == found


def test_a_body_nested_without_end_is_read() -> None:
    assert problem.read(b"[" * 100_000).param is None
    assert problem.read(b'{"a":' * 100_000).param is None


# Statuses that no engine was recorded with, and bodies of a proxy's in between.
STATUSES: list[tuple[str, int, bytes, Cause, str]] = [
    (engine, status, body, cause, message)
    for engine in BACKENDS
    for status, body, cause, message in [
        (400, b"", Cause.INVALID, "The engine refused the request."),
        (422, b"<html></html>", Cause.INVALID, "The engine refused the request."),
        (403, b"", Cause.UPSTREAM_AUTH, NO_KEY),
        (407, b"", Cause.UPSTREAM_AUTH, NO_KEY),
        (402, b"", Cause.PAYMENT_REQUIRED, "The engine's account has no credit left."),
        (402, b'{"error": {"message": "Pay."}}', Cause.PAYMENT_REQUIRED, "Pay."),
        (404, b"<html></html>", Cause.NOT_SERVED, NOT_HERE),
        (404, b'{"detail": "Not Found"}', Cause.NOT_SERVED, NOT_HERE),
        (
            404,
            b'{"error": {"message": "Response with id \'r\' not found."}}',
            Cause.NOT_FOUND,
            "Response with id 'r' not found.",
        ),
        (405, b"", Cause.INVALID, "The engine refused the request."),
        (408, b"", Cause.FAILED, BROKE),
        (409, b'{"error": {"message": "Loading."}}', Cause.CONFLICT, "Loading."),
        (410, b"gone", Cause.INVALID, "gone"),
        (413, b"", Cause.TOO_LARGE, "The request is larger than the engine takes."),
        (415, b"", Cause.MEDIA_TYPE, "The engine does not take a request in this form."),
        (418, b"", Cause.INVALID, "The engine refused the request."),
        (424, b"", Cause.FAILED, BROKE),
        (451, b'{"error": {"message": "By law."}}', Cause.INVALID, "By law."),
        (429, b"<html></html>", Cause.LIMITED, "The engine's rate limit is reached."),
        (429, b'{"error": "Model is overloaded", "error_type": "overloaded"}', Cause.OVERLOADED, BUSY),
        (429, b'{"error": {"message": "x", "code": 503}}', Cause.LIMITED, "x"),
        (500, b'{"error": {"message": "x", "type": "overloaded_error"}}', Cause.OVERLOADED, BUSY),
        (500, b'{"error": {"message": "Slow.", "code": "rate_limit_exceeded"}}', Cause.LIMITED, "Slow."),
        (501, b"", Cause.NOT_IMPLEMENTED, "The engine cannot do what the request asks for."),
        (529, b"", Cause.OVERLOADED, BUSY),
        (503, b'{"error": "The model is currently scaling. Please try again later."}', Cause.OVERLOADED, BUSY),
        (500, b"<html></html>", Cause.FAILED, BROKE),
        (500, b'{"error": "boom", "error_type": "new"}', Cause.FAILED, BROKE),
        (502, b"<html></html>", Cause.FAILED, BROKE),
        (503, b"", Cause.OVERLOADED, BUSY),
        (503, b"<html></html>", Cause.OVERLOADED, BUSY),
        (504, b"", Cause.FAILED, BROKE),
        (302, b"", Cause.PROTOCOL_ERROR, NO_ANSWER.format(302)),
        (204, b"", Cause.PROTOCOL_ERROR, NO_ANSWER.format(204)),
    ]
]


@pytest.mark.parametrize(("engine", "status", "body", "cause", "message"), STATUSES)
@pytest.mark.parametrize("known", [True, False], ids=["call", "no call"])
def test_a_status_alone_has_its_cause(
    engine: str, status: int, body: bytes, cause: Cause, message: str, known: bool
) -> None:
    """A client is not blamed for what is the engine's, nor an engine for what is the request's or for being busy."""
    backend = BACKENDS[engine]
    request = backend.encode(CHAT, "m")[0]
    failure = backend.failure(CHAT if known else None, request if known else None, status, {}, body)
    assert isinstance(failure, BackendError)
    assert (failure.cause, failure.message, failure.param) == (cause, message, None)


@pytest.mark.parametrize("engine", BACKENDS)
def test_what_says_when_to_come_back_is_no_room_and_keeps_its_time(engine: str) -> None:
    """RFC 9110, 10.2.3: a number of seconds or a date. It is kept as it came, as the dialects know no clock."""
    for status, cause in (
        (429, Cause.LIMITED),
        (500, Cause.OVERLOADED),
        (501, Cause.NOT_IMPLEMENTED),
        (502, Cause.OVERLOADED),
        (503, Cause.OVERLOADED),
        (529, Cause.OVERLOADED),
    ):
        failure = BACKENDS[engine].failure(CHAT, None, status, {"retry-after": "20"}, b"")
        assert isinstance(failure, BackendError)
        assert (failure.cause, failure.retry_after) == (cause, "20")


@pytest.mark.parametrize("engine", ["openai", "vllm"])
@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("The model `x` does not exist. Valid aliases: secret.", Cause.MODEL_NOT_FOUND),
        ("Model x not found", Cause.MODEL_NOT_FOUND),
        ("The LoRA model x is not loaded", Cause.MODEL_NOT_FOUND),
        ("File f not found", Cause.NOT_FOUND),
    ],
)
def test_a_404_says_whether_the_model_is_missing_and_no_other_model_is_named(
    engine: str, said: str, cause: Cause
) -> None:
    body = msgspec.json.encode({"error": {"message": said, "type": "NotFoundError", "code": 404}})
    for call in (CHAT, None):
        failure = BACKENDS[engine].failure(call, None, 404, {}, body)
        assert isinstance(failure, BackendError)
        assert (failure.cause, failure.param) == (cause, "model" if cause is Cause.MODEL_NOT_FOUND else None)
        assert "secret" not in failure.message


# An error event inside a stream of status 200, and what it is.
EVENTS: list[tuple[bytes, Cause]] = [
    (b'{"error": {"message": "x", "code": 503}}', Cause.OVERLOADED),
    (b'{"error": {"message": "x", "code": 529}}', Cause.OVERLOADED),
    (b'{"error": {"message": "x", "code": "503"}}', Cause.OVERLOADED),
    (b'{"error": {"message": "x", "type": "overloaded_error"}}', Cause.OVERLOADED),
    (b'{"error": {"message": "x", "code": "server_overloaded"}}', Cause.OVERLOADED),
    (b'{"error": {"message": "Model is overloaded", "http_status_code": 422}}', Cause.OVERLOADED),
    (b'{"error": "Model is overloaded", "error_type": "overloaded"}', Cause.OVERLOADED),
    (b'{"error": {"message": "x", "code": 429}}', Cause.LIMITED),
    (b'{"error": {"message": "x", "type": "rate_limit_error"}}', Cause.LIMITED),
    (b'{"error": {"message": "x", "code": 500}}', Cause.FAILED),
    (b'{"error": {"message": "something new"}}', Cause.FAILED),
]


@pytest.mark.parametrize("engine", BACKENDS)
@pytest.mark.parametrize(("payload", "cause"), EVENTS)
@pytest.mark.parametrize("call", [CHAT_STREAM, TEXT_STREAM], ids=["chat", "text"])
def test_an_error_event_is_told_apart_by_its_code_and_its_words(
    engine: str, payload: bytes, cause: Cause, call: Call
) -> None:
    assert heard(BACKENDS[engine], call, [b"data: " + payload + b"\n\n"]).cause is cause


@pytest.mark.parametrize(
    ("payload", "cause"),
    [
        (b'{"error": {"message": "x", "code": 400}}', Cause.INVALID),
        (b'{"error": {"message": "x", "type": "invalid_request_error"}}', Cause.INVALID),
        (b'{"error": {"message": "The model `x` does not exist.", "code": 404}}', Cause.MODEL_NOT_FOUND),
        (b'{"object": "error", "message": "x", "code": 400}', Cause.INVALID),
        (b'{"error": {"message": "x", "code": 401}}', Cause.UPSTREAM_AUTH),
        (b'{"error": null}', Cause.PROTOCOL_ERROR),
    ],
)
def test_an_error_event_of_openais_dialect_may_be_the_requests_fault(payload: bytes, cause: Cause) -> None:
    failure = no_answer(payload, CHAT_STREAM, "no chunk")
    assert failure.cause is cause


def test_without_a_call_tgis_own_words_pass() -> None:
    """As for a request that was passed through: there is nothing to ask again, and no field to blame."""
    for start in ("06b", "14", "N84", "N85", "N106"):
        (name,) = [name for name in names("tgi") if name.startswith(f"{start}_")]
        body = load(f"tgi/{name}").response_body
        failure = BACKENDS["tgi"].failure(None, None, 422, {}, body)
        assert isinstance(failure, BackendError)
        assert (failure.cause, failure.param) == (Cause.INVALID, None)
        assert failure.message == problem.read(body).message.removeprefix("Input validation error: ") != ""


def test_an_upstreams_own_words_about_its_limit_pass() -> None:
    body = b'{"error": {"message": "Slow down.", "type": "rate_limit", "code": "rate_limit_exceeded"}}'
    failure = BACKENDS["openai"].failure(CHAT, None, 429, {}, body)
    assert isinstance(failure, BackendError)
    assert (failure.cause, failure.message) == (Cause.LIMITED, "Slow down.")


@pytest.mark.parametrize("said", ["Please reduce the length of the messages.", "This is the maximum context length."])
def test_a_prompt_that_is_too_long_is_known_by_its_words(said: str) -> None:
    body = b'{"error": {"message": "%b", "param": "input_tokens"}}' % said.encode()
    for call, param in ((CHAT, "messages"), (TEXT, "prompt"), (None, "messages")):
        failure = BACKENDS["openai"].failure(call, None, 400, {}, body)
        assert isinstance(failure, BackendError)
        assert (failure.cause, failure.param) == (Cause.CONTEXT, param)
        assert failure.message == "This model's maximum context length is exceeded: the prompt is too long."


def test_incomplete_generation_is_a_failure() -> None:
    body = b'{"error": "Incomplete generation", "error_type": "incomplete_generation"}'
    failure = BACKENDS["tgi"].failure(CHAT, None, 500, {}, body)
    assert isinstance(failure, BackendError)
    assert failure.cause is Cause.FAILED


def failed(start: str) -> BackendError:
    """What the engine's dialect makes of a recorded answer, to a chat or a completion by its path."""
    engine, beginning = start.split("/")
    (name,) = [name for name in names(engine) if name.startswith(f"{beginning}_")]
    recorded = load(f"{engine}/{name}")
    backend = BACKENDS[engine]
    call = CHAT if "chat" in recorded.path else TEXT
    request = backend.encode(call, "m")[0]
    failure = backend.failure(call, request, recorded.status, recorded.response_headers, recorded.response_body)
    assert isinstance(failure, BackendError)
    return failure
