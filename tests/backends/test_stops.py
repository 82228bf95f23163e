"""Stop strings: the text before the first one, in whatever pieces it comes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.stops import StopScanner, cut

TABLE: list[tuple[str, list[str], str, bool]] = [
    ("session", ["ssion", "zzz"], "se", True),
    ("session", ["session"], "", True),
    ("session", ["sessions"], "session", False),
    ("session", [], "session", False),
    ("aab", ["ab"], "a", True),
    ("abcabd", ["abd"], "abc", True),
    ("x\n\ny", ["\n\n"], "x", True),
    ("one two", ["two", "one"], "", True),
    ("abc", ["abc", "b"], "", True),
    ("abd", ["abc", "b"], "a", True),
    ("ab", ["abc", "b"], "a", True),
    ("aXbX", ["X"], "a", True),
    ("né漢", ["漢"], "né", True),
]

letters = st.text(alphabet="ab", max_size=14)
stops_of_letters = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=4)


def plain(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: the text up to the place where the first stop in it begins, and whether there is one."""
    places = [text.index(stop) for stop in stops if stop in text]
    return (text[: min(places)], True) if places else (text, False)


def scan(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    """What is let out for each piece, what at the end, and whether a stop was found."""
    scanner = StopScanner(stops)
    out = [scanner.feed(piece) for piece in pieces]
    return [*out, scanner.end()], scanner.stopped


@pytest.mark.parametrize(("text", "stops", "before", "stopped"), TABLE)
def test_table(text: str, stops: list[str], before: str, stopped: bool) -> None:
    """Whole, and letter by letter."""
    assert plain(text, stops) == (before, stopped)
    assert cut(text, stops) == (before, stopped)
    out, found = scan(list(text), stops)
    assert ("".join(out), found) == (before, stopped)


@given(letters, stops_of_letters, st.lists(st.integers(0, 14)))
def test_any_cut_of_any_text_gives_what_the_definition_says(text: str, stops: list[str], places: list[int]) -> None:
    bounds = [0, *sorted(place for place in places if place <= len(text)), len(text)]
    pieces = [text[start:end] for start, end in pairwise(bounds)]
    out, found = scan(pieces, stops)
    assert ("".join(out), found) == plain(text, stops)
    assert cut(text, stops) == plain(text, stops)


@given(letters, letters, stops_of_letters)
def test_nothing_that_may_be_a_stops_beginning_is_let_out(text: str, more: str, stops: list[str]) -> None:
    """What is let out stays right whatever comes after."""
    out = StopScanner(stops).feed(text)
    assert plain(text + more, stops)[0].startswith(out)


@given(letters, stops_of_letters)
def test_nothing_is_held_back_that_cannot_be_a_stops_beginning(text: str, stops: list[str]) -> None:
    """Streams flow: what is held back is a stop's beginning, or nothing."""
    (out, rest), found = scan([text], stops)
    assert found or rest == "" or any(stop.startswith(rest) for stop in stops)
    assert found or out + rest == text


def test_after_a_stop_nothing_comes() -> None:
    out, found = scan(["a", "X", "b", "X"], ["X"])
    assert out == ["a", "", "", "", ""]
    assert found


def test_it_says_at_once_that_a_stop_came() -> None:
    """Not only at the end: the engine's work can be stopped then."""
    scanner = StopScanner(["ab", "abcd"])
    assert scanner.feed("xab") == "x"
    assert scanner.stopped


def test_what_was_held_back_comes_at_the_end() -> None:
    scanner = StopScanner(["session"])
    assert [scanner.feed("sess"), scanner.end(), scanner.end()] == ["", "sess", ""]
    assert scan(["a<", "|b<", "|"], ["<|end|>"]) == (["a", "<|b", "", "<|"], False)
