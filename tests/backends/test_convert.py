"""Several upstream answers as one, whole answers as chunks, and chunks as whole answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Call, Completion, UpstreamRequest
from backends.choices import merged, merged_usage
from backends.convert import as_chunks, assembled
from backends.schema import (
    Answer,
    AnswerMessage,
    CalledFunction,
    ChatChoice,
    ChunkChoice,
    Delta,
    TextChoice,
    ToolCall,
    Usage,
)
from tests.support.dialects import chat, plain, text

CHAT, TEXT = chat(model="ours"), text(prompt="a", model="ours")
FINISH = st.sampled_from(["stop", "length", "tool_calls"])
NUMBERS = st.integers(0, 999)
LEGACY = st.builds(
    lambda tokens: {
        "text_offset": list(range(len(tokens))),
        "token_logprobs": [-1.0] * len(tokens),
        "tokens": tokens,
        "top_logprobs": [{token: -1.0} for token in tokens],
    },
    st.lists(st.text(max_size=3), max_size=3),
)
OF_CHATS = st.builds(
    lambda tokens: {"content": [{"token": one, "logprob": -1.0, "bytes": [], "top_logprobs": []} for one in tokens]},
    st.lists(st.text(max_size=3), max_size=3),
)


def usage(read: int, written: int) -> Usage:
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def whole(call: Call, choices: list[Any]) -> Completion:
    kind = "chat.completion" if call is CHAT else "text_completion"
    for index, choice in enumerate(choices):
        choice.index = index
    head = {"id": call.id, "object": kind, "created": call.created, "model": call.model}
    return Completion(Answer(**head, choices=choices, usage=usage(3, 4)))  # type: ignore[arg-type]


def message(content: str | None, calls: int = 0) -> AnswerMessage:
    tools = [
        ToolCall(id=f"call_{place}", type="function", function=CalledFunction(name="f", arguments="{}"))
        for place in range(calls)
    ]
    return AnswerMessage(role="assistant", content=content, refusal=None, tool_calls=tools or None)


def chat_choice(content: str | None, finish: str, calls: int, logprobs: Any) -> ChatChoice:
    logprobs = logprobs if content else None
    content = content or (None if calls else "")
    return ChatChoice(index=0, message=message(content, calls), logprobs=logprobs, finish_reason=finish)


CHAT_CHOICES = st.builds(chat_choice, st.text(max_size=5), FINISH, st.integers(0, 2), st.none() | OF_CHATS)
TEXT_CHOICES = st.builds(
    lambda text, finish, logprobs: TextChoice(index=0, text=text, logprobs=logprobs, finish_reason=finish),
    st.text(max_size=5),
    FINISH,
    st.none() | LEGACY,
)
COMPLETIONS = st.one_of(
    st.builds(lambda choices: (CHAT, whole(CHAT, choices)), st.lists(CHAT_CHOICES, min_size=1, max_size=3)),
    st.builds(lambda choices: (TEXT, whole(TEXT, choices)), st.lists(TEXT_CHOICES, min_size=1, max_size=3)),
)


@given(COMPLETIONS)
def test_chunks_put_together_are_the_answer_they_were_made_of(pair: tuple[Call, Completion]) -> None:
    call, completion = pair
    before = copy.deepcopy(completion)
    assert assembled(call, as_chunks(completion), completion.answer.usage) == before
    assert completion == before


@given(COMPLETIONS)
def test_chunks_begin_and_end_as_vllms(pair: tuple[Call, Completion]) -> None:
    """Of a chat: a role with an empty content, then what there is, then the reason and nothing beside it."""
    call, completion = pair
    chunks = [plain(one) for one in as_chunks(completion)]
    kind = "chat.completion.chunk" if call is CHAT else "text_completion"
    assert {(one["id"], one["object"], one["created"], one["model"]) for one in chunks} == {
        (call.id, kind, call.created, "ours")
    }
    assert all(len(one["choices"]) == 1 and "usage" not in one for one in chunks)
    for choice in completion.answer.choices:
        mine = [one["choices"][0] for one in chunks if one["choices"][0]["index"] == choice.index]
        assert [one["finish_reason"] for one in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        if call is CHAT:
            assert mine[0]["delta"] == {"role": "assistant", "content": ""}
            assert mine[-1]["delta"] == {}
            tools = [tool for one in mine for tool in one["delta"].get("tool_calls", [])]
            assert [tool["index"] for tool in tools] == list(range(len(choice.message.tool_calls or ())))


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=3), st.none() | OF_CHATS), max_size=8), FINISH)
def test_any_chunks_of_a_chat_are_put_together(pieces: list[tuple[int, str, Any]], finish: str) -> None:
    """Interleaved as they come; the chunks are left as they were."""
    chunks: list[Any] = [
        Answer(choices=[ChunkChoice(index=index, delta=Delta(content=said), logprobs=logprobs)])
        for index, said, logprobs in pieces
    ]
    indexes = sorted({index for index, _, _ in pieces})
    chunks += [Answer(choices=[ChunkChoice(index=index, delta=Delta(), finish_reason=finish)]) for index in indexes]
    before = copy.deepcopy(chunks)
    answer = assembled(CHAT, chunks, None).answer
    assert chunks == before
    assert [choice.index for choice in answer.choices] == indexes
    for choice in answer.choices:
        mine = [piece for piece in pieces if piece[0] == choice.index]
        assert choice.message.content == "".join(said for _, said, _ in mine)
        assert choice.finish_reason == finish
        tokens = [token for _, _, logprobs in mine if logprobs for token in logprobs["content"]]
        assert (choice.logprobs or {"content": []})["content"] == tokens


@given(st.lists(st.tuples(st.text(max_size=3), st.none() | LEGACY), min_size=1, max_size=6))
def test_any_chunks_of_a_text_are_put_together(pieces: list[tuple[str, Any]]) -> None:
    chunks: list[Any] = [
        Answer(choices=[TextChoice(index=0, text=said, logprobs=logprobs, finish_reason=None)])
        for said, logprobs in pieces
    ]
    chunks[-1].choices[0].finish_reason = "stop"
    before = copy.deepcopy(chunks)
    (choice,) = assembled(TEXT, chunks, usage(1, 2)).answer.choices
    assert chunks == before
    assert (choice.text, choice.finish_reason) == ("".join(said for said, _ in pieces), "stop")
    tokens = [token for _, logprobs in pieces if logprobs for token in logprobs["tokens"]]
    assert (choice.logprobs or {"tokens": []})["tokens"] == tokens


def test_no_chunks_are_an_answer_without_choices() -> None:
    assert assembled(CHAT, [], None).answer.choices == []
    assert as_chunks(Completion(Answer(choices=[], usage=usage(1, 2)))) == []


# --- several as one ---------------------------------------------------------------------------------------------


def request(prompt: int, *choices: int) -> UpstreamRequest:
    return UpstreamRequest(path="/", body=b"", stream=False, prompt=prompt, choices=choices)


@given(st.lists(st.tuples(st.integers(0, 2), NUMBERS), min_size=1, max_size=6), st.lists(NUMBERS, min_size=3))
def test_a_prompt_counts_once_and_what_was_written_each_time(asked: list[tuple[int, int]], reads: list[int]) -> None:
    usages = [usage(reads[prompt], written) for prompt, written in asked]
    got = merged_usage(usages, [request(prompt) for prompt, _ in asked])
    read = sum(reads[prompt] for prompt in {prompt for prompt, _ in asked})
    assert got == usage(read, sum(written for _, written in asked))


def test_a_usage_that_one_did_not_tell_is_not_known() -> None:
    assert merged_usage([usage(1, 2), None], [request(0), request(0)]) is None


def test_answers_are_merged_in_the_order_of_their_indexes() -> None:
    ones = []
    for index in (2, 0, 1):
        choice = ChatChoice(index=index, message=message(str(index)), logprobs=None, finish_reason="stop")
        ones.append(Completion(Answer(id="x", choices=[choice], usage=usage(5, 2)), {"a": index}))
    got = merged(ones, [request(0, index) for index in (2, 0, 1)])
    assert [choice.message.content for choice in got.answer.choices] == ["0", "1", "2"]
    assert (got.answer.id, got.answer.usage, got.extra) == ("x", usage(5, 6), {"a": 2})


def test_one_answer_is_itself() -> None:
    one = Completion(Answer(choices=[], usage=None), {"new": 1})
    assert merged([one], [request(0)]) is one


@pytest.mark.parametrize("content", [None, ""])
def test_an_answer_without_content_and_calls_is_a_role_and_a_reason(content: str | None) -> None:
    """Such as a tool call that was cut. Whether it was null or empty, chunks cannot tell."""
    choice = ChatChoice(index=0, message=message(content), logprobs=None, finish_reason="length")
    chunks = [plain(one)["choices"][0] for one in as_chunks(Completion(Answer(choices=[choice])))]
    assert [(one["delta"], one["finish_reason"]) for one in chunks] == [
        ({"role": "assistant", "content": ""}, None),
        ({}, "length"),
    ]
