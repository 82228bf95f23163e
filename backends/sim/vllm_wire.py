"""vLLM's answers in its own shapes, null extras included. Pure: from steps to JSON values."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from backends.sim.grammar import instance
from backends.sim.text import Step, Token, pieces, token_id

Json = dict[str, Any]
_CARD = """{"id":"","object":"model","created":0,"owned_by":"vllm","root":"","parent":null,"max_model_len":0,
"permission":[{"id":"","object":"model_permission","created":0,"allow_create_engine":false,"allow_sampling":true,
"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*",
"group":null,"is_blocking":false}]}"""
FINGERPRINT = "vllm-0.32.0-9a90d91d"
_CALL = re.compile(r'(<tool_call>\s*\{"name": "([^"]+)", "arguments": )(.*)(\}\s*</tool_call>)', re.DOTALL)
_CHAT_NULLS = dict.fromkeys(
    ("prompt_logprobs", "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics")
)
_TEXT_NULLS = dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))


class Call(Struct, frozen=True):
    """A tool call in hermes' form: what stands before, in and behind its arguments."""

    head: str
    name: str
    arguments: str
    tail: str

    @property
    def text(self) -> str:
        """As the model writes it."""
        return self.head + self.arguments + self.tail


def tool_call(text: str) -> Call | None:
    """The tool call that a text is, if it is one."""
    found = _CALL.fullmatch(text)
    return Call(*found.groups()) if found else None


def call_tokens(call: Call) -> Iterator[Token]:
    """The tokens of a call, with borders where the arguments begin and end."""
    parts = (call.head, call.arguments, call.tail, "<|im_end|>")
    return (Token(piece) for part in parts for piece in pieces(part))


def steps(
    tokens: Iterable[Token], limit: int, stops: Sequence[str] = (), *, include_stop: bool = False
) -> Iterator[Step]:
    """The tokens with vLLM's stopping: a stop string counts wherever it lies, and is cut off with what follows.

    So as many characters as might begin a stop string are held back, unless it is to be shown.
    """
    held = max(map(len, stops), default=1) - 1
    hidden = 0 if include_stop else held
    text, shown = "", 0
    for count, token in enumerate(tokens, 1):
        if token.special:
            yield Step(text[shown:], token, "stop")
            return
        searched = max(0, len(text) - held)
        text += token.text
        places = [(at, stop) for stop in stops if (at := text.find(stop, searched)) >= 0]
        if places:
            at, stop = min(places)
            yield Step(text[shown : at + len(stop) * include_stop], token, "stop", stop)
            return
        if count >= limit:
            yield Step(text[shown:], token, "length")
            return
        upto = max(shown, len(text) - hidden)
        yield Step(text[shown:upto], token)
        shown = upto


def usage(prompt: int, completion: int, **details: object) -> Json:
    """The counts, in vLLM's order of keys."""
    return {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion} | details


def whole(head: Json, choices: list[Json], counts: Json) -> Json:
    """A whole answer, of a chat or of completions."""
    middle = {"choices": choices, "service_tier": None, "system_fingerprint": FINGERPRINT, "usage": counts}
    return head | middle | (_CHAT_NULLS if head["object"] == "chat.completion" else _TEXT_NULLS)


def chat_choice(
    index: int, done: Sequence[Step], call: Call | None, choice: str, top: int | None, call_id: str
) -> Json:
    """One choice of it: text, or the tool call if that was written to its end."""
    text, last = "".join(step.text for step in done), done[-1]
    message: Json = {"role": "assistant", "content": text, "refusal": None, "annotations": None, "audio": None}
    message["function_call"] = None
    finish = last.finish
    if call and finish == "stop":
        message["content"] = None if choice == "auto" else ""
        function = {"name": call.name, "arguments": call.arguments}
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]
        finish = "stop" if choice.startswith("function") else "tool_calls"
    message["reasoning"] = None
    return {
        "index": index,
        "message": message,
        "logprobs": None if top is None else {"content": [chat_logprob(step.token, top) for step in done]},
        "finish_reason": finish,
        "stop_reason": last.stop,
        "token_ids": None,
        "routed_experts": None,
    }


def role_chunk(head: Json, index: int) -> Json:
    """The first chunk of a choice."""
    delta = {"role": "assistant", "content": ""}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    return head | {"choices": [choice], "prompt_token_ids": None, "prompt_text": None}


def chat_chunk(head: Json, index: int, delta: Json, step: Step, finish: str | None, top: int | None) -> Json:
    """Any other chunk; the one that finishes says which stop it met."""
    choice: Json = {"index": index, "delta": delta}
    choice["logprobs"] = None if top is None else {"content": [chat_logprob(step.token, top)]}
    choice["finish_reason"] = finish
    if finish:
        choice["stop_reason"] = step.stop
    return head | {"choices": [choice | {"token_ids": None}]}


