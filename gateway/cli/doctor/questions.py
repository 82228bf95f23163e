"""The table of the requests that each engine gets, directly and through the gateway; one row is one question.

A question has what is compared in the answers (`aspect`), the right result where it is known (`right`), what the
gateway does where the engines differ (`how`), what an operator can do if an engine refuses it (`mend`), and what it
means if the answers differ through the gateway too (`note`). Every answer is a few tokens long.
"""

from functools import partial
from typing import Any

from gateway.cli.doctor.aspects import (
    STORY,
    Question,
    as_twin,
    called,
    candidates,
    choices,
    cut,
    echoed,
    has_logprobs,
    json_text,
    prompt_tokens,
    stop_of,
    taken,
    text,
    usage,
)
from gateway.cli.doctor.heard import EngineAnswer

HELLO = [{"role": "user", "content": "Say hello in one word."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]},
    },
}
SCHEMA = {"type": "object", "properties": {"ok": {"enum": ["yes", "no"]}}, "required": ["ok"]}
PARSER = {"vllm": ("requires --", "Launch vLLM with --enable-auto-tool-choice --tool-call-parser NAME.")}
GRAMMAR = {"tgi": ("grammar is not supported", "Launch TGI without --disable-grammar-support.")}


def chat(**more: Any) -> dict[str, Any]:
    """Return a short greedy chat with other fields."""
    return {"messages": HELLO, "max_tokens": 4, "temperature": 0, **more}


def completion(**more: Any) -> dict[str, Any]:
    """Return a short greedy completion with other fields."""
    return {"prompt": STORY, "max_tokens": 4, "temperature": 0, **more}


def _stopping(twin: EngineAnswer) -> dict[str, Any]:
    return chat(max_tokens=16, stop=[stop_of(twin)])


# --- the table ------------------------------------------------------------------------------------------------

_answer = partial(Question, area="answers")
_parameter = partial(Question, area="parameters")
_logprobs = partial(Question, area="logprobs")
_tool = partial(Question, area="tools")
_format = partial(Question, area="structured")
_error = partial(Question, area="errors", aspect=taken, refused=True)

_TEMPLATE = (
    "Different chat template or tokenizer: start both engines with the same files "
    "(vLLM --chat-template, TGI's tokenizer_config.json)."
)


def _tokens(check: str, messages: list[dict[str, Any]], **more: Any) -> Question:
    loose = bool(more.pop("loose", False))
    how = more.pop("how", "")
    note = more.pop("note", _TEMPLATE)
    body = {"messages": messages, "max_tokens": 48 if "tools" in more else 1, "temperature": 0, **more}
    return Question(
        area="prompt", check=check, body=body, aspect=prompt_tokens, counts=True, loose=loose, how=how, note=note
    )


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


PLAIN = _tokens("plain", HELLO)
WITH_TOOL = _tokens(
    "with a tool",
    HELLO,
    tools=[TOOL],
    loose=True,
    note="TGI adds its own tool prompt and counts its tokens; on vLLM the chat template renders the tools.",
)
PROMPTS = (
    PLAIN,
    _tokens("system and user", [_said("system", "Be terse."), *HELLO]),
    _tokens(
        "several turns",
        [_said("user", "One?"), _said("assistant", "Two."), _said("user", "Three?"), _said("assistant", "4."), *HELLO],
    ),
    _tokens("unicode", [_said("user", "Grüße, 世界, naïve café 🚂\tZ̆\n\n  x")]),
    _tokens(
        "text in parts",
        [_said("user", [{"type": "text", "text": "Say hello"}, {"type": "text", "text": "in one word."}])],
        how="Joined by a line feed for both engines.",
    ),
    _tokens(
        "developer role",
        [_said("developer", "Be terse."), *HELLO],
        how="Sent as system to both engines.",
        note="vLLM renames the role to system, TGI does not: send system.",
    ),
    _tokens(
        "the assistant's last",
        [*HELLO, _said("assistant", "Hel")],
        how="Both engines continue the last message.",
        note="vLLM begins a new turn, TGI continues: end with a user message, or use one engine.",
    ),
    WITH_TOOL,
)

