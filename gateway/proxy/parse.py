"""The body's bytes to a Call, or an error that names the field.

One validation, before an engine is chosen: the engines disagree on types and ranges, and on what they drop in
silence (CONTRACT.md 0). What no engine takes is refused here. What one of them takes in another form than the schema's
is put into the schema's (`backends.lenient`), so that all of them take it. The whole body is kept beside the typed
view, so that unknown fields survive.
"""

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from backends import functions
from backends.base import Call
from backends.lenient import coerced, without_nulls
from backends.parameters import refused
from backends.schema import AllowedTools, ChatRequest, CompletionRequest, NamedTool, Request, ResponseFormat
from backends.surrogates import find_lone
from gateway.http.errors import InvalidRequest

FORMATS = ("text", "json_object", "json_schema", "structural_tag")
TGI_FORMATS = ("json", "regex", "json_object", "json_schema")
CHOICES = ("none", "auto", "required")

V = TypeVar("V", ChatRequest, CompletionRequest)

BOM = b"\xef\xbb\xbf"  # which JSON's readers may skip (RFC 8259, section 8.1), and vLLM's does
_SURROGATE = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")  # as in UTF-8

_fields = msgspec.json.Decoder(dict[str, Raw])
_chat = msgspec.json.Decoder(ChatRequest)
_text = msgspec.json.Decoder(CompletionRequest)


def fields(body: bytes) -> dict[str, Raw]:
    """Return the body's fields, unread. Raises InvalidRequest."""
    body = body.removeprefix(BOM)
    try:
        if not body.isascii():
            body.decode()
        if half := find_lone(body):
            raise _lone_surrogate(*half)
        return _fields.decode(body)
    except UnicodeDecodeError as error:
        what = " (a lone surrogate)" if _SURROGATE.match(body, error.start) else ""
        raise InvalidRequest(f"The body is not valid UTF-8 at byte {error.start}{what}.") from error
    except msgspec.DecodeError as error:
        raise _from_validation(error) from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.") from error


def _lone_surrogate(half: str, path: str) -> InvalidRequest:
    where = f"'{path}'" if path else "the body"
    return InvalidRequest(f"Invalid {where}: {half} is a lone surrogate, half of a character.", path or None)


def chat(body: bytes, request_id: str, created: int) -> Call:
    """Read a chat request. Raises InvalidRequest."""
    body = body.removeprefix(BOM)
    given = fields(body)
    raw = without_nulls(given) if b"null" in body else given
    legacy_functions = "functions" in raw
    if legacy_functions or b'"function_call"' in body:
        raw = _in_newer_words(raw, legacy_functions)
    raw, view = _read(_chat, raw, body if raw is given else None)
    raw, view = _with_plain_choice(raw, view)
    _check_messages(view)
    _check_chat(view)
    _check_shared(view)
    call = Call(
        view=view,
        body=raw,
        id=f"chatcmpl-{request_id}",
        created=created,
        model=view.model or "",
        request_id=request_id,
        legacy_functions=legacy_functions,
    )
    _check_refused(call)
    return call


def _read(decoder: msgspec.json.Decoder[V], raw: dict[str, Raw], body: bytes | None) -> tuple[dict[str, Raw], V]:
    """Return the fields and the view of them, both in the schema's types; `body` is what the fields came in."""
    try:
        return raw, _view(decoder, body or msgspec.json.encode(raw))
    except InvalidRequest:
        plain = coerced(raw, decoder.type)
        if plain is raw:
            raise
        return plain, _view(decoder, msgspec.json.encode(plain))


def is_null(value: Raw) -> bool:
    """Whether a field is null."""
    return bytes(value) == b"null"


