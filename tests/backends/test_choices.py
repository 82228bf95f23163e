"""Several upstream answers as one: their choices in order, their usage summed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backends.base import Completion, UpstreamRequest
from backends.choices import merged, merged_usage
from backends.schema import Answer, AnswerMessage, ChatChoice, Usage

NUMBERS = st.integers(0, 999)


def usage(read: int, written: int) -> Usage:
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


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
    assert merged_usage([usage(1, 2), Usage(completion_tokens=3)], [request(0), request(1)]) is None


def test_answers_are_merged_in_the_order_of_their_indexes() -> None:
    ones = []
    for index in (2, 0, 1):
        choice = ChatChoice(
            index=index,
            message=AnswerMessage(role="assistant", content=str(index)),
            logprobs=None,
            finish_reason="stop",
        )
        ones.append(Completion(Answer(id="x", choices=[choice], usage=usage(5, 2)), {"a": index}))
    got = merged(ones, [request(0, index) for index in (2, 0, 1)])
    assert [choice.message.content for choice in got.answer.choices] == ["0", "1", "2"]
    assert (got.answer.id, got.answer.usage, got.extra) == ("x", usage(5, 6), {"a": 2})


def test_one_answer_is_itself() -> None:
    one = Completion(Answer(choices=[], usage=None), {"new": 1})
    assert merged([one], [request(0)]) is one