ANSWERS = (
    _answer(check="streamed, with usage", body=chat(stream=True, stream_options={"include_usage": True}), aspect=usage),
    _answer(
        check="completion",
        body=completion(),
        aspect=text,
        text=True,
        loose=True,
        note="Greedy texts differ: different weights or precision, or near ties.",
    ),
    _answer(
        check="five prompts at once",
        body={"prompt": ["a", "b", "c", "d", "e"], "max_tokens": 1, "temperature": 0},
        aspect=choices,
        right="5 of them",
        text=True,
        how="TGI gets one request for each prompt.",
    ),
)

_ECHO = [_said("user", "Repeat: na na na na na na na na na na na na")]
_ZERO = _parameter(
    check="presence_penalty 0",
    body=chat(messages=_ECHO, max_tokens=16, presence_penalty=0),
    twin=chat(messages=_ECHO, max_tokens=16),
    aspect=as_twin,
    right="same text",
    how="Left out: TGI would apply a repetition penalty of 2.0.",
)
_STOP = _parameter(
    check="stop inside a text",
    body=chat(),
    twin=chat(max_tokens=16),
    then=_stopping,
    aspect=cut,
    right="stop text cut",
    how="The gateway searches the text and cuts it.",
)
_GREEDY = _parameter(
    check="temperature 0 with top_p 0.5",
    body=chat(max_tokens=16, top_p=0.5),
    twin=chat(max_tokens=16),
    aspect=as_twin,
    right="same text",
    how="Greedy wins: top_p is left out for TGI.",
)
_SEED = _parameter(
    check="the same seed twice",
    body=chat(temperature=1, seed=7, max_tokens=8),
    twin=chat(temperature=1, seed=7, max_tokens=8),
    aspect=as_twin,
    right="same text",
    loose=True,
    note="Sampling is not repeatable here.",
)
# What a generation_config.json may set. TGI ignores all but the first, and takes no top_p of 1.
_NEUTRAL = {"top_p": 0.99999, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
_DEFAULTS = Question(
    area="defaults",
    check="nothing set against temperature 1",
    body={"messages": HELLO, "max_tokens": 12, "seed": 11},
    twin={"messages": HELLO, "max_tokens": 12, "seed": 11, "temperature": 1, **_NEUTRAL},
    bare=True,
    aspect=as_twin,
    right="same text",
    loose=True,
    how="A temperature of 1 is always sent.",
    note="The model's generation_config.json sets defaults: launch vLLM with --generation-config vllm.",
)

PARAMETERS = (
    _DEFAULTS,
    _parameter(check="top_p 1", body=chat(temperature=1, top_p=1), aspect=taken, how="Left out."),
    _GREEDY,
    _ZERO,
    _parameter(
        check="frequency_penalty 0.5",
        body=chat(frequency_penalty=0.5),
        aspect=taken,
        how="TGI's formula is different.",
    ),
    _parameter(check="stop, a text", body=chat(stop="\n\n\n"), aspect=taken, how="Sent as a list."),
    _STOP,
    _parameter(
        check="two choices",
        body=chat(n=2, temperature=1, seed=7),
        aspect=choices,
        right="2 of them",
        how="One request for each choice.",
    ),
    _SEED,
    _parameter(check="negative seed", body=chat(temperature=1, seed=-7), aspect=taken, how="Sent without its sign."),
    _parameter(check="empty logit_bias", body=chat(logit_bias={}), aspect=taken, how="Left out."),
    _parameter(check="stream null", body=chat(stream=None), aspect=taken, how="Left out."),
    _parameter(check="min_p, vLLM's own", body=chat(temperature=1, min_p=0.1), aspect=taken),
)

_TOP = {
    "tgi": ("top_n_tokens", "Launch TGI with --max-top-n-tokens 20."),
    "vllm": ("logprobs", "Launch vLLM with --max-logprobs 21."),
}
LOGPROBS = (
    _logprobs(
        check="top_logprobs 2",
        body=chat(logprobs=True, top_logprobs=2),
        aspect=candidates,
        right="2 candidates",
        how="Converted to OpenAI's format.",
    ),
    _logprobs(
        check="top_logprobs 20",
        body=chat(logprobs=True, top_logprobs=20),
        aspect=candidates,
        right="20 candidates",
        mend=_TOP,
    ),
    _logprobs(
        check="completion, logprobs 2",
        body=completion(logprobs=2),
        aspect=has_logprobs,
        right="present",
        text=True,
        how="Taken from TGI's /generate.",
    ),
    _logprobs(
        check="echo",
        body=completion(echo=True),
        aspect=echoed,
        right="prompt echoed",
        text=True,
        how="The gateway puts the prompt before the text.",
    ),
    _logprobs(
        check="echo with logprobs",
        body=completion(echo=True, logprobs=1),
        aspect=echoed,
        right="prompt echoed",
        text=True,
    ),
)

TOOLS = (
    _tool(
        check="tool_choice auto",
        body=chat(tools=[TOOL], max_tokens=48),
        aspect=taken,
        how="Requested from TGI as a whole; the gateway makes the stream.",
        mend=PARSER,
    ),
    _tool(
        check="tool_choice required",
        body=chat(tools=[TOOL], tool_choice="required", max_tokens=48),
        aspect=called,
        right="calls get_weather",
        loose=True,
        how="Ids and finish reason are set as OpenAI does.",
        mend=PARSER,
    ),
    _tool(
        check="a named tool",
        body=chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "get_weather"}}, max_tokens=48),
        aspect=called,
        right="calls get_weather",
        loose=True,
        how="Ids and finish reason are set as OpenAI does.",
        mend=PARSER,
    ),
)

