"""Two answers to one request: what they have in common, where they part, and why. Each row is one pair."""

import math
from typing import Any

import pytest

from gateway.experiments.answers import (
    AnswerTriple,
    CalledTool,
    SaidAnswer,
    SaidToken,
    Transcript,
    Unit,
    check_data,
    common_unit,
    distance,
    divergences,
    first_difference,
    length_gap,
)
from gateway.experiments.answers import (
    DifferenceKind as Kind,
)
from gateway.experiments.answers.data import fits
from gateway.experiments.statistics.arms import Split
from gateway.experiments.statistics.divergence import Divergences


def said(*words: str, finish: str = "stop", prompt: int = 7, **more: Any) -> SaidAnswer:
    """Return an answer whose tokens are these words, without log probabilities of others."""
    tokens = tuple(SaidToken(word, -0.1) for word in words)
    return SaidAnswer(text="".join(words), tokens=tokens, finish=finish, prompt_tokens=prompt, **more)


def likely(text: str, **likeliest: float) -> SaidAnswer:
    """Return an answer of two tokens, the second of which had these log probabilities."""
    names = {f" {name}": value for name, value in likeliest.items()}
    tokens = (SaidToken("It is", -0.1), SaidToken(f" {text}", names[f" {text}"], names))
    return SaidAnswer(text=f"It is {text}", tokens=tokens, finish="stop", prompt_tokens=7)


def calling(name: str, arguments: str) -> SaidAnswer:
    return SaidAnswer(calls=(CalledTool(name, arguments),), finish="tool_calls", prompt_tokens=7)


SAME = said("It", " is", " red", ".")
PAIRS = [
    ("equal", SAME, said("It", " is", " red", "."), Kind.SAME, False, 4),
    ("another prompt", SAME, said("It", " is", " red", ".", prompt=8), Kind.PROMPT, False, 4),
    ("cut by the limit", SAME, said("It", " is", finish="length"), Kind.STOP, False, 2),
    ("ended for another reason", SAME, said("It", " is", " red", ".", finish="length"), Kind.STOP, False, 4),
    ("without log probabilities", SAME, said("It", " is", " blue", "."), Kind.UNKNOWN, True, 3),
    ("nothing said", said(), said(), Kind.SAME, False, 0),
    ("nothing said by one", SAME, said(), Kind.STOP, False, 0),
    ("a tie", likely("red", red=-0.7, blue=-0.9), likely("blue", blue=-0.7, red=-0.8), Kind.TIE, True, 2),
    (
        "sure on one side",
        likely("red", red=-0.1, blue=-3),
        likely("blue", blue=-0.7, red=-0.8),
        Kind.HARD,
        True,
        2,
    ),
    (
        "not thought of",
        likely("red", red=-0.7, pink=-0.8),
        likely("blue", blue=-0.7, red=-0.8),
        Kind.HARD,
        True,
        2,
    ),
    (
        "the same call",
        calling("get", '{"a": 1, "b": 2}'),
        calling("get", '{"b":2.0,"a":1}'),
        Kind.SAME,
        False,
        2,
    ),
    ("another argument", calling("get", '{"a": 1}'), calling("get", '{"a": 2}'), Kind.FORMAT, False, 3),
    ("another tool", calling("get", "{}"), calling("put", "{}"), Kind.FORMAT, False, 1),
    ("no call", calling("get", "{}"), SAME, Kind.FORMAT, False, 1),
]


@pytest.mark.parametrize(
    ("one", "other", "kind", "diverged", "at_risk"), [row[1:] for row in PAIRS], ids=[row[0] for row in PAIRS]
)
def test_a_pair_is_of_its_kind_either_way_round(
    one: SaidAnswer, other: SaidAnswer, kind: Kind, diverged: bool, at_risk: int
) -> None:
    for mine, its in ((one, other), (other, one)):
        found = first_difference(mine, its, common_unit(mine, its))
        assert (found.kind, found.diverged, found.at_risk) == (kind, diverged, at_risk)


