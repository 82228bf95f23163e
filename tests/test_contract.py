"""What the code says of `backends/CONTRACT.md` is there, and what that file says was recorded is.

A citation has one form, wherever it stands:

    (CONTRACT.md 3.5)                               a section, by the number of its heading
    (CONTRACT.md 2.3, 4.4)                          several
    (CONTRACT.md 2 to 5)                            a first and a last one, and all between
    (CONTRACT.md 5 "bad type", "malformed JSON")    with words that are in the section

A section has the sections below it in it, too. The facts of `pointsman compat` name their sections as data, without the
parentheses and the quotes: "2.1 tools, 3.5".
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.recorded import CASES, load

ROOT = Path(__file__).parent.parent
CONTRACT = ROOT / "backends" / "CONTRACT.md"
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml"}
FACTS = {"Fact", "Reason", "_refused"}  # what the facts of `pointsman compat` are made by

_heading = re.compile(r"^(#{2,3}) (\d+(?:\.\d+)?) ", re.MULTILINE)
_wrapped = re.compile(r"\s*\n\s*(?:# ?)?")  # a line's end and the next one's indentation, in a comment with its mark
_number = r"\d+(?:\.\d+)?"
_words = r'"[^"]+"(?:, "[^"]+")*'
_reference = re.compile(rf"({_number})(?: to ({_number}))?(?: ({_words}))?")
_citation = re.compile(rf"\(CONTRACT\.md ({_reference.pattern}(?:, {_reference.pattern})*)\)")
_any_form = re.compile(r"(?i)\bcontract(?:'s|\.md)?[,:]?\s+(?:(?:in |see )?(?:sections?|sect?\.|§)\s*)?\d[^)]{0,40}")
_source = re.compile(rf"{_number}(?: [^,]+)?(?:, {_number}(?: [^,]+)?)*")
_case = re.compile(r"\b(?:vllm|tgi)/\w+")
_example = re.compile(r"^(?:`([\w/]+)`:\n\n)?```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Citation(NamedTuple):
    """A section that is cited, the words that should be in it, and where it is cited."""

    number: str
    words: str
    place: str


def sections() -> dict[str, str]:
    """Return the text of each section, with those below it, in order."""
    text = CONTRACT.read_text()
    heads = list(_heading.finditer(text))
    found: dict[str, str] = {}
    for place, head in enumerate(heads):
        ends = (other.start() for other in heads[place + 1 :] if len(other[1]) <= len(head[1]))
        found[head[2]] = _wrapped.sub(" ", text[head.end() : next(ends, len(text))])
    return found


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file that may cite, its lines joined."""
    folders = [ROOT / name for name in ("gateway", "backends", "tests", "deploy")]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    for path in (*files, ROOT / "README.md"):
        if path != Path(__file__) and CASES not in path.parents:
            yield str(path.relative_to(ROOT)), _wrapped.sub(" ", path.read_text())


def cited(name: str, text: str) -> Iterator[Citation]:
    """Yield each section that a text cites, once for each of the words that should be in it."""
    for citation in _citation.finditer(text):
        for first, last, quoted in _reference.findall(citation[1]):
            for words in re.findall('"([^"]+)"', quoted) or [""]:
                yield Citation(first, words, name)
            if last:
                yield Citation(last, "", name)


def sources(name: str, text: str) -> Iterator[Citation]:
    """Yield what the facts in a file name as their source."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FACTS:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            for value in (one.value for one in given if isinstance(one, ast.Constant)):
                if isinstance(value, str) and _source.fullmatch(value):
                    for one in value.split(", "):
                        number, _, words = one.partition(" ")
                        yield Citation(number, words, name)


def facts() -> Iterator[Citation]:
    """Yield the sources of all facts."""
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        yield from sources(str(path.relative_to(ROOT)), path.read_text())


SECTIONS = sections()
CITATIONS = sorted({citation for name, text in texts() for citation in cited(name, text)} | set(facts()))
EXAMPLES = [match.groups() for match in _example.finditer(CONTRACT.read_text())]


def is_in(citation: Citation) -> bool:
    """Whether the section is there, with the words as words of their own."""
    section = SECTIONS.get(citation.number)
    return section is not None and re.search(rf"(?<!\w){re.escape(citation.words)}(?!\w)", section) is not None


# --- citations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("citation", CITATIONS, ids=lambda one: f"{one.place}: {one.number} {one.words}")
def test_what_is_cited_is_there(citation: Citation) -> None:
    assert citation.number in SECTIONS, f"{citation.place} cites section {citation.number}, which is not there"
    assert is_in(citation), f'{citation.place}: "{citation.words}" is not in section {citation.number}'


def test_there_are_citations_in_code_and_in_facts() -> None:
    assert len({one.place for one in CITATIONS if one.place.startswith("backends/")}) > 10
    assert len(set(facts())) > 10


def test_a_citation_has_no_other_form() -> None:
    others = {name: found for name, text in texts() if (found := _any_form.findall(_citation.sub("", text)))}
    assert not others, f"a citation looks like (CONTRACT.md 3.5): {others}"


@pytest.mark.parametrize(
    "text",
    [
        "(contract section 3.5)",
        "(Contract section 5.)",
        "contract sections 2.1 and 3.6",
        "(contract 2.1 'vLLM extras')",
        "the contract's 1,485",
        "CONTRACT.md, section 3.5",
        "CONTRACT.md 3.5",
        "(CONTRACT.md 2.1 and 3.6)",
        "(CONTRACT.md 5, bad type)",
    ],
)
def test_other_forms_are_seen(text: str) -> None:
    assert _any_form.search(_citation.sub("", text))


def test_what_is_not_there_is_seen() -> None:
    text = '(CONTRACT.md 3.5, 8.8) and (CONTRACT.md 0 to 99, 5 "bad type", "good type")'
    missing = [citation[:2] for citation in cited("here", text) if not is_in(citation)]
    assert missing == [("8.8", ""), ("99", ""), ("5", "good type")]
    assert list(sources("here", 'Fact("n", when, "2.1 n, 9.9")')) == [("2.1", "n", "here"), ("9.9", "", "here")]


# --- the file itself ------------------------------------------------------------------------------------------


def test_sections_have_numbers_of_their_own_in_order() -> None:
    numbers = [tuple(map(int, number.split("."))) for _, number in _heading.findall(CONTRACT.read_text())]
    assert numbers == sorted(set(numbers))
    assert len(numbers) > 20


@pytest.mark.parametrize("name", sorted(set(_case.findall(CONTRACT.read_text()))))
def test_a_recording_that_is_named_exists(name: str) -> None:
    assert (CASES / f"{name}.http").is_file()


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=lambda one: one if one and len(one) < 80 else "")
def test_an_example_was_recorded(name: str | None, example: str) -> None:
    """Each line is in the answer of the recording that is named before it; `…` stands for what is left out."""
    assert name, f"no recording is named before {example}"
    said = load(name).response_body.decode()
    for line in example.splitlines():
        assert re.search(".*".join(map(re.escape, line.split("…"))), said), f"{name} does not say {line}"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 10
