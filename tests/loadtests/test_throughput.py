"""`loadtests.throughput` counts tokens that come while it measures, and finds where more in flight brings no more."""

from argparse import ArgumentTypeError, Namespace
from typing import Any

import pytest

from loadtests.asking import Answered, has_text
from loadtests.throughput import counts, run, saturation
from tests.support.delayed import delayed
from tests.support.harness import engine, says, whole


def options(url: str, **more: Any) -> Namespace:
    """Return the options of a short run."""
    given = {
        "servers": [f"one={url}"],
        "model": "tiny",
        "in_flight": [1, 4],
        "seconds": 0.5,
        "settle": 0.1,
        "blocks": 1,
    }
    return Namespace(**given | {"max_tokens": 5, "prompt_words": 4, "stream": True, "extra": "{}", "seed": 1} | more)


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_grow_with_the_number_in_flight_where_nothing_bounds_them(stream: bool) -> None:
    """Five tokens every 60 ms: at most 83 a second for one client, and more for four."""
    async with engine(delayed(0.02, 0.01)) as behind:
        result = await run(options(behind.url, stream=stream))
    one, four = result["servers"]["one"][1], result["servers"]["one"][4]
    assert 0 < one["tokens_per_second"] <= 84
    assert four["tokens_per_second"] > 1.5 * one["tokens_per_second"]
    assert one["total_ms_p50"] >= 59
    if stream:
        assert one["first_ms_p50"] >= 19
        assert one["token_ms_p50"] >= 9
    assert result["saturated_at"] == {"one": 4}


async def test_failures_are_counted_by_status() -> None:
    async with engine(says(whole({}, "503 Service Unavailable"))) as behind:
        result = await run(options(behind.url, in_flight=[1], seconds=0.2))
    told = result["servers"]["one"][1]
    assert set(told["failed"]) == {"503"}
    assert told["tokens_per_second"] == 0


@pytest.mark.parametrize(
    ("events", "begin", "end", "within"),
    [
        ([1.0, 2.0, 3.0], 0.0, 9.0, 10.0),
        ([1.0, 2.0, 3.0], 2.0, 9.0, 5.0),
        ([1.0, 2.0, 3.0], 4.0, 9.0, 0.0),
        ([], 0.0, 2.0, 5.0),  # a whole answer, from 0 to 4
        ([2.0], 0.0, 9.0, 10.0),
    ],
)
def test_of_a_request_over_the_edge_its_share_counts(
    events: list[float], begin: float, end: float, within: float
) -> None:
    assert Answered(0.0, events, 4.0, 10).tokens_within(begin, end) == within


def test_saturated_is_the_least_number_with_95_per_cent_of_the_most() -> None:
    assert saturation({1: 10.0, 16: 96.0, 64: 100.0, 256: 99.0}) == 16


@pytest.mark.parametrize(
    ("event", "has"),
    [
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, False),
        ({"choices": [{"delta": {"content": "a"}}]}, True),
        ({"choices": [{"text": "a"}]}, True),
        ({"choices": [], "usage": {}}, False),
    ],
)
def test_only_text_makes_a_first_token(event: dict[str, Any], has: bool) -> None:
    assert has_text(event) is has


def test_numbers_in_flight_are_read_and_bad_ones_named() -> None:
    assert counts("1,16, 64") == [1, 16, 64]
    with pytest.raises(ArgumentTypeError, match="numbers from 1, separated by commas"):
        counts("1,x")
