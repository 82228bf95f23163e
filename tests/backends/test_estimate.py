"""Estimates of tokens: four bytes of UTF-8 are one, rounded up, of what an engine reads and writes."""

import json
from typing import Any

import msgspec
import pytest

from backends.estimate import Estimate, Written, of_body, so_far, total, whole, with_prompt
from backends.schema import Answer, ChatChoice, TextChoice, Usage

# a body, and the bytes of its prompt
BODIES: dict[str, tuple[dict[str, Any], int]] = {
    "text": ({"prompt": "12345678"}, 8),
    "several texts": ({"prompt": ["1234", "5678"]}, 8),
    "by bytes and not by letters": ({"prompt": "üüüü"}, 8),
    "token ids": ({"prompt": [1, 2]}, 8),
    "lists of token ids": ({"prompt": [[1], [2]]}, 8),
    "TGI's": ({"inputs": "12345678", "parameters": {"stop": ["not of the prompt"]}}, 8),
    "a chat, with its names": ({"messages": [{"role": "user", "content": "12345"}]}, 4 + 4 + 7 + 5),
    "parts": ({"messages": [{"content": [{"type": "text", "text": "1234"}]}]}, 7 + 4 + 4 + 4 + 4),
    "an image": ({"messages": [{"content": [{"image_url": {"url": "data:" + "x" * 4000}}]}]}, 7),
    "tools": ({"messages": [], "tools": [{"type": "function"}]}, 4 + 8),
    "responses": ({"input": "1234", "instructions": "5678"}, 8),
    "rerank": ({"query": "1234", "documents": ["5678"]}, 8),
    "nothing of the prompt": ({"model": "x" * 40, "max_tokens": 9, "user": "x"}, 0),
    "nothing that counts": ({"prompt": None, "messages": [True, 1.5, None]}, 0),
    "rounded up": ({"prompt": "123456789"}, 12),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_prompt_has_a_token_for_each_four_bytes(name: str) -> None:
    body, size = BODIES[name]
    assert of_body(json.dumps(body).encode()) == -(-size // 4)


@pytest.mark.parametrize("body", [b"12345678", b"[1,    ]", b'"\xff56789"', b'{"a":1}x'])
def test_of_a_body_that_is_no_object_all_of_it_counts(body: bytes) -> None:
    assert of_body(body) == 2


def test_a_prompt_that_nobody_can_read_is_estimated_all_the_same() -> None:
    deep = b'{"prompt":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert of_body(deep) > 0
    assert of_body(b'{"prompt":"\\ud83d"}') > 0


def chat(**message: Any) -> Answer[ChatChoice]:
    said = {"role": "assistant"} | message
    value = {"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}
    return msgspec.convert(value, Answer[ChatChoice])


CALL = {"id": "not counted", "type": "function", "function": {"name": "1234", "arguments": "5678"}}


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ({"content": "123456789"}, 3),
        ({"content": None, "tool_calls": [CALL]}, 2),
        ({"content": None, "function_call": CALL["function"]}, 2),
        ({"content": "1234", "reasoning": "5678", "reasoning_content": "5678"}, 2),
        ({"content": None, "refusal": "12345678"}, 2),
        ({"content": ""}, 0),
    ],
)
def test_of_an_answer_its_texts_count_whatever_else_it_says(message: dict[str, Any], tokens: int) -> None:
    one = chat(**message)
    assert Written([one]).tokens == Written([msgspec.to_builtins(one) | {"mood": "good"}]).tokens == tokens


def test_each_piece_is_a_token_at_least() -> None:
    piece = Answer[TextChoice](choices=[TextChoice(index=0, text="x", finish_reason=None)])
    empty = Answer[TextChoice](choices=[TextChoice(index=0, text="", finish_reason="stop")])
    assert Written([piece, piece, empty, piece]).tokens == 3


def used(read: int, written: int, both: int = -1) -> Usage:
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=both)


def figures(usage: Usage) -> tuple[int, int, int, bool]:
    return usage.prompt_tokens, usage.completion_tokens, total(usage), isinstance(usage, Estimate)


def test_of_an_answer_that_is_over_the_engines_figures_count_and_what_they_lack_is_completed() -> None:
    assert figures(whole(used(5, 2), 9)) == (5, 2, 7, False)
    assert figures(whole(used(5, -1), 9)) == (5, 9, 14, True)
    assert figures(whole(used(0, 0, 0), 9)) == figures(whole(None, 9)) == (-1, 9, 9, True)


def test_of_an_answer_that_is_not_over_at_least_what_has_come_counts() -> None:
    assert figures(so_far(used(5, 12), 9)) == (5, 12, 17, False)
    assert figures(so_far(used(5, 2), 9)) == (5, 9, 14, True)
    assert figures(so_far(None, 9, 5)) == (5, 9, 14, True)


def test_the_prompt_is_estimated_where_it_is_not_known() -> None:
    assert figures(with_prompt(used(5, 2), lambda: 7)) == (5, 2, 7, False)
    assert figures(with_prompt(used(-1, 2), lambda: 7)) == (7, 2, 9, True)
    assert figures(with_prompt(used(0, 2), lambda: 7)) == (7, 2, 9, True)
    assert figures(with_prompt(used(0, 2), lambda: 0)) == (0, 2, 2, False)
