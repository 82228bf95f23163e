"""Recorded answers of a real TGI: as TGI sends them, and as a vLLM that wrote the same tokens would."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from backends.inbound.tgi import translate as native
from backends.inbound.tgi.wire import TgiRequest
from tests.support import recorded
from tests.support.harness import Asked, Gateway, Script, events, streamed, whole


def load(name: str) -> tuple[TgiRequest, recorded.Recorded]:
    """Read a recorded exchange; return what the client asked for, and the exchange."""
    case = recorded.load(f"tgi/{name}")
    return native.read(case.path, case.body), case


def vllm_choice(wanted: TgiRequest, said: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """A whole choice of vLLM's with the tokens of TGI's answer, in the form that `native.encode` asks for."""
    text = said["generated_text"].removeprefix(wanted.inputs if wanted.full_text else "")
    details = said.get("details") or said
    finish, stop = vllm_finish(details.get("finish_reason", "length"))
    choice: dict[str, Any] = {"index": index, "text": text, "finish_reason": finish, "stop_reason": stop}
    if tokens := details.get("tokens"):
        choice |= {"token_ids": [token["id"] for token in tokens]}
        choice["logprobs"] = vllm_logprobs(tokens, details.get("top_tokens", []))
    if prefill := details.get("prefill"):
        choice["prompt_token_ids"] = [token["id"] for token in prefill]
        choice["prompt_logprobs"] = [None] + [
            {str(token["id"]): {"logprob": token["logprob"], "rank": 1, "decoded_token": token["text"]}}
            for token in prefill[1:]
        ]
    return choice


def vllm_finish(reason: str | None) -> tuple[str | None, str | None]:
    """Return vLLM's finish_reason and stop_reason for TGI's reason."""
    return {
        "eos_token": ("stop", None),
        "stop_sequence": ("stop", "in"),
        "length": ("length", None),
    }.get(reason or "", (None, None))


def vllm_logprobs(tokens: list[Any], tops: list[Any]) -> dict[str, Any]:
    """Return the `logprobs` of vLLM's completion with these tokens of TGI's."""
    top_logprobs = [{f"token_id:{top['id']}": top["logprob"] for top in place} for place in tops]
    by_id = bool(tops)
    return {
        "tokens": [f"token_id:{token['id']}" if by_id else token["text"] for token in tokens],
        "token_logprobs": [token["logprob"] for token in tokens],
        "top_logprobs": top_logprobs or [{token["text"]: token["logprob"]} for token in tokens],
    }


def vllm_whole(wanted: TgiRequest, said: Any) -> bytes:
    """TGI's whole answer as vLLM's."""
    answer = said[0] if isinstance(said, list) else said
    details = answer.get("details") or {}
    sequences = [answer, *details.get("best_of_sequences", [])]
    counts = {"prompt_tokens": 2, "completion_tokens": len(details.get("tokens", [])), "total_tokens": 0}
    choices = [vllm_choice(wanted, one, place) for place, one in enumerate(sequences)]
    return json.dumps({"object": "text_completion", "choices": choices, "usage": counts}).encode()


def vllm_stream(wanted: TgiRequest, said: list[Any]) -> list[bytes]:
    """TGI's events as vLLM's chunks: text as it becomes whole, the special token's left out."""
    reason = "length" if wanted.parameters.stop == [] else "stop_sequence"
    chunks = []
    for place, event in enumerate(said):
        token, last = event["token"], place == len(said) - 1
        finish = (event["details"] or {}).get("finish_reason") or ("eos_token" if token["special"] else reason)
        choice: dict[str, Any] = {"index": 0, "text": "" if token["special"] else token["text"]}
        choice["finish_reason"], choice["stop_reason"] = vllm_finish(finish) if last else (None, None)
        choice |= {"token_ids": [token["id"]], "prompt_token_ids": None if place else [316, 2701]}
        choice["logprobs"] = vllm_logprobs([token], [event["top_tokens"]] if "top_tokens" in event else [])
        chunks.append(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    usage = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": len(said), "total_tokens": 0}}
    return [*chunks, b"data: " + json.dumps(usage).encode() + b"\n\n", b"data: [DONE]\n\n"]


def names_in(said: Any) -> dict[int, str]:
    """The text of every token in an answer."""
    if isinstance(said, list):
        return {token: text for one in said for token, text in names_in(one).items()}
    if not isinstance(said, dict):
        return {}
    here = {said["id"]: said["text"]} if "id" in said else {}
    return here | names_in(list(said.values()))


def plays(name: str) -> tuple[recorded.Recorded, Any, Script]:
    """Return a recorded exchange, what TGI said, and the script of a vLLM that writes the same."""
    wanted, case = load(name)
    stream = "event-stream" in case.response_headers["content-type"]
    said = events(case.response_body) if stream else json.loads(case.response_body)
    names = names_in(said)
    answer = streamed(*vllm_stream(wanted, said)) if stream else whole(vllm_whole(wanted, said))

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.path == "/detokenize":
            (token,) = asked.json["tokens"]
            writer.write(whole({"prompt": names[token]}))
        elif asked.path == "/tokenize":
            writer.write(whole({"count": 2, "max_model_len": 1024}))
        else:
            writer.write(answer)
        await writer.drain()

    return case, said, script


def as_sent(case: recorded.Recorded) -> bytes:
    """The recorded answer as TGI put it on the wire."""
    kind = case.response_headers["content-type"]
    if "event-stream" in kind:
        return streamed(case.response_body)
    more = "".join(f"{name}: {value}\r\n" for name, value in case.response_headers.items() if name.startswith("x-"))
    return whole(case.response_body, f"{case.status} Whatever", kind, more)


async def ask(front: Gateway, case: recorded.Recorded, **headers: str) -> httpx.Response:
    """Send the request of a recorded exchange to the gateway."""
    return await front.client.post(case.path, content=case.body, headers={"content-type": "application/json"} | headers)
