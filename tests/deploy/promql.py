"""Which metrics, labels and values a PromQL query names. It has to be well-formed: promtool says whether it is."""

import re

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
SELECTED = re.compile(r"([a-zA-Z_:][\w:]*)?\s*\{([^}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
GROUPED = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
WORD = re.compile(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()(?![\w:])")
OPERATORS = {"and", "or", "unless", "bool", "offset"}


def matchers(query: str) -> list[tuple[str, str, str]]:
    """Return (metric, label, value) for each condition in braces."""
    return [
        (metric, label, value)
        for metric, inside in SELECTED.findall(query)
        for label, _, value in MATCHER.findall(inside)
    ]


def grouped(query: str) -> set[str]:
    """Return the labels that it sums, or joins, by."""
    bare = STRING.sub("", query)
    return {label.strip() for inside in GROUPED.findall(bare) for label in inside.split(",") if label.strip()}


def metrics(query: str) -> set[str]:
    """Return the names of all series it reads: what is left without strings, conditions, windows and functions."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", "", STRING.sub("", query))
    bare = re.sub(r"\b(?:sum|min|max|avg|count)\s+(?=by\b)", "", GROUPED.sub("", bare))
    return set(WORD.findall(bare)) - OPERATORS - {"by", "sum", "min", "max", "count"}