def test_json_is_compared_as_data_where_it_was_asked_for() -> None:
    one, other = said('{"a": 1,', ' "b": [1.0]}'), said('{"b":', "[1]", ', "a": 1}')
    assert first_difference(one, other, Unit.WORDS, as_json=True).kind is Kind.SAME
    assert first_difference(one, said('{"a": 2}'), Unit.WORDS, as_json=True).kind is Kind.FORMAT
    assert first_difference(one, said("{"), Unit.WORDS, as_json=True).kind is Kind.FORMAT
    assert first_difference(said("true"), said("1"), Unit.WORDS, as_json=True).kind is Kind.FORMAT


SPELLED = [
    ("whole", ["It", " is"], "It is", Unit.TOKENS),
    ("with an end token behind it", ["It", " is", "<|im_end|>"], "It is", Unit.TOKENS),
    ("cut by a stop string", ["It", " is.\n\nNow"], "It is.", Unit.TOKENS),
    ("half characters", ["It", " \N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"], "It é", Unit.WORDS),
    ("without tokens", [], "It is", Unit.WORDS),
    ("too few tokens", ["It"], "It is", Unit.WORDS),
]


@pytest.mark.parametrize(("tokens", "text", "unit"), [row[1:] for row in SPELLED], ids=[row[0] for row in SPELLED])
def test_tokens_are_compared_where_they_spell_the_text(tokens: list[str], text: str, unit: Unit) -> None:
    answer = SaidAnswer(text=text, tokens=tuple(SaidToken(token, -1.0) for token in tokens))
    assert common_unit(answer, answer) is unit
    assert first_difference(answer, answer, unit).kind is Kind.SAME


def test_token_ids_win_and_only_where_all_have_them() -> None:
    with_ids, without = said("It", " is", ids=(4, 5)), said("It", " is")
    assert common_unit(with_ids, with_ids) is Unit.IDS
    assert common_unit(with_ids, without) is Unit.TOKENS
    assert first_difference(with_ids, said("It", " was", ids=(4, 9)), Unit.IDS).at_risk == 2
    with pytest.raises(ValueError, match="spell"):
        first_difference(SaidAnswer(text="It"), SAME, Unit.TOKENS)


def test_the_offset_is_how_many_characters_are_alike() -> None:
    assert first_difference(SAME, said("It", " is", " blue", "."), Unit.TOKENS).offset == len("It is ")


CHUNKS: list[dict[str, Any]] = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}]},
    {"choices": [{"index": 0, "delta": {"reasoning": "Hm. "}}, {"index": 1, "delta": {"content": "another"}}]},
    {
        "choices": [
            {
                "index": 0,
                "delta": {"content": "Red"},
                "token_ids": [4],
                "logprobs": {
                    "content": [{"token": "Red", "logprob": -0.5, "top_logprobs": [{"token": "Blue", "logprob": -1}]}]
                },
            }
        ]
    },
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "get"}}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}},
]


def test_a_stream_is_put_together() -> None:
    heard = Transcript()
    assert [heard.take(chunk) for chunk in CHUNKS] == [False, True, True, True, True, True, False]
    assert heard.answer() == SaidAnswer(
        text="Hm. Red",
        tokens=(SaidToken("Red", -0.5, {"Blue": -1}),),
        ids=(4,),
        calls=(CalledTool("get", "{}"),),
        finish="tool_calls",
        prompt_tokens=9,
        completion_tokens=3,
    )


def test_a_whole_completion_is_read_with_its_own_logprobs() -> None:
    heard = Transcript()
    logprobs = {"tokens": ["Re", "d"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"d": -0.5}]}
    heard.take({"choices": [{"index": 0, "text": "Red", "finish_reason": "stop", "logprobs": logprobs}]})
    assert heard.answer().tokens == (SaidToken("Re", 0.0), SaidToken("d", -0.5, {"d": -0.5}))
    assert (heard.answer().text, heard.answer().prompt_tokens) == ("Red", -1)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("", "", 0.0),
        ("abc", "abc", 0.0),
        ("abc", "xyz", 1.0),
        ("abcd", "abxd", 0.25),
        ("ab", "", 1.0),
        ("ab", "ba", 0.5),
    ],
)
def test_the_distance_is_that_of_the_longest_common_subsequence(one: str, other: str, apart: float) -> None:
    assert distance(one, other) == pytest.approx(apart)
    assert distance(other, one) == pytest.approx(apart)


