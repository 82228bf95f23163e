"""The options of an engine's command line: read from words, checked by name, and those of a profile and a user joined.

Only as much is read as both engines' parsers have in common; each engine reads the values itself.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct


class Option(Struct, frozen=True):
    """An option by its full name, such as `--max-model-len`, and its values: none for a flag."""

    name: str
    values: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """What it sets: `--no-x` sets what `--x` does, `--x.key` a part of `--x`."""
        return self.name.partition(".")[0].replace("--no-", "--", 1)


def read(words: Iterable[str], short: Mapping[str, str]) -> list[Option]:
    """Return the options that words hold; `short` has the full names of short ones.

    Raises ValueError if there is a word before the first option.
    """
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if re.match(r"-[^\d.]", word):
            name, equals, value = word.partition("=")
            found.append((_full_name(name, short), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
        else:
            raise ValueError(f'expected an option, such as "--port 8001", got "{word}"')
    return [Option(name, tuple(values)) for name, values in found]


def join(profile: Iterable[Option], user: Iterable[Option]) -> list[Option]:
    """Return a profile's options, less those that the user sets, and the user's. (TGI's parser refuses repetitions.)"""
    own = list(user)
    set_by_user = {option.base for option in own}
    return [option for option in profile if option.base not in set_by_user] + own


def words(options: Iterable[Option]) -> list[str]:
    """Return the words of a command line."""
    return [word for option in options for word in (option.name, *option.values)]


def value(options: Iterable[Option], *names: str) -> str:
    """Return the value of the last option of these names; empty if it is not set."""
    found = [option.values for option in options if option.name in names and option.values]
    return found[-1][0] if found else ""


def faults(options: Iterable[Option], known: Collection[str], parser: str) -> list[str]:
    """Return a line for each option that a parser does not know, with the name that is most like it."""
    said = []
    for name in (option.name.partition(".")[0] for option in options):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            said.append(f"{name}: {parser} has no such option" + (f"; did you mean {near[0]}?" if near else ""))
    return said


def _full_name(name: str, short: Mapping[str, str]) -> str:
    """Return a name as the parsers know it: in full, and with dashes before the first full stop."""
    head, dot, tail = name.partition(".")
    return (head.replace("_", "-") if head.startswith("--") else short.get(head, head)) + dot + tail
