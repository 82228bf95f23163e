"""Tools reach a model whose chat template knows none: in its prompt, where the engine's own `/tokenize` shows that."""

import asyncio
from typing import Any

import pytest

from tests.support.harness import Asked, Script, hangs, whole
from tests.support.pairs import pair, single

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TOOLS = CHAT | {"tools": [TOOL], "tool_choice": "required"}
CALL = '{"function": {"_name": "f"}}'
CHOICE = {"index": 0, "message": {"role": "assistant", "content": CALL}, "finish_reason": "stop"}
ANSWER = {"choices": [CHOICE], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
PIN = {"x_pointsman_engine": "vllm"}


def tokenizing(without: bytes, within: bytes) -> Script:
    """Return the script of a vLLM: what `/tokenize` answers without a tool and with one, and a chat."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.path == "/tokenize":
            writer.write(within if "tools" in asked.json else without)
        else:
            writer.write(whole(ANSWER))

    return script


def counted(tokens: int) -> bytes:
    return whole({"count": tokens, "max_model_len": 1024, "tokens": []})


KNOWS_NONE = tokenizing(counted(9), counted(9))
KNOWS = tokenizing(counted(9), counted(30))
SILENT = tokenizing(whole({"detail": "Not Found"}, "404 Not Found"), counted(9))


def chats(asked: list[Asked]) -> list[dict[str, Any]]:
    return [one.json for one in asked if one.path == "/v1/chat/completions"]


def questions(asked: list[Asked]) -> int:
    return sum(one.path == "/tokenize" for one in asked)


async def test_tools_are_said_in_the_prompt_beside_a_tgi_and_the_template_is_looked_at_once() -> None:
    async with pair(KNOWS_NONE, hangs(), ("vllm", "tgi")) as these:
        for stream in (False, True):
            answer = await these.front.post(TOOLS | {"stream": stream}, **PIN)
            assert answer.status_code == 200
            assert "tools" in answer.headers["x-pointsman-adapted"].split(",")
            assert '"name":"f"' in answer.text.replace(" ", "")
        assert questions(these.first.asked) == 2  # without a tool and with one
        for sent in chats(these.first.asked):
            assert "tools" not in sent
            assert sent["messages"][0]["content"].startswith("hi\n---\n[")
            assert sent["structured_outputs"]["json"]["required"] == ["function"]


@pytest.mark.parametrize(("script", "times"), [(KNOWS, 2), (SILENT, 2)], ids=["known once", "asked each time"])
async def test_tools_go_as_they_are_to_a_template_that_knows_them_and_where_it_is_not_known(
    script: Script, times: int
) -> None:
    async with pair(script, hangs(), ("vllm", "tgi")) as these:
        for _ in range(2):
            assert (await these.front.post(TOOLS, **PIN)).status_code == 200
        assert all("tools" in sent for sent in chats(these.first.asked))
        assert questions(these.first.asked) == times


async def test_without_tools_nobody_looks_at_the_template() -> None:
    async with pair(KNOWS_NONE, hangs(), ("vllm", "tgi")) as these:
        assert (await these.front.post(CHAT, **PIN)).status_code == 200
        assert questions(these.first.asked) == 0


@pytest.mark.parametrize(("setting", "said"), [("auto", False), ("never", False), ("always", True)])
async def test_a_vllm_alone_is_told_so_where_the_model_says_always(setting: str, said: bool) -> None:
    async with single(KNOWS_NONE, tools_in_prompt=setting) as only:
        assert (await only.front.post(TOOLS)).status_code == 200
        assert ("tools" not in chats(only.first.asked)[0]) is said
