"""`loadtests.quality` computes perplexity from what the engine says, and where two answers first differ, and how."""

import math
from argparse import Namespace
from pathlib import Path

import pytest

from loadtests.quality import SELF, Difference, Said, difference, hazard, perplexity, pieces, ratio, run
from tests.support.delayed import scores
from tests.support.harness import engine

NEAR, FAR = {"a": -1.0, "b": -1.2}, {"a": -0.1, "b": -3.0}


@pytest.mark.parametrize(
    ("a", "b", "likely", "found"),
    [
        (["x", "a"], ["x", "a"], NEAR, Difference(2)),
        (["x", "a"], ["x", "b"], NEAR, Difference(2, "tie")),
        (["x", "a"], ["x", "b"], FAR, Difference(2, "hard")),
        (["x", "a"], ["x", "c"], NEAR, Difference(2, "hard")),  # neither holds it for likely
        (["x"], ["x", "a"], NEAR, Difference(2, "stop")),
        ([], [], NEAR, Difference(0)),
    ],
)
def test_answers_are_compared_until_they_first_differ(
    a: list[str], b: list[str], likely: dict[str, float], found: Difference
) -> None:
    assert difference(Said(a, [likely] * len(a)), Said(b, [likely] * len(b))) == found


def test_the_hazard_is_differences_per_1000_tokens_compared() -> None:
    told = hazard([Difference(500), Difference(300, "tie"), Difference(200, "hard")])
    assert told["per_1000_tokens"] == 2.0
    assert told["kinds"] == {"tie": 1, "hard": 1}


def test_a_ratio_holds_one_where_two_pairs_are_alike_and_not_where_they_differ() -> None:
    few, many = ({"differences": count, "tokens_compared": 10_000} for count in (20, 80))
    alike, unlike = ratio(few, few), ratio(many, few)
    assert alike["low"] < 1 < alike["high"]
    assert unlike["low"] > 1


def test_perplexity_is_exp_of_the_mean() -> None:
    assert perplexity([-math.log(8)] * 4, 6) == {"tokens": 4, "perplexity": 8.0, "bits_per_byte": 2.0}


def test_pieces_have_so_many_words_and_lie_all_over_the_text() -> None:
    text = " ".join(f"w{number}" for number in range(100))
    found = pieces(text, 10, 3)
    assert [len(piece.split()) for piece in found] == [10, 10, 10]
    assert found[0].startswith("w0 ")
    assert len(pieces(text, 10, 100)) == 9


async def test_engines_are_compared_with_the_first_and_it_with_itself(tmp_path: Path) -> None:
    """Each token of the text is held for 1 in 4; the other engine differs at the second token, by far."""
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{number}" for number in range(60)))
    async with (
        engine(scores(-math.log(4), ["a", "b"], 9.0)) as base,
        engine(scores(-1.0, ["a", "other"], 9.0)) as other,
    ):
        servers = [f"base={base.url}", f"other={other.url}"]
        shape = {"pieces": 5, "words": 10, "head_words": 4, "max_tokens": 2, "in_flight": 4}
        found = await run(Namespace(servers=servers, text=text, model="tiny", **shape))
    assert found["servers"]["base"]["perplexity"] == 4.0
    assert found["pairs"][SELF]["differences"] == 0
    assert found["pairs"]["other"]["kinds"] == {"hard": 5}
    assert found["pairs"]["other"]["per_1000_tokens"] == 500.0
