"""Reads the responses of an engine, or of the gateway in front of it, leniently. Pure.

Nothing here raises, whatever the response is: an HTML page, half a JSON value, the other engine's format.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from backends import problem

MAX_WORDS = 90


class Heard(Struct, frozen=True):
    """One HTTP response, or in `trouble` why there is none."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    trouble: str = ""


class EngineAnswer(Struct, frozen=True, kw_only=True):
    """What is read from a response. `error` is "" if it succeeded; `ids` are the prompt's tokens, if they are given."""

    status: int = 200
    error: str = ""
    param: str = ""
    texts: tuple[str, ...] = ()
    finishes: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    candidates: int = 0
    prompt_tokens: int | None = None
    ids: tuple[int, ...] = ()
    engine: str = ""
    adapted: str = ""
    trouble: str = ""  # why there was no response

    @property
    def taken(self) -> bool:
        """Whether the request succeeded."""
        return not (self.error or self.trouble)


def value(body: bytes) -> Any:
    """Return the JSON of a body, or None."""
    try:
        return msgspec.json.decode(body)
    except problem.UNREADABLE:
        return None


def fields(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; {} if it is not one."""
    found = value(body)
    return found if isinstance(found, dict) else {}


def words(heard: Heard) -> str:
    """Return the error of a response as one line."""
    if heard.trouble:
        return heard.trouble
    message = " ".join(problem.read(heard.body).message.split())
    if not message:
        message = "an HTML page" if heard.body.lstrip()[:1] == b"<" else "" if not heard.body else "not in its protocol"
    return f"{heard.status} {short(message)}".strip()


def short(text: str, most: int = MAX_WORDS) -> str:
    """Cut a text to `most` characters for a table, without what cannot be printed."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def read(heard: Heard, stream: bool = False) -> EngineAnswer:
    """Read the response to a request for text."""
    if heard.trouble:
        return EngineAnswer(status=0, trouble=heard.trouble)
    if heard.status != 200:
        param = problem.read(heard.body).param or ""
        return EngineAnswer(status=heard.status, error=words(heard), param=param)
    chunks = list(_events(heard.body)) if stream else [fields(heard.body)]
    failed = next((chunk for chunk in chunks if "error" in chunk), None)
    if failed is not None:
        message = short(problem.read_value(failed).message)
        where = "200, then an error event: " if stream else "200 "
        return EngineAnswer(error=where + message)
    choices = [choice for chunk in chunks for choice in _dicts(chunk.get("choices"))]
    if not choices:
        return EngineAnswer(error="200 " + _unlike(heard))
    answer = _answer(choices, chunks)
    names = heard.headers
    return msgspec.structs.replace(
        answer, engine=names.get("x-pointsman-engine", ""), adapted=names.get("x-pointsman-adapted", "")
    )


def _unlike(heard: Heard) -> str:
    return "an HTML page" if heard.body.lstrip()[:1] == b"<" else "without choices: not in its protocol"


def _answer(choices: list[dict[str, Any]], chunks: list[dict[str, Any]]) -> EngineAnswer:
    texts: dict[Any, str] = {}
    finishes: dict[Any, str] = {}
    calls: list[str] = []
    candidates = 0
    for choice in choices:
        index = str(choice.get("index"))
        message = choice.get("message") or choice.get("delta") or {}
        message = message if isinstance(message, dict) else {}
        text = message.get("content") or choice.get("text") or ""
        texts[index] = texts.get(index, "") + str(text)
        if choice.get("finish_reason"):
            finishes[index] = str(choice["finish_reason"])
        calls += [name for call in _dicts(message.get("tool_calls")) if (name := _name(call))]
        candidates = max(candidates, _candidates(choice.get("logprobs")))
    counts = [count for chunk in chunks if (count := _prompt_tokens(chunk)) is not None]
    return EngineAnswer(
        texts=tuple(texts.values()),
        finishes=tuple(finishes.values()),
        calls=tuple(calls),
        candidates=candidates,
        prompt_tokens=counts[-1] if counts else None,
    )


def _name(call: dict[str, Any]) -> str:
    function = call.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""


def _prompt_tokens(chunk: dict[str, Any]) -> int | None:
    usage = chunk.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _candidates(logprobs: Any) -> int:
    """Return the number of top logprobs at the first token, of a chat or a completion."""
    if not isinstance(logprobs, dict):
        return 0
    content = _dicts(logprobs.get("content"))
    tops = content[0].get("top_logprobs") if content else (logprobs.get("top_logprobs") or [None])[0]
    return len(tops) if isinstance(tops, list | dict) else 0


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _events(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.split(b"\n"):
        if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
            yield fields(line[5:]) or {"error": "an event that is not JSON"}


def tokens(heard: Heard, kind: str) -> EngineAnswer | None:
    """Read vLLM's `/tokenize` or TGI's `/chat_tokenize`; None where there is no such path."""
    if heard.trouble:
        return EngineAnswer(status=0, trouble=heard.trouble)
    if heard.status in (401, 403, 404, 405):
        return None
    if heard.status != 200:
        return EngineAnswer(status=heard.status, error=words(heard))
    found = fields(heard.body)
    listed = (
        found.get("tokens") if kind == "vllm" else [one.get("id") for one in _dicts(found.get("tokenize_response"))]
    )
    if not isinstance(listed, list) or not listed or not all(isinstance(one, int) for one in listed):
        return None
    return EngineAnswer(prompt_tokens=len(listed), ids=tuple(listed))


def is_json(text: str) -> bool:
    """Whether a text is a JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