def tool_text(body: Json, choice: str, *, eager: bool) -> str | None:
    """The call that the pseudo model makes, as it writes it: with `auto` only of a tool that the last message names."""
    functions = {tool["function"]["name"]: tool["function"] for tool in body["tools"]}
    said = str(body["messages"][-1].get("content"))
    named = choice.removeprefix("function ") if choice.startswith("function") else None
    fallback = None if choice == "auto" and not eager else next(iter(functions))
    name = named or next((name for name in functions if name in said), fallback)
    if name is None:
        return None
    arguments = json.dumps(instance(functions[name].get("parameters") or {}), ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def tool_deltas(done: Sequence[Step], call: Call, call_id: str) -> Iterator[Json]:
    """What the last token of a tool call shows: nothing, then id and name, then arguments piece by piece."""
    before = sum(len(step.token.text) for step in done[:-1])
    piece = done[-1].token.text
    start, end = len(call.head), len(call.head) + len(call.arguments)
    if before < start <= before + len(piece):
        named = {"id": call_id, "type": "function", "index": 0, "function": {"name": call.name}}
        yield {"content": None, "tool_calls": [named]}
    elif start <= before < end:
        yield {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def chat_logprob(token: Token, top: int) -> Json:
    """A token of `logprobs.content`: the token itself stands first among the top ones."""
    shown = _shown(token, top)
    return _logprob(token.text, token.logprob) | {"top_logprobs": [_logprob(*one) for one in shown]}


def _logprob(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _shown(token: Token, top: int) -> list[tuple[str, float]]:
    return _likely(token, top)[:top]


def _likely(token: Token, top: int) -> list[tuple[str, float]]:
    """The token itself, and the likeliest ones that are others."""
    chosen = (token.text, token.logprob)
    return [chosen, *(one for one in token.top(top) if one != chosen)]


def completion_choice(index: int, text: str, done: Sequence[Step], logprobs: Json | None, prompt: object) -> Json:
    """One choice of it."""
    return {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": done[-1].finish,
        "stop_reason": done[-1].stop,
        "token_ids": None,
        "prompt_logprobs": prompt,
        "prompt_token_ids": None,
        "routed_experts": None,
    }


def completion_chunk(head: Json, index: int, text: str, step: Step, logprobs: Json | None) -> Json:
    """One chunk of a completions stream."""
    choice = {
        "index": index,
        "text": text,
        "logprobs": logprobs,
        "finish_reason": step.finish,
        "stop_reason": step.stop,
    }
    return head | {"choices": [choice | {"prompt_token_ids": None, "token_ids": None}]}


def numbered(done: Sequence[Step], prompt: list[int] | None) -> Json:
    """What `return_token_ids` adds to a choice: in a stream, the prompt's to the first chunk alone."""
    return {"prompt_token_ids": prompt, "token_ids": [token_id(step.token.text) for step in done]}


def shown_as(text: str, *, by_id: bool) -> str:
    """What a token is called: its text, or its number."""
    return f"token_id:{token_id(text)}" if by_id else text


def prompt_tokens(prompt: str) -> list[Token]:
    """The tokens of a prompt that is echoed, each with a log probability of its own making."""
    return [Token(piece, -5.0 - len(piece) / 8) for piece in pieces(prompt)]


def legacy_logprobs(
    tokens: Sequence[Token], top: int, echoed: int = 0, offset: int = 0, *, by_id: bool = False
) -> Json:
    """The completions' own form. The drawn token comes before the likeliest; an echoed prompt's first has nothing."""
    names = [shown_as(token.text, by_id=by_id) for token in tokens]
    lengths = [0, *map(len, names)]
    first = echoed > 0
    shown = [{shown_as(text, by_id=by_id): logprob for text, logprob in _likely(token, top)} for token in tokens]
    return {
        "text_offset": [offset + sum(lengths[: index + 1]) for index in range(len(tokens))],
        "token_logprobs": [None if first and not index else token.logprob for index, token in enumerate(tokens)],
        "tokens": names,
        "top_logprobs": [None if first and not index else one for index, one in enumerate(shown)],
    }


def prompt_logprobs(tokens: Sequence[Token]) -> list[Json | None]:
    """What `prompt_logprobs` shows of an echoed prompt."""
    entries = ({str(token_id(token.text)): _entry(token)} for token in tokens[1:])
    return [None, *entries]


def _entry(token: Token) -> Json:
    return {"logprob": token.logprob, "rank": 1, "decoded_token": token.text}


def model_card(name: str, root: str, context: int, created: int, permission: str) -> Json:
    """An entry of /v1/models."""
    card = json.loads(_CARD) | {"id": name, "created": created, "root": root, "max_model_len": context}
    card["permission"][0] |= {"id": permission, "created": created}
    return card  # type: ignore[no-any-return]