def _in_newer_words(raw: dict[str, Raw], legacy_functions: bool) -> dict[str, Raw]:
    """Return a chat with functions, or with calls of them in its history alone, as one with tools."""
    try:
        changed = functions.as_tools(raw) if legacy_functions else functions.without_choice(raw)
        if "messages" in raw:
            messages = msgspec.json.decode(raw["messages"], type=list[dict[str, Any]])
            newer = functions.history(messages)
            if newer != messages:
                changed["messages"] = Raw(msgspec.json.encode(newer))
        return changed
    except msgspec.DecodeError as error:
        raise InvalidRequest("Invalid 'functions' or 'function_call'.", "functions") from error
    except ValueError as error:
        raise InvalidRequest(str(error), "function_call") from error


def _with_plain_choice(raw: dict[str, Raw], view: ChatRequest) -> tuple[dict[str, Raw], ChatRequest]:
    """Return a chat whose `tool_choice` is one that engines know, and is there only where it chooses something."""
    choice = view.tool_choice
    if not view.tools and choice in ("auto", "none"):
        plain = {name: value for name, value in raw.items() if name != "tool_choice"}
    elif isinstance(choice, NamedTool) and choice.allowed_tools:
        plain = _with_allowed_tools(raw, view, choice.allowed_tools)
    elif isinstance(choice, str) and any(tool.function.name == choice for tool in view.tools or ()):  # TGI's form
        named = {"type": "function", "function": {"name": choice}}
        plain = raw | {"tool_choice": Raw(msgspec.json.encode(named))} if choice not in CHOICES else raw
    else:
        return raw, view
    return plain, _view(_chat, msgspec.json.encode(plain))


def _with_allowed_tools(raw: dict[str, Raw], view: ChatRequest, allowed: AllowedTools) -> dict[str, Raw]:
    """Return a chat that candidates the allowed tools alone."""
    if not view.tools:
        raise InvalidRequest("'tool_choice' is only allowed when 'tools' are given.", "tool_choice")
    names = {tool.name for tool in allowed.tools}
    missing = names - {tool.function.name for tool in view.tools or ()}
    if missing:
        raise InvalidRequest(f"'tool_choice' allows '{missing.pop()}', which is not a tool.", "tool_choice")
    tools = msgspec.json.decode(raw["tools"], type=list[dict[str, Any]])
    kept = [tool for tool in tools if tool["function"]["name"] in names]
    return raw | {"tools": Raw(msgspec.json.encode(kept)), "tool_choice": Raw(msgspec.json.encode(allowed.mode))}


def _check_refused(call: Call) -> None:
    """Refuse what no engine is given: the table says which."""
    for row in refused(call):
        hint = f" ({row.note})" if row.note else ""
        raise InvalidRequest(f"'{row.name}' is not supported{hint}.", row.name)


def completion(body: bytes, request_id: str, created: int) -> Call:
    """Read a legacy completion request. Raises InvalidRequest."""
    body = body.removeprefix(BOM)
    given = fields(body)
    raw = without_nulls(given) if b"null" in body else given
    raw, view = _read(_text, raw, body if raw is given else None)
    _check_prompt(view.prompt)
    _check_shared(view)
    if view.best_of is not None and view.best_of > (view.n or 1):
        raise InvalidRequest("'best_of' above 'n' is not supported.", "best_of")
    if view.max_tokens == 0 and not view.echo:
        raise InvalidRequest("Invalid 'max_tokens': expected at least 1.", "max_tokens")
    call = Call(
        view=view, body=raw, id=f"cmpl-{request_id}", created=created, model=view.model or "", request_id=request_id
    )
    _check_refused(call)
    return call


def _view(decoder: msgspec.json.Decoder[V], body: bytes) -> V:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise _from_validation(error) from error
    except (RecursionError, UnicodeError) as error:
        raise InvalidRequest("The body cannot be read.") from error


def _check_shared(view: Request) -> None:
    """Check what chats and completions have in common."""
    if any(not key.isdecimal() for key in view.logit_bias or ()):
        raise InvalidRequest("Invalid 'logit_bias': expected token ids as keys.", "logit_bias")
    options = view.stream_options
    if options is not None and not view.stream and (options.include_usage or options.continuous_usage_stats):
        raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", "stream_options")


