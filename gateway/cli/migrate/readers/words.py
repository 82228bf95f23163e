"""The words of a shell's command lines, each with its line; variables are filled in as far as they are known."""

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct, field

_TOKEN = re.compile(
    r"""
    (?P<space>(?:[ \t]|\\\n)+)
    | (?P<comment>\#[^\n]*)
    | (?P<end>\n|;|&&|\|\||\||&)
    | (?P<word>(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|\$\((?:[^()]|\([^()]*\))*\)|\$\{[^}]*\}|\{\{.*?\}\}|[^\s;|&'"\\])+)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(r"""\\(?:\n|(.))|'([^']*)'|"((?:\\.|[^"\\])*)"|([^\\'"]+)|(.)""", re.DOTALL)
_VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?+=])([^}]*))?\}|\$(\w+)|\$\$")
_ASSIGNMENT = re.compile(r"(\w+)=(.*)", re.DOTALL)


class Word(Struct, frozen=True):
    """One word as the program sees it, and the line on which it begins."""

    text: str
    line: int


class Line(Struct):
    """One simple command: the variables set for it alone, and its words."""

    assigned: list[Word] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)


class Variables:
    """What variables are known, and which of them a script has exported."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = dict(known)
        self.exported: list[Word] = []

    def fill(self, text: str) -> str:
        """Return the text with its variables filled in; an unknown one stays as it is written."""
        return _VARIABLE.sub(self._value, text)

    def _value(self, match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$$"
        name = match[1] or match[4]
        if name in self.known:
            return self.known[name]
        if match[2] in ("-", "="):
            return self.fill(match[3])
        return match[0]


def command_lines(text: str, variables: Variables, first_line: int = 1) -> Iterator[Line]:
    """Yield the simple commands of a script; what it assigns on a line of its own is known from there on."""
    line, number = Line(), first_line
    for token in _TOKEN.finditer(text.replace("\r\n", "\n")):
        if token.lastgroup == "word":
            _take(line, token[0], number, variables)
        elif token.lastgroup == "end":
            yield from _closed(line, variables)
            line = Line()
        number += token[0].count("\n")
    yield from _closed(line, variables)


def _take(line: Line, written: str, number: int, variables: Variables) -> None:
    word = Word(unquoted(written, variables.fill), number)
    is_assignment = not line.words and _ASSIGNMENT.match(written)
    (line.assigned if is_assignment else line.words).append(word)


def _closed(line: Line, variables: Variables) -> Iterator[Line]:
    """Yield a command, unless it only sets variables: those are noted."""
    first = line.words[0].text if line.words else ""
    if first and first != "export":
        yield line
        return
    exported = [word for word in line.words if _ASSIGNMENT.match(word.text)]
    variables.exported += exported
    for word in (*line.assigned, *exported):
        name, _, value = word.text.partition("=")
        variables.known[name] = value


def unquoted(written: str, fill: Callable[[str], str]) -> str:
    """Return a word without its quotes and escapes; `fill` fills in the variables of what is not in single quotes."""
    parts = []
    for escaped, single, double, bare, odd in _PIECE.findall(written):
        if double:
            parts.append(fill(re.sub(r'\\(["\\$`\n])', lambda one: one[1].strip("\n"), double)))
        else:
            parts.append(escaped + single + fill(bare) + odd)
    return "".join(parts)
