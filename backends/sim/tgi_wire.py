"""TGI's answers in its own shapes. Pure: from steps to JSON values."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from backends.sim.engine import Job
from backends.sim.grammar import compact
from backends.sim.http import Headers
from backends.sim.text import EOS, Step, Token, pieces, token_id
from backends.sim.tgi_serde import cut_short

Json = dict[str, Any]
INFO = """{"model_id":"","model_sha":null,"model_pipeline_tag":null,"max_concurrent_requests":128,"max_best_of":2,
"max_stop_sequences":4,"max_input_tokens":1023,"max_total_tokens":1024,"validation_workers":2,
"max_client_batch_size":4,"router":"text-generation-router","version":"3.3.6-dev0",
"sha":"db931fcf42da018a3657580c64bf2720f167f9ab","docker_label":null}"""
_OPENAI = {"eos_token": "stop"}  # how whole answers and chats name what is otherwise `eos_token`


def steps(tokens: Iterable[Token], limit: int, stops: Sequence[str]) -> Iterator[Step]:
    """The tokens with TGI's stopping: a stop string counts where a token ends with it, and stays in the text."""
    tail = ""
    for count, token in enumerate(tokens, 1):
        text = "" if token.special else token.text
        tail = (tail + text)[-300:]
        stop = next((stop for stop in stops if tail.endswith(stop)), None)
        finish = (
            "length"
            if count >= limit
            else "eos_token"
            if token.special
            else "stop_sequence"
            if stop is not None
            else None
        )
        yield Step(text, token, finish, stop)
        if finish:
            return


def stream_headers(size: int) -> Headers:
    """The headers of a stream."""
    kind = (("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-compute-type", "gpu+optimized"))
    return (*kind, ("x-compute-characters", str(size)), ("x-accel-buffering", "no"))


def whole_headers(job: Job, size: int, prompt_tokens: int, generated: int, *, timed: bool = False) -> Headers:
    """The headers of a whole answer: times in ms, and the counts."""
    seconds = job.last - job.started
    facts = {"compute-type": "gpu+optimized"} | ({"compute-time": f"{seconds:.9f}"} if timed else {})
    facts |= {"compute-characters": str(size), "total-time": str(int(seconds * 1000)), "validation-time": "0"}
    facts |= {"queue-time": "0", "inference-time": str(int(seconds * 1000))}
    facts |= {"time-per-token": str(int(seconds * 1000 / max(1, generated)))}
    facts |= {"prompt-tokens": str(prompt_tokens), "generated-tokens": str(generated)}
    return tuple((f"x-{name}", value) for name, value in facts.items())


def text_of(done: Sequence[Step]) -> str:
    """All text so far, without the end token."""
    return "".join(step.text for step in done)


def usage(prompt: int, completion: int) -> Json:
    """The counts: three numbers."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def tokenized(text: str) -> list[Json]:
    """Tokens with their places, as /tokenize says them."""
    shown, at = [], 0
    for piece in pieces(text):
        shown.append({"id": token_id(piece), "text": piece, "start": at, "stop": at + len(piece)})
        at += len(piece)
    return shown


def _prefill(prompt: str) -> list[Json]:
    """The tokens of a prompt with log probabilities; the first has none."""
    return [
        {"id": token_id(piece), "text": piece, "logprob": -5.0 - len(piece) / 8 if index else None}
        for index, piece in enumerate(pieces(prompt))
    ]


def _token(text: str, logprob: float) -> Json:
    return {"id": token_id(text), "text": text, "logprob": logprob, "special": text == EOS}


def _top(token: Token, asked: Json) -> list[Json]:
    return [_token(*one) for one in token.top(asked["top_n_tokens"])]


def generated(done: Sequence[Sequence[Step]], seed: int | None, asked: Json, prompt: str, kept: str) -> Json:
    """A whole answer of /generate: the likeliest of `done` is the best, the others stand in its details."""
    best, *others = [_generated(done[child], seed, child, asked, prompt) for child in _by_likelihood(done)]
    if "details" in best:
        if others:
            best["details"]["best_of_sequences"] = [
                {"generated_text": one["generated_text"]} | one["details"] for one in others
            ]
        if asked.get("decoder_input_details"):
            best["details"]["prefill"] = _prefill(kept)
    return best


def _by_likelihood(done: Sequence[Sequence[Step]]) -> list[int]:
    """The places of some answers, the one with the highest mean log probability first."""
    means = [sum(step.token.logprob for step in one) / len(one) for one in done]
    best = means.index(max(means))
    return [best, *(place for place in range(len(done)) if place != best)]


def _generated(done: Sequence[Step], seed: int | None, child: int, asked: Json, prompt: str) -> Json:
    text = (prompt if asked.get("return_full_text") else "") + text_of(done)
    if not (asked.get("details") or asked.get("decoder_input_details")):
        return {"generated_text": text}
    details: Json = {"finish_reason": done[-1].finish, "generated_tokens": len(done)}
    details |= {"seed": None if seed is None else (seed + child) % 2**64, "prefill": []}
    details["tokens"] = [_token(step.token.text, step.token.logprob) for step in done]
    if asked.get("top_n_tokens"):
        details["top_tokens"] = [_top(step.token, asked) for step in done]
    return {"generated_text": text, "details": details}


def stream_event(done: Sequence[Step], seed: int | None, prompt_tokens: int, asked: Json, prompt: str) -> Json:
    """The event of the last token so far; the one that ends has the whole text, and the details if wanted."""
    step = done[-1]
    shown: Json = {"index": len(done), "token": _token(step.token.text, step.token.logprob)}
    if asked.get("top_n_tokens"):
        shown["top_tokens"] = _top(step.token, asked)
    text, details = None, None
    if step.finish:
        text = (prompt if asked.get("return_full_text") else "") + text_of(done)
    if step.finish and asked.get("details"):
        details = {
            "finish_reason": step.finish,
            "generated_tokens": len(done),
            "seed": seed,
            "input_length": prompt_tokens,
        }
    return shown | {"generated_text": text, "details": details}


def completion(head: Json, done: Sequence[Sequence[Step]], prompt_tokens: int) -> Json:
    """A whole completions answer. The choices stand in the order in which they ended, which is not theirs."""
    choices = [
        {"index": index, "text": text_of(one), "logprobs": None, "finish_reason": _finish(one)}
        for index, one in enumerate(done)
    ]
    return head | {"choices": choices[::-1], "usage": usage(prompt_tokens, sum(map(len, done)))}


def completion_chunk(head: Json, index: int, step: Step, prompt_tokens: int, count: int) -> Json:
    """A chunk: the reason is `""` until the last, which has the usage, and the end token as text."""
    text = step.token.text
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": step.finish or ""}
    return head | {"choices": [choice]} | ({"usage": usage(prompt_tokens, count)} if step.finish else {})


def chat(head: Json, done: Sequence[Step], hidden: Sequence[Step], prompt_tokens: int, body: Json) -> Json:
    """A whole chat answer; after `no_tool` the hidden generation's reason, count and log probabilities stand in it."""
    message = {"role": "assistant", "content": text_of(done)}
    choice = {"index": 0, "message": message, "logprobs": _logprobs(hidden, body), "finish_reason": _finish(hidden)}
    return head | {"choices": [choice], "usage": usage(prompt_tokens, len(hidden))}


