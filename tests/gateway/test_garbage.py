"""A request that was answered leaves nothing for the garbage collector: what it held is freed as it ends."""

import asyncio
import gc
from typing import Any

import pytest

from tests.support.harness import ANSWER, CHAT, END, STREAM, Script, over, piece, says, streamed, until, whole
from tests.support.harness import head as stream_head

GENERATED = {"generated_text": "x", "details": None}
TGI_EVENTS = [
    b'data:{"index":1,"token":{"id":1,"text":"a","logprob":-1.0,"special":false},"generated_text":null,"details":null}\n\n',
    b'data:{"index":2,"token":{"id":2,"text":"b","logprob":-1.0,"special":false},"generated_text":"ab","details":null}\n\n',
]
LIST = {"object": "list", "data": [], "model": "own", "usage": {"prompt_tokens": 1, "total_tokens": 1}}

OURS = ("gateway", "backends")

# what is asked: the engine's kind, the path, the body, and what the engine says
REQUESTS: dict[str, tuple[str, str, Any, Script]] = {
    "whole": ("vllm", "/v1/chat/completions", CHAT, says(whole(ANSWER))),
    "streamed": ("vllm", "/v1/chat/completions", CHAT | {"stream": True}, says(streamed(*STREAM))),
    "passed on": ("vllm", "/v1/embeddings", {"model": "tiny", "input": "x"}, says(whole(LIST))),
    "passed on, streamed": ("vllm", "/v1/responses", {"model": "tiny", "stream": True}, says(streamed(*STREAM))),
    "TGI's own": ("tgi", "/generate", {"inputs": "x"}, says(whole(GENERATED))),
    "TGI's own, streamed": (
        "tgi",
        "/generate_stream",
        {"inputs": "x"},
        says(stream_head() + piece(b"".join(TGI_EVENTS)) + END),
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_that_has_ended_is_freed_at_once(name: str) -> None:
    kind, path, body, script = REQUESTS[name]
    async with over(script, kind) as (front, _):
        await front.post(body, path)
        await until(lambda: front.services.sweep.open == set())
        await asyncio.sleep(0.1)  # for the recorder, which holds what has ended for a moment
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await front.post(body, path)
            await asyncio.sleep(0.1)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = {
                type(one).__name__ for one in gc.garbage if type(one).__module__.startswith(("gateway", "backends"))
            }
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == set()
