"""What vLLM's server makes of a request body: its coercions, its checks in its order, its words when it refuses."""

import json
import re
from typing import Any

from msgspec import Struct

from backends.sim import grammar
from backends.sim.text import chat_text, pieces, token_id, token_text

Body = dict[str, Any]

_FLOATS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_p")
_INTEGERS = (
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "seed",
    "top_logprobs",
    "top_k",
    "min_tokens",
    "truncate_prompt_tokens",
    "prompt_logprobs",
)
_BOOLEANS = (
    "stream", "echo", "ignore_eos", "include_stop_str_in_output", "parallel_tool_calls", "continue_final_message",
    "add_generation_prompt", "return_token_strs", "return_token_ids", "return_tokens_as_token_ids",
)  # fmt: skip
_TRUE, _FALSE = ("true", "1", "yes", "on", "t", "y"), ("false", "0", "no", "off", "f", "n")
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_NUMBER = "Input should be a valid number"
_INTEGER = "Input should be a valid integer"
_BOOLEAN = "Input should be a valid boolean"


class Refused(Exception):
    """An error in vLLM's envelope."""

    def __init__(
        self, message: str, param: str | None = None, kind: str = "BadRequestError", status: int = 400
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.kind, self.status = message, param, kind, status


class Ask(Struct, frozen=True, kw_only=True):
    """A request that was understood.

    `seed` is None for greedy; `logprobs` says how many candidates to show, None that no logprobs are wanted;
    `fixed` is the text that a grammar or a tool call prescribes; `choice` is the tool choice in force; `tells_ids`
    is for the numbers of all tokens, the prompts' being `prompt_ids`; `by_id` shows tokens as `token_id:N`.
    """

    prompts: list[tuple[str, int]]
    limits: list[int]
    n: int
    seed: int | None
    salt: str
    stops: tuple[str, ...]
    include_stop: bool
    ignore_eos: bool
    logprobs: int | None
    echo: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    fixed: str | None
    choice: str
    prompt_ids: list[list[int]] = []
    tells_ids: bool = False
    by_id: bool = False
    prompt_logprobs: bool = False


def refused(message: str, param: str, value: object = ...) -> Refused:
    """A refusal that names a parameter, in the message too, as vLLM's validation errors do."""
    suffix = f"(parameter={param})" if value is ... else f"(parameter={param}, value={value})"
    return Refused(f"{message} {suffix}", param)


def _pydantic(*faults: Body, more: int = 0) -> Refused:
    """vLLM's rendering of pydantic's errors."""
    count = len(faults) + more
    lines = [f"{count} validation error{'s' if count > 1 else ''}:", *(f"  {fault}" for fault in faults)]
    if more:
        lines.append(f"  ...and {more} more errors")
    return Refused("\n".join(lines), faults[0]["loc"], "Bad Request")


def _fault(kind: str, loc: str, msg: str, value: object, **ctx: object) -> Body:
    shown = f"<{type(value).__name__} of {len(value)} items>" if isinstance(value, dict | list) else str(value)
    return {"type": kind, "loc": loc, "msg": msg, "input": shown} | ({"ctx": ctx} if ctx else {})


def parse(content_type: str, raw: bytes) -> Body:
    """The body as a dict with its scalars coerced, or Refused."""
    if not content_type.startswith("application/json"):
        raise Refused(
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed", None, "Bad Request"
        )
    if not raw:
        raise _pydantic(_fault("missing", "body", "Field required", None))
    try:
        body = json.loads(raw)
    except json.JSONDecodeError as error:
        raise _pydantic(_fault("json_invalid", f"body.{error.pos}", "JSON decode error", {}, error=error.msg)) from None
    if not isinstance(body, dict):
        words = "Input should be a valid dictionary or object to extract fields from"
        raise _pydantic(_fault("model_attributes_type", "body", words, body))
    messages = body.get("messages", [])
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _pydantic(_fault("list_type", "body.messages", "Input should be a valid list", messages))
    faults: list[Body] = []
    for names, coerce in ((_FLOATS, _float), (_INTEGERS, _int), (_BOOLEANS, _bool)):
        for name in names:
            if body.get(name) is not None:
                body[name] = coerce(f"body.{name}", body[name], faults)
    if faults:
        raise _pydantic(*faults)
    return body


def _float(loc: str, value: Any, faults: list[Body]) -> float:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            faults.append(_fault("float_parsing", loc, f"{_NUMBER}, unable to parse string as a number", value))
    elif not isinstance(value, int | float):
        faults.append(_fault("float_type", loc, _NUMBER, value))
    else:
        return float(value)
    return 0.0


def _int(loc: str, value: Any, faults: list[Body]) -> int:
    if isinstance(value, str):
        if re.fullmatch(r"\s*[-+]?\d+(\.0*)?\s*", value):
            return int(float(value))
        faults.append(_fault("int_parsing", loc, f"{_INTEGER}, unable to parse string as an integer", value))
    elif isinstance(value, float) and not value.is_integer():
        faults.append(_fault("int_from_float", loc, f"{_INTEGER}, got a number with a fractional part", value))
    elif not isinstance(value, int | float):
        faults.append(_fault("int_type", loc, _INTEGER, value))
    else:
        return int(value)
    return 0


def _bool(loc: str, value: Any, faults: list[Body]) -> bool:
    word = str(value).lower()
    if isinstance(value, bool | str | int) and word in (*_TRUE, *_FALSE):
        return word in _TRUE
    if isinstance(value, str | int):
        faults.append(_fault("bool_parsing", loc, f"{_BOOLEAN}, unable to interpret input", value))
    else:
        faults.append(_fault("bool_type", loc, _BOOLEAN, value))
    return False


def chat_prompt(body: Body, model: str) -> str:
    """The messages in the chat template. Text parts are joined with a line feed; `developer` is `system` here."""
    messages = body.get("messages")
    if messages is None:
        raise _pydantic(_fault("missing", "body.messages", "Field required", body))
    turns = [_turn(index, message, model) for index, message in enumerate(messages)]
    if not turns:
        raise Refused("Cannot apply chat template to an empty conversation. Provide at least one message.")
    return chat_text(turns, continues=body.get("continue_final_message", False))


def _turn(index: int, message: Body, model: str) -> tuple[str, str]:
    role, content = message.get("role", ""), message.get("content")
    if content is None and role != "assistant":
        raise _no_content(f"body.messages.{index}", role)
    if message.get("name", "") is None and role != "tool":
        place = f"body.messages.{index}.ChatCompletionUserMessageParam.name"
        raise _pydantic(_fault("string_type", place, "Input should be a valid string", None), more=13)
    parts = [content or ""] if not isinstance(content, list) else [_part(part, model) for part in content]
    return "system" if role == "developer" else role, "\n".join(parts)


def _part(part: Body, model: str) -> str:
    if part.get("type") not in ("text", None):
        raise Refused(f"{model} is not a multimodal model")
    return str(part.get("text", ""))


def _no_content(loc: str, role: str) -> Refused:
    """The first ten of nineteen lines: one attempt at each kind of message."""
    faults = []
    for name in ("Developer", "System", "User", "Assistant", "Tool"):
        place = f"{loc}.ChatCompletion{name}MessageParam"
        if name != "Assistant":
            faults.append(_fault("string_type", f"{place}.content", "Input should be a valid string", None))
            faults.append(_fault("iterable_type", f"{place}.content", "Input should be iterable", None))
        if name.lower() != role:
            wanted = f"'{name.lower()}'"
            faults.append(_fault("literal_error", f"{place}.role", f"Input should be {wanted}", role, expected=wanted))
    return _pydantic(*faults[:10], more=9)


def completion_prompts(body: Body, context: int) -> list[list[int | str]]:
    """The prompts as tokens, cut as asked; those of one that came as numbers are numbers."""
    prompt = body.get("prompt")
    if prompt is None or prompt == "":
        raise refused("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if body.get("suffix") is not None:
        raise Refused("suffix is only supported for models with FIM completion rendering", "suffix")
    if prompt == []:
        raise Refused("You must pass at least one prompt")
    several = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    return [_cut(body, list(pieces(one) if isinstance(one, str) else one), context) for one in several]


def _cut(body: Body, tokens: list[int | str], context: int) -> list[int | str]:
    keep, side = body.get("truncate_prompt_tokens"), body.get("truncation_side") or "left"
    if side not in ("left", "right"):
        known = "'left' or 'right'"
        raise _pydantic(
            _fault("literal_error", "body.truncation_side", f"Input should be {known}", side, expected=known)
        )
    if keep is None:
        return tokens
    if keep < -1:
        words = "Input should be greater than or equal to -1"
        raise _pydantic(_fault("greater_than_equal", "body.truncate_prompt_tokens", words, keep, ge=-1))
    if keep > context:
        words = f"truncate_prompt_tokens={keep} cannot be greater than max_model_len = {context}."
        raise refused(f"{words} Please request a smaller truncation size.", "truncate_prompt_tokens", keep)
    if keep == 0:
        raise Refused("The decoder prompt cannot be empty")
    keep = context - 1 if keep == -1 else keep
    return tokens[-keep:] if side == "left" else tokens[:keep]


def counted(tokens: list[int | str]) -> tuple[str, int]:
    """The text of a prompt and its length."""
    return "".join(token_text(one) if isinstance(one, int) else one for one in tokens), len(tokens)


def numbers(tokens: list[int | str]) -> list[int]:
    """The numbers of a prompt's tokens."""
    return [one if isinstance(one, int) else token_id(one) for one in tokens]


def prompt_logprobs(body: Body) -> bool:
    """Whether the log probabilities of the prompt's tokens are wanted; a stream has none."""
    count = body.get("prompt_logprobs")
    if count is not None and count < -1:
        words = "`prompt_logprobs` must be a positive value or -1."
        raise refused(words, "prompt_logprobs", count)
    return count is not None


def stops(body: Body) -> tuple[str, ...]:
    """The stop strings, at most four and none of them empty."""
    stop = body.get("stop") or []
    if isinstance(stop, list) and len(stop) > 4:
        words = f"List should have at most 4 items after validation, not {len(stop)}"
        context: Body = {"field_type": "List", "max_length": 4, "actual_length": len(stop)}
        wrong = _fault("string_type", "body.stop", "Input should be a valid string", stop)
        raise _pydantic(wrong, _fault("too_long", "body.stop", words, stop, **context))
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in strings:
        raise Refused("stop cannot contain an empty string.")
    return strings


def check_stream(body: Body) -> None:
    """`stream_options` without a stream is refused before anything else."""
    if body.get("stream_options") and not body.get("stream"):
        raise refused("Stream options can only be defined when `stream=True`.", "stream_options")


def check_sampling(body: Body) -> None:
    """The ranges of the sampling parameters, in the order in which vLLM looks at them."""
    n = body.get("n")
    if n is not None and n < 1:
        raise Refused(f"n must be at least 1, got {n}.")
    if n is not None and n > 16384:
        limit = "To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable."
        raise Refused(f"n must be at most 16384, got {n}. {limit}")
    for name in ("presence_penalty", "frequency_penalty"):
        if not -2 <= (value := _or(body, name, 0.0)) <= 2:
            raise Refused(f"{name} must be in [-2, 2], got {value}.")
    if (penalty := _or(body, "repetition_penalty", 1.0)) <= 0:
        raise Refused(f"repetition_penalty must be greater than zero, got {penalty}.")
    temperature = _or(body, "temperature", 1.0)
    if temperature < 0:
        raise refused(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature > 2:
        raise refused(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    if not 0 < (top_p := _or(body, "top_p", 1.0)) <= 1:
        raise refused(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if (top_k := _or(body, "top_k", 0)) < -1:
        raise Refused(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if not 0 <= (min_p := _or(body, "min_p", 0.0)) <= 1:
        raise Refused(f"min_p must be in [0, 1], got {min_p}.")
    _check_logit_bias(body.get("logit_bias") or {})
    if temperature < 1e-5 and n is not None and n > 1:
        raise Refused(f"n must be 1 when using greedy sampling, got {n}.")


def _check_logit_bias(bias: Body, vocabulary: int = 4096) -> None:
    wrong = [key for key in bias if not re.fullmatch(r"\s*-?\d+\s*", key)]
    if wrong:
        words = "logit_bias contains key(s) that cannot be converted to integer token IDs:"
        raise refused(f"{words} {wrong}", "logit_bias", wrong)
    outside = [int(key) for key in bias if not 0 <= int(key) < vocabulary]
    if outside:
        words = f"token_id(s) {outside} in logit_bias contain out-of-vocab token ids. Vocabulary size: {vocabulary}"
        raise refused(words, "logit_bias", outside)


def limit(wanted: int | None, prompt: int, context: int, least: int = 1) -> int:
    """How many tokens a prompt may be answered with: what was asked for, silently capped by the context."""
    if wanted is not None and wanted < least:
        raise refused(f"max_tokens must be at least 1, got {wanted}.", "max_tokens", wanted)
    if wanted is not None and wanted > context:
        words = (
            f"max_tokens={wanted} cannot be greater than max_model_len={context}. Please request fewer output tokens."
        )
        raise refused(words, "max_tokens", wanted)
    if prompt >= context:
        words = (
            f"This model's maximum context length is {context} tokens. However, your prompt contains at least "
            f"{context + 1} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt."
        )
        raise refused(words, "input_tokens", context + 1)
    return min(context - prompt, context if wanted is None else wanted)


def logprobs(count: int | None) -> int | None:
    """How many candidates to show, at most 20."""
    if count is not None and count > 20:
        words = f"Requested sample logprobs of {count}, which is greater than max allowed: 20"
        raise refused(words, "logprobs", count)
    return count


def chat_logprobs(body: Body) -> int | None:
    """The same from `logprobs` and `top_logprobs` of a chat."""
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise refused("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    return logprobs(body.get("top_logprobs") or 0) if body.get("logprobs") else None


def check_response_format(wanted: Body) -> None:
    """The types that there are, and a schema where one is promised."""
    kind = wanted.get("type")
    if kind not in ("text", "json_object", "json_schema", "structural_tag"):
        raise _bad_response_format(wanted, kind)
    if kind == "json_schema" and not isinstance(wanted.get("json_schema"), dict):
        words = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
        raise refused(words, "response_format")


def _bad_response_format(wanted: Body, kind: object) -> Refused:
    loc, known, tag = "body.response_format", "'text', 'json_object' or 'json_schema'", "'structural_tag'"

    def literal(expected: str) -> Body:
        return _fault("literal_error", f"{loc}.type", f"Input should be {expected}", kind, expected=expected)

    def missing(name: str) -> Body:
        return _fault("missing", f"{loc}.{name}", "Field required", wanted)

    return _pydantic(
        literal(known), literal(tag), missing("format"), literal(tag), missing("structures"), missing("triggers")
    )


def grammar_text(body: Body) -> str | None:
    """The text that `response_format` or `structured_outputs` prescribes, if they do."""
    wanted = body.get("response_format") or {}
    if wanted:
        check_response_format(wanted)
    if wanted.get("type") == "json_object":
        return "{}"
    if wanted.get("type") == "json_schema":
        return _json_text(wanted["json_schema"].get("schema", {}))
    if body.get("allowed_token_ids") == [4]:
        return ""  # nothing but the end token
    outputs = body.get("structured_outputs")
    return None if outputs is None else _constrained(outputs)


def _constrained(outputs: Body) -> str | None:
    """The text that `structured_outputs` prescribes; None for a kind that only an engine understands."""
    kinds = [kind for kind in _CONSTRAINTS if outputs.get(kind) is not None]
    if not kinds:
        shown = dict.fromkeys(_CONSTRAINTS)
        raise Refused(f"You must use one kind of structured outputs constraint but none are specified: {shown}")
    if len(kinds) > 1:
        words = "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice')."
        raise refused(words, "structured_outputs")
    match kinds[0], outputs[kinds[0]]:
        case "json", schema:
            return _json_text(schema)
        case "json_object", _:
            return "{}"
        case "choice", []:
            raise Refused("Choice '[]' cannot be an empty list")
        case "choice", choices:
            return str(choices[0])
        case "regex", pattern:
            try:
                return grammar.match_of(pattern)
            except re.error as error:
                raise Refused(f"Failed to transform regex into a grammar: {error}") from None
    return None


def _json_text(schema: object) -> str:
    try:
        schema = json.loads(schema) if isinstance(schema, str) else schema
    except ValueError:
        raise Refused("Invalid JSON grammar specification.") from None
    if (unknown := grammar.unknown_type(schema)) is not None:
        raise Refused(f"Grammar error: Invalid type: {unknown}")
    return grammar.compact(grammar.instance(schema))


def tool_choice(body: Body, *, parser: bool) -> str:
    """The choice in force: none, auto, required, or `function NAME`."""
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools == []:
        words = "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely."
        raise refused(words, "tools")
    if not tools:
        if choice is not None and choice != "none":
            raise refused("When using `tool_choice`, `tools` must be set.", "tool_choice")
        return "none"
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        words = 'Only named tools, "none", "auto" or "required" are supported.'
        raise refused(f"Invalid value for `tool_choice`: {choice}! {words}", "tool_choice")
    if isinstance(choice, dict):
        return _named(choice["function"]["name"], tools, parser=parser)
    if choice == "required" and not parser:
        raise Refused('tool_choice="required" requires --tool-call-parser to be set')
    if choice in (None, "auto") and not parser:
        raise Refused('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    return choice or "auto"


def _named(name: str, tools: list[Body], *, parser: bool) -> str:
    if name not in [tool["function"]["name"] for tool in tools]:
        raise refused("The tool specified in `tool_choice` does not match any of the specified `tools`", "tool_choice")
    if not parser:
        raise Refused(f'tool_choice=function "{name}" requires --tool-call-parser to be set')
    return f"function {name}"


def _or(body: Body, name: str, default: float) -> float:
    value = body.get(name)
    return default if value is None else float(value) if isinstance(default, float) else value
