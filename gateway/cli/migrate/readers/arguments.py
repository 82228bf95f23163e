"""The launcher's arguments and environment as settings, read as it reads them (TGI: launcher/src/main.rs)."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backends.tgi.launcher_flags import BY_NAME, BY_VARIABLE, LauncherFlag
from gateway.cli.migrate.launch import LaunchSetting, Place, unresolved
from gateway.cli.migrate.readers.words import Variables, Word, command_lines

LAUNCHER = "text-generation-launcher"
UNKNOWN_PROGRAM = "another program than the launcher is started, and what it does is not known"
SHELLS = ("sh", "bash", "/bin/sh", "/bin/bash", "dash")


def flag_settings(words: Sequence[Word], file: str) -> list[LaunchSetting]:
    """Return the settings of the launcher's arguments; what the launcher would refuse carries a fault."""
    settings: list[LaunchSetting] = []
    left = list(words)
    while left:
        word = left.pop(0)
        source, equals, value = word.text.partition("=")
        flag = BY_NAME.get(source)
        if flag is None:
            settings.append(_unknown(word, left, file))
        elif flag.kind == "switch":
            fault = f"{source} takes no value" if equals else ""
            settings.append(_setting(flag, source, value if equals else "true", word, file, fault))
        elif equals:
            settings.append(_setting(flag, source, value, word, file))
        elif left and not re.match(r"--|-[A-Za-z]", left[0].text):
            settings.append(_setting(flag, source, left.pop(0).text, word, file))
        else:
            settings.append(_setting(flag, source, "", word, file, "expected a value after it"))
    return settings


def _setting(flag: LauncherFlag, source: str, value: str, word: Word, file: str, fault: str = "") -> LaunchSetting:
    value = "" if flag.kind == "switch" and value == "true" else value
    place = Place(file, word.line)
    return LaunchSetting(source, flag.name, value, place, is_flag=True, fault=fault or _fault(flag, value))


def _unknown(word: Word, left: list[Word], file: str) -> LaunchSetting:
    """Return what is no flag of the launcher's, with the value that seems to belong to it."""
    source, equals, value = word.text.partition("=")
    if not source.startswith("-"):
        place = Place(file, word.line)
        if unresolved(word.text):
            return LaunchSetting(word.text, word.text, "", place, True, "which arguments it stands for is not known")
        return LaunchSetting(word.text, word.text, "", place, True, "it takes flags alone")
    if not equals and left and not left[0].text.startswith("-"):
        value = left.pop(0).text
    near = difflib.get_close_matches(source.replace("_", "-"), BY_NAME, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    fault = f"it has no such flag{hint}"
    if source in ("-h", "--help", "-V", "--version"):
        fault = "it prints something and serves nothing"
    return LaunchSetting(source, source, value, Place(file, word.line), True, fault)


def _fault(flag: LauncherFlag, value: str) -> str:
    """Return why the launcher would not take a value, or nothing."""
    if unresolved(value):
        return ""
    if flag.choices and value not in flag.choices:
        return f"expected one of {', '.join(flag.choices)}"
    if flag.kind == "boolean" and value not in ("true", "false"):
        return "expected true or false"
    if flag.kind == "whole" and not re.fullmatch(r"\d+", value):
        return "expected a whole number"
    if flag.kind == "wholes" and not re.fullmatch(r"\d+(,\d+)*", value):
        return "expected whole numbers with commas between them"
    if flag.kind == "number" and not re.fullmatch(r"\d*\.?\d+", value):
        return "expected a number"
    return ""


def variable_setting(source: str, value: str, place: Place, name: str = "", reference: Any = None) -> LaunchSetting:
    """Return the setting of an environment variable; `name` is the launcher's own, where an entry point renames it."""
    flag = BY_VARIABLE.get(name or source)
    if flag is None:
        return LaunchSetting(source, name or source, value, place, reference=reference)
    # An empty variable is taken as absent: charts write them for "not set".
    faulty = value and reference is None and flag.kind != "switch"
    fault = _fault(flag, value) if faulty else ""
    return LaunchSetting(source, flag.name, value, place, fault=fault, reference=reference)


def launcher_arguments(entry: Sequence[Word], arguments: Sequence[Word], variables: Variables) -> list[Word] | None:
    """Return the launcher's arguments of a container: `entry` replaces the image's entry point, if there is one.

    A shell's `-c` is looked into. None: another program is started, and what it does is not known.
    """
    words = [*entry, *arguments]
    for place, word in enumerate(words):
        if word.text.endswith((LAUNCHER, "tgi-entrypoint.sh")):
            return words[place + 1 :]
    if words and words[0].text in SHELLS:
        script = next((word for word in words[1:] if LAUNCHER in word.text), None)
        if script is None:
            return None
        for line in command_lines(script.text, variables, script.line):
            found = launcher_arguments((), line.words, variables) if is_launcher(line.words) else None
            if found is not None:
                return found
    return None if entry else list(arguments)


def is_launcher(words: Iterable[Word]) -> bool:
    """Whether a command line starts the launcher."""
    return any(LAUNCHER in word.text for word in words)


def expanded(words: Iterable[Word], environment: Mapping[str, str]) -> list[Word]:
    """Return the words with Kubernetes' `$(NAME)` filled in, as far as the environment says it."""
    return [Word(re.sub(r"\$\((\w+)\)", lambda one: environment.get(one[1], one[0]), w.text), w.line) for w in words]
