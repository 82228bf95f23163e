"""Whole answers as a stream's chunks, and chunks as whole answers."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Call, Completion
from backends.convert import as_chunks, assembled, chunks_of, whole_of
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


@pytest.mark.parametrize("content", [None, ""])
def test_an_answer_without_content_and_calls_is_a_role_and_a_reason(content: str | None) -> None:
    """Such as a tool call that was cut. Whether it was null or empty, chunks cannot tell."""
    choice = ChatChoice(index=0, message=message(content), logprobs=None, finish_reason="length")
    chunks = [plain(one)["choices"][0] for one in as_chunks(Completion(Answer(choices=[choice])))]
    assert [(one["delta"], one["finish_reason"]) for one in chunks] == [
        ({"role": "assistant", "content": ""}, None),
        ({}, "length"),
    ]


def called(logprobs: Any = None) -> ChatChoice:
    """Return a choice of two tool calls, without text."""
    return ChatChoice(index=0, message=message(None, 2), logprobs=logprobs, finish_reason="tool_calls")


LOGGED = {"content": [{"token": "{", "logprob": -1.0, "bytes": [123], "top_logprobs": []}]}


def test_a_whole_tool_call_answer_is_a_role_each_call_in_one_chunk_and_the_reason() -> None:
    chunks = chunks_of(Answer(id="x", choices=[called()], usage=usage(3, 4)))
    function = {"name": "f", "arguments": "{}"}
    wanted = [
        {"role": "assistant", "content": ""},
        {"tool_calls": [{"index": 0, "id": "call_0", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 1, "id": "call_1", "type": "function", "function": function}]},
        {},
    ]
    choices = [plain(one)["choices"] for one in chunks or ()]
    assert [one["delta"] for (one,) in choices] == wanted
    assert [one["finish_reason"] for (one,) in choices] == [None, None, None, "tool_calls"]


def test_the_logprobs_of_a_call_are_kept_with_the_reason_but_not_shown_in_an_engines_stream() -> None:
    """TGI has them. Clients have never seen them in a stream, which the gateway makes of TGI's whole answer."""
    answer: Answer[Any] = Answer(choices=[called(LOGGED)])
    kept = chunks_of(answer)
    assert [one.choices[0].logprobs for one in kept or ()] == [None, None, None, LOGGED]
    assert [plain(one)["choices"][0]["logprobs"] for one in as_chunks(Completion(answer))] == [None] * 4
    assert answer.choices[0].logprobs == LOGGED


def test_what_is_thought_and_the_token_ids_go_both_ways() -> None:
    said = msgspec.structs.replace(message("a", 1), reasoning="hm", refusal="no")
    choice = ChatChoice(index=0, message=said, logprobs=None, finish_reason="stop", token_ids=[1, 2])
    answer = whole(CHAT, [choice]).answer
    answer.prompt_token_ids, answer.service_tier = [7], "default"
    chunks = chunks_of(answer)
    assert chunks is not None
    assert assembled(CHAT, chunks, answer.usage).answer == answer


def test_the_end_of_an_answer_in_pieces_is_a_chunk_already() -> None:
    end = ChunkChoice(index=0, delta=Delta(content="x"), logprobs=None, finish_reason="length")
    (chunk,) = [plain(one) for one in as_chunks(Completion(Answer(id="x", choices=[end])))]
    assert (chunk["id"], chunk["object"], chunk["choices"]) == ("x", "chat.completion.chunk", [plain(end)])


@pytest.mark.parametrize(
    "lost", [{"prompt_text": "p"}, {"prompt_logprobs": [None]}, {"kv_transfer_params": {}}, {"metrics": {"a": 1}}]
)
def test_what_one_form_has_no_place_for_is_never_lost(lost: dict[str, Any]) -> None:
    answer: Answer[Any] = Answer(choices=[called()], **lost)
    assert chunks_of(answer) is None
    assert whole_of(CHAT, [Answer(choices=[], **lost)]) is None


@pytest.mark.parametrize("lost", [{"annotations": [{"type": "x"}]}, {"audio": {"id": "x"}}])
def test_what_only_a_whole_message_has_a_place_for_has_no_chunks(lost: dict[str, Any]) -> None:
    said = msgspec.structs.replace(message("a"), **lost)
    choice = ChatChoice(index=0, message=said, logprobs=None, finish_reason="stop")
    assert chunks_of(Answer(choices=[choice])) is None


def test_chunks_with_fields_that_no_type_names_have_no_whole_answer() -> None:
    assert whole_of(CHAT, [{"choices": [], "mood": "good"}]) is None


def test_what_an_engine_says_in_the_other_form_is_never_refused() -> None:
    """What has no place in a chunk or in a whole answer is left out; the rest comes."""
    message = AnswerMessage(role="assistant", content="a", annotations=[], audio={"id": "x"})
    whole = Answer(choices=[ChatChoice(index=0, message=message, finish_reason="stop")], prompt_text="p")
    chunks = as_chunks(Completion(whole))
    assert [getattr(one, "prompt_text", None) for one in chunks] == ["p", None, None]
    assert plain(as_chunks(Completion(whole, {"mood": 1}))[0])["mood"] == 1
    events: list[Any] = [{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}], "mood": 1}]
    answer = assembled(CHAT, [*events, Answer(choices=[], prompt_text="p")], None).answer
    assert (answer.choices[0].message.content, answer.prompt_text) == ("a", "p")
