"""Which series, labels and values a PromQL query names. It has to be well-formed: promtool says whether it is."""

import re

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTED = re.compile(r"([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")
BESIDE = re.compile(r"\{[^}]*\}|\[[^]]*\]")
WORD = re.compile(r"(?<!\w)[a-zA-Z_:][\w:]*+(?!\s*\()")  # and no function
OPERATORS = {"and", "or", "unless"}


def conditions(query: str) -> list[tuple[str, str, str]]:
    """Return (series, label, value) for each condition in braces."""
    selected = SELECTED.findall(query)
    return [(series, label, value) for series, inside in selected for label, value in MATCHER.findall(inside)]


def grouped(query: str) -> set[str]:
    """Return the labels that it sums, or joins, by."""
    inside = ",".join(GROUPED.findall(STRING.sub("", query)))
    return {label.strip() for label in inside.split(",")} - {""}


def series(query: str) -> set[str]:
    """Return the names of all series it reads: the words left without strings, conditions, windows and functions."""
    bare = BESIDE.sub("", STRING.sub("", query))
    return set(WORD.findall(GROUPED.sub("", bare))) - OPERATORS