def _check_messages(view: ChatRequest) -> None:
    for index, message in enumerate(view.messages):
        where = f"messages[{index}].content"
        if message.content is None and message.role not in ("assistant", "function"):
            raise InvalidRequest(f"Invalid '{where}': expected a string or a list of parts.", where)
        if isinstance(message.content, list):
            for part in message.content:
                if part.type == "text" and part.text is None:
                    raise InvalidRequest(f"Invalid '{where}': a text part needs its text.", where)


def _check_chat(view: ChatRequest) -> None:
    if view.top_logprobs and not view.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", "top_logprobs")
    if view.response_format is not None:
        _check_format(view.response_format)
    if view.modalities not in (None, ["text"]):
        raise InvalidRequest("Invalid 'modalities': only 'text' is supported.", "modalities")
    for index, tool in enumerate(view.tools or ()):
        if tool.type != "function":
            raise InvalidRequest(f"Invalid 'tools[{index}].type': expected 'function'.", f"tools[{index}].type")
    choice = view.tool_choice
    if choice is None:
        return
    if not view.tools:
        raise InvalidRequest("'tool_choice' is only allowed when 'tools' are given.", "tool_choice")
    if isinstance(choice, NamedTool):
        if choice.function is None:
            raise InvalidRequest("'tool_choice.function' is required.", "tool_choice.function")
        if choice.name not in [tool.function.name for tool in view.tools or ()]:
            raise InvalidRequest(f"'tool_choice' names '{choice.name}', which is not a tool.", "tool_choice")
    elif choice not in CHOICES:
        raise InvalidRequest(
            "Invalid 'tool_choice': expected 'none', 'auto', 'required' or a named function.", "tool_choice"
        )


def _check_format(wanted: ResponseFormat) -> None:
    if wanted.type not in (FORMATS if wanted.value is None else TGI_FORMATS):
        raise InvalidRequest(
            "Invalid 'response_format.type': expected 'text', 'json_object' or 'json_schema'.", "response_format.type"
        )
    if wanted.type == "json_schema" and wanted.value is None and wanted.json_schema is None:
        raise InvalidRequest("'response_format.json_schema' is required.", "response_format.json_schema")


def _check_prompt(prompt: object) -> None:
    prompts = prompt if isinstance(prompt, list) else [prompt]
    if not prompts or not all(_is_prompt(one) for one in prompts) or (len({type(one) for one in prompts}) > 1):
        raise InvalidRequest(
            "Invalid 'prompt': expected a text, a list of texts, token ids or lists of them, none of them empty.",
            "prompt",
        )


def _is_prompt(one: object) -> bool:
    if isinstance(one, list):
        return bool(one) and all(type(token) is int and token >= 0 for token in one)
    return type(one) is int or (isinstance(one, str) and one != "")


def _from_validation(error: msgspec.DecodeError) -> InvalidRequest:
    """Return what the client is told of a body that msgspec could not read, with the field's name."""
    said, _, where = str(error).partition(" - at `$")
    param = where.rstrip("`").removeprefix(".") or None
    if not isinstance(error, msgspec.ValidationError):
        return InvalidRequest(f"The body is not valid JSON: {said[0].lower()}{said[1:]}.")
    if "missing required field" in said:
        missing = said.split("`")[1]
        param = f"{param}.{missing}" if param else missing
        return InvalidRequest(f"'{param}' is required.", param)
    wanted = said.replace("`", "").removeprefix("Expected ")
    return InvalidRequest(f"Invalid '{param or 'body'}': expected {_words(wanted)}.", param)


def _words(wanted: str) -> str:
    for word, plain in (("int", "integer"), ("float", "number"), ("str", "string"), ("bool", "boolean")):
        wanted = wanted.replace(f"{word} ", f"{plain} ").replace(f"{word},", f"{plain},")
        wanted = wanted if not wanted.endswith(word) else wanted[: -len(word)] + plain
    return wanted.replace(" | ", " or ").replace("array of length", "a list of length")