def test_the_gap_of_lengths_is_capped() -> None:
    assert length_gap(9, 9) == 0
    assert length_gap(9, 19) == pytest.approx(math.log(2))
    assert length_gap(0, 1000) == 1.0


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("answer", "calls", "valid"),
    [
        (calling("get", '{"city": "Rome"}'), True, True),
        (calling("get", '{"city": 1}'), True, False),
        (calling("get", "{}"), True, False),
        (calling("put", '{"city": "Rome"}'), True, False),
        (calling("get", '{"city": '), True, False),
        (said("Rome"), False, None),
    ],
)
def test_calls_are_held_against_the_requests_tools(answer: SaidAnswer, calls: bool, valid: bool | None) -> None:
    found = check_data(answer, {"get": CITY}, None)
    assert (found.calls, found.valid) == (calls, valid)


@pytest.mark.parametrize(
    ("value", "schema", "valid"),
    [
        (1, True, True),
        (1, False, False),
        (1.0, {"type": "integer"}, True),
        (1.5, {"type": "integer"}, False),
        (True, {"type": "integer"}, False),
        (None, {"type": ["string", "null"]}, True),
        ("a", {"enum": ["a", "b"]}, True),
        ("c", {"enum": ["a", "b"]}, False),
        (1, {"const": True}, False),
        ([1, "a"], {"items": {"type": "integer"}}, False),
        ({"a": 1, "b": 2}, {"properties": {"a": True}, "additionalProperties": False}, False),
        (1, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, True),
        (1, {"allOf": [{"type": "integer"}, {"type": "string"}]}, False),
    ],
)
def test_a_value_keeps_to_a_schema_or_not(value: object, schema: Any, valid: bool) -> None:
    assert fits(value, schema) is valid


BLUE, GREY = said("It", " is", " blue", "."), said("It", " was", " grey", ".")
NEITHER, OWN, ACROSS = Split(), Split(1, 0), Split(0, 1)


@pytest.mark.parametrize(
    ("again", "treatment", "left", "alone"),
    [
        (SAME, SAME, NEITHER, NEITHER),
        (SAME, BLUE, ACROSS, ACROSS),
        (BLUE, SAME, OWN, OWN),
        (BLUE, GREY, ACROSS, NEITHER),
        (GREY, BLUE, OWN, NEITHER),
        (BLUE, BLUE, NEITHER, NEITHER),
        (BLUE, said("It", " is", finish="length"), OWN, OWN),
        (BLUE, said("It", prompt=9), NEITHER, OWN),
    ],
)
def test_who_left_the_reference_first_and_who_alone(
    again: SaidAnswer, treatment: SaidAnswer, left: Split, alone: Split
) -> None:
    """The two are told as tosses, of the engine with itself and of the two engines; equal ones are none."""
    triple = AnswerTriple(SAME, again, treatment)
    assert triple.left_first() == left
    assert triple.alone(Kind.UNKNOWN) == alone


def test_who_is_farther_from_a_sampled_answer() -> None:
    assert AnswerTriple(SAME, BLUE, GREY).farther() == ACROSS
    assert AnswerTriple(SAME, GREY, BLUE).farther() == OWN
    assert AnswerTriple(SAME, BLUE, BLUE).farther() == NEITHER


def test_pairs_are_summed_by_kind_and_other_prompts_put_no_token_at_risk() -> None:
    others = (SAME, BLUE, said("It", " is", finish="length"), said("It", prompt=9))
    found = divergences(first_difference(SAME, other, Unit.TOKENS) for other in others)
    assert found == Divergences(pairs=4, tokens=4 + 3 + 2, diverged=1, stopped=1, prompts=1)
    assert found.unknown == 1