FORMATS = (
    _format(
        check="json_schema",
        body=chat(
            max_tokens=48, response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
        ),
        aspect=json_text,
        right="JSON",
        loose=True,
        how="Mapped to TGI's parameter.",
        mend=GRAMMAR,
        note="Cut by max_tokens, or the schema is not enforced.",
    ),
    _format(
        check="json_object",
        body=chat(max_tokens=48, response_format={"type": "json_object"}),
        aspect=taken,
        how="Mapped to TGI's parameter.",
        mend=GRAMMAR,
    ),
    _format(check="format text", body=chat(response_format={"type": "text"}), aspect=taken, how="Left out."),
    _format(
        check="a regex, vLLM's own",
        body=chat(max_tokens=8, structured_outputs={"regex": "(yes|no)"}),
        aspect=text,
        loose=True,
        how="Mapped to TGI's parameter.",
        mend=GRAMMAR,
    ),
)

_OWN = "Refused by the gateway, before an engine is chosen."
ERRORS = (
    _error(check="temperature 3", body=chat(temperature=3), how=_OWN),
    _error(check="wrong type", body=chat(temperature="hot"), how=_OWN),
    _error(check="unknown model", body=chat(model="no-such-model"), how="404 from the gateway."),
    _error(check="an error, streamed", body=chat(stream=True, top_p=1.5), how=_OWN),
)

GREEDY_TEXTS = (
    [_said("user", "Say hello in one word.")],
    [_said("user", "What is the capital of France?")],
    [_said("system", "Be terse."), _said("user", "Count from one to five.")],
)
SAME_TEXT = tuple(
    _answer(check=f"greedy text {place}", body=chat(messages=messages, max_tokens=12), aspect=text, loose=True)
    for place, messages in enumerate(GREEDY_TEXTS, 1)
)

QUESTIONS: tuple[Question, ...] = (*PROMPTS, *SAME_TEXT, *ANSWERS, *PARAMETERS, *LOGPROBS, *TOOLS, *FORMATS, *ERRORS)
