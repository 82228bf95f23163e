"""The two further dialects that vLLM's server speaks: OpenAI's responses and Anthropic's messages."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from backends.sim.engine import Round
from backends.sim.http import event
from backends.sim.text import Step
from backends.sim.vllm_check import Ask, Body, chat_prompt

Json = dict[str, Any]
_RESPONSE = """{"id":"","created_at":0,"incomplete_details":null,"instructions":null,"metadata":null,"model":"",
"object":"response","output":[],"parallel_tool_calls":true,"temperature":1.0,"tool_choice":"none","tools":[],
"top_p":1.0,"background":false,"max_output_tokens":null,"max_tool_calls":null,"previous_response_id":null,
"prompt":null,"reasoning":null,"service_tier":"auto","status":"in_progress","text":null,"top_logprobs":null,
"truncation":"disabled","usage":null,"user":null,"presence_penalty":0.0,"frequency_penalty":0.0,
"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null}"""
_USAGE = """{"input_tokens":0,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0,
"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":0,"output_tokens_details":{
"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]}}"""


def response_object(body: Body, model: str, identity: str, created: int) -> Json:
    """A response that has just begun."""
    asked = {name: body[name] for name in ("temperature", "top_p", "max_output_tokens", "instructions") if name in body}
    return json.loads(_RESPONSE) | asked | {"id": identity, "created_at": created, "model": model}  # type: ignore[no-any-return]


def response_done(begun: Json, done: Sequence[Step], prompt: int, item: str) -> Json:
    """The same response at its end."""
    cut = done[-1].finish == "length"
    counts = {"input_tokens": prompt, "output_tokens": len(done), "total_tokens": prompt + len(done)}
    return begun | {
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_item(item, "completed", [_part(_text(done))])],
        "status": "incomplete" if cut else "completed",
        "usage": json.loads(_USAGE) | counts,
    }


async def response_events(rounds: AsyncIterator[Round], ask: Ask, begun: Json, item: str) -> AsyncIterator[bytes]:
    """The events of a streamed response: numbered, each with its name, and no end mark."""
    number = -1

    def named(kind: str, **more: object) -> bytes:
        nonlocal number
        number += 1
        return event(more | {"sequence_number": number, "type": f"response.{kind}"}, f"response.{kind}")

    place: Json = {"item_id": item, "output_index": 0, "content_index": 0}
    done: list[Step] = []
    yield named("created", response=begun)
    yield named("in_progress", response=begun)
    yield named("output_item.added", item=_item(item, "in_progress", []), output_index=0)
    yield named("content_part.added", part=_part("") | {"logprobs": []}, **place)
    async for steps in rounds:
        for _, step in steps:
            done.append(step)
            yield named("output_text.delta", delta=step.text, logprobs=[], **place)
    yield named("output_text.done", text=_text(done), logprobs=[], **place)
    yield named("content_part.done", part=_part(_text(done)), **place)
    yield named("output_item.done", item=_item(item, "completed", [_part(_text(done))]), output_index=0)
    yield named("completed", response=response_done(begun, done, ask.prompts[0][1], item))


def _item(identity: str, status: str, content: list[Json]) -> Json:
    head: Json = {"id": identity, "content": content, "role": "assistant"}
    return head | {"status": status, "type": "message", "phase": None}


def _part(text: str) -> Json:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _text(done: Sequence[Step]) -> str:
    return "".join(step.text for step in done)


def message_object(head: Json, done: Sequence[Step], prompt: int) -> Json:
    """A whole answer of /v1/messages."""
    usage = {"input_tokens": prompt, "output_tokens": len(done)}
    content = [{"type": "text", "text": _text(done)}]
    begun = {"id": head["id"], "type": "message", "role": "assistant", "content": content, "model": head["model"]}
    return begun | {"stop_reason": _reason(done), "usage": usage}


async def message_events(rounds: AsyncIterator[Round], ask: Ask, head: Json) -> AsyncIterator[bytes]:
    """The events of a streamed one, in Anthropic's form (not recorded)."""

    def named(kind: str, **more: object) -> bytes:
        return event({"type": kind} | more, kind)

    usage = {"input_tokens": ask.prompts[0][1], "output_tokens": 0}
    begun = {"id": head["id"], "type": "message", "role": "assistant", "content": [], "model": head["model"]}
    done: list[Step] = []
    yield named("message_start", message=begun | {"stop_reason": None, "usage": usage})
    yield named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    async for steps in rounds:
        for _, step in steps:
            done.append(step)
            yield named("content_block_delta", index=0, delta={"type": "text_delta", "text": step.text})
    yield named("content_block_stop", index=0)
    yield named("message_delta", delta={"stop_reason": _reason(done)}, usage=usage | {"output_tokens": len(done)})
    yield named("message_stop")


def _reason(done: Sequence[Step]) -> str:
    return "max_tokens" if done[-1].finish == "length" else "end_turn"


def anthropic_prompt(body: Body, model: str) -> str:
    """The messages and the system's words in the chat template."""
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    return chat_prompt(body | ({"messages": system + body["messages"]} if system else {}), model)