def chat_chunk(head: Json, step: Step, body: Json) -> Json:
    """A chunk: the role every time, `usage` always null."""
    delta = {"role": "assistant", "content": step.text}
    return _chunk(head, delta, step, _logprobs([step], body))


def _chunk(head: Json, delta: Json, step: Step, logprobs: Json | None) -> Json:
    finish = _OPENAI.get(step.finish or "", step.finish)
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return head | {"choices": [choice], "usage": None}


def _logprobs(done: Sequence[Step], body: Json) -> Json | None:
    top = body.get("top_logprobs") or 0
    return {"content": [_logprob(step.token, top) for step in done]} if body.get("logprobs") else None


def _logprob(token: Token, top: int) -> Json:
    shown = [{"token": text, "logprob": logprob} for text, logprob in token.top(top)]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": shown}


def _finish(done: Sequence[Step]) -> str | None:
    return _OPENAI.get(done[-1].finish or "", done[-1].finish)


# Tool calls: the model writes {"function":{"_name":"get_weather","city":"Rome"}}


def names_no_tool(done: Sequence[Step]) -> bool:
    """Whether the model chose, to the end, to call none."""
    return tool_fault(done) is None and text_of(done).startswith('{"function":{"_name":"no_tool"')


def tool_fault(done: Sequence[Step]) -> str | None:
    """Why a text is no tool call, in serde's words with the text behind them, if it is none."""
    text = text_of(done)
    try:
        call = json.loads(text)
    except ValueError:
        return f"{cut_short(text)} {compact(text)}"
    if "function" not in call:
        return f"missing field `function` at line 1 column {len(text)} {compact(text)}"
    return None


def chat_call(head: Json, done: Sequence[Step], prompt_tokens: int) -> Json:
    """A whole answer that is a tool call: one, with id "0", without content, and with `stop` for a reason."""
    function = dict(json.loads(text_of(done))["function"])
    name = function.pop("_name")
    shown = {"description": None, "name": name, "arguments": compact(function)}
    message = {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": shown}]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(done)}
    return head | {"choices": [choice], "usage": usage(prompt_tokens, len(done))}


def tool_chunk(head: Json, done: Sequence[Step]) -> Json | None:
    """A chunk of a streamed call: nothing until the name is known, then bytes of the arguments, and no reason at all.

    Only a call that is cut inside its arguments says `length`.
    """
    step, before = done[-1], text_of(done[:-1])
    if before.count("{") < 2 or not step.text:
        return None
    name, known, _ = before.partition('"_name":"')[2].partition('"')
    if not known or not name:
        return None
    first = before.endswith(f'"_name":"{name}"')
    arguments = "{" + step.text.strip(",") if first else step.text
    if not first and _closed(before + step.text):
        arguments = ""
    function = {"name": name if first else None, "arguments": arguments}
    delta = {"role": "assistant", "tool_calls": [{"index": 0, "id": "0", "type": "function", "function": function}]}
    cut = Step(step.text, step.token, "length" if step.finish == "length" else None)
    return _chunk(head, delta, cut, None)


def _closed(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
