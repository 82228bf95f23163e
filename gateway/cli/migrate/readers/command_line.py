"""Reads `text-generation-launcher …` and `docker run … IMAGE …`, alone or in a shell script."""

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct, field

from backends.tgi.launcher_flags import BY_VARIABLE
from gateway.cli.migrate.launch import Launch, LaunchSetting, Note, Place
from gateway.cli.migrate.readers.arguments import (
    LAUNCHER,
    UNKNOWN_PROGRAM,
    flag_settings,
    is_launcher,
    launcher_arguments,
    variable_setting,
)
from gateway.cli.migrate.readers.images import is_tgi, not_tgi
from gateway.cli.migrate.readers.words import Line, Variables, Word, command_lines

ENGINES = ("docker", "podman", "nerdctl")
# Docker's options without a value; every other takes one.
SWITCHES = frozenset({
    "-d", "--detach", "-i", "--interactive", "-t", "--tty", "--rm", "--privileged", "--init", "--no-healthcheck",
    "--read-only", "-P", "--publish-all", "--sig-proxy", "--oom-kill-disable", "--quiet", "-q", "--help",
})  # fmt: skip
SHORT_SWITCHES = frozenset("ditqP")


class DockerRun(Struct):
    """The parts of a `docker run`. `kept` are the options that say nothing of the engine, and go over as they are."""

    program: str
    image: Word
    arguments: list[Word]
    options: list[tuple[str, Word]] = field(default_factory=list)

    def values(self, *names: str) -> list[Word]:
        """Return the values of an option, by any of its names, in their order."""
        return [value for name, value in self.options if name in names]


def read(text: str, file: str, variables: Variables, skipped: list[Note]) -> Iterator[Launch]:
    """Yield the launches of a script, in their order; an image that is not TGI's is noted in `skipped`."""
    given = {name: value for name, value in variables.known.items() if name in BY_VARIABLE}
    for line in command_lines(text, variables):
        names = [word.text.rpartition("/")[2] for word in line.words]
        if (run := _docker_run(line, names)) is not None:
            if is_tgi(run.image.text) or is_launcher(run.arguments):
                yield _docker(run, file, variables)
            else:
                skipped.append(not_tgi(run.image.text, Place(file, run.image.line)))
        elif LAUNCHER in names:
            yield _bare(line, names.index(LAUNCHER), file, given, variables.exported)


def _bare(line: Line, at: int, file: str, given: Mapping[str, str], exported: Sequence[Word]) -> Launch:
    """Return the launch of a launcher on the machine itself; `given` is the environment from elsewhere."""
    place = Place(file, line.words[at].line)
    before = [word for word in line.words[:at] if "=" in word.text]  # such as behind `env`
    settings = [variable_setting(name, value, place) for name, value in given.items()]
    settings += _variables([*exported, *line.assigned, *before], file)
    settings += flag_settings(line.words[at + 1 :], file)
    visible = {setting.name: setting.value for setting in settings}
    devices = visible.get("CUDA_VISIBLE_DEVICES", visible.get("NVIDIA_VISIBLE_DEVICES", ""))
    return Launch("tgi", "command", place, settings=settings, gpus=device_count(devices))


def _variables(words: Sequence[Word], file: str) -> list[LaunchSetting]:
    pairs = [(word.text.partition("="), word.line) for word in words]
    return [variable_setting(name, value, Place(file, line)) for (name, _, value), line in pairs]


def device_count(devices: str) -> int | None:
    """Return how many devices a variable such as CUDA_VISIBLE_DEVICES names; None if it leaves that to the machine."""
    return len(devices.split(",")) if re.fullmatch(r"[\w-]+(,[\w-]+)*", devices) and devices not in LEFT_OPEN else None


LEFT_OPEN = ("all", "void", "none")


# --- docker run -----------------------------------------------------------------------------------------------------


def _docker_run(line: Line, names: Sequence[str]) -> DockerRun | None:
    """Return the parts of a `docker run`, or None if the command is none."""
    at = next((place for place, name in enumerate(names) if name in ENGINES), None)
    if at is None or "run" not in names[at : at + 3]:
        return None
    words = line.words[names.index("run", at) + 1 :]
    options: list[tuple[str, Word]] = []
    while words and words[0].text.startswith("-"):
        words = _option(words, options)
    return DockerRun(names[at], words[0], words[1:], options) if words else None


def _option(words: Sequence[Word], options: list[tuple[str, Word]]) -> list[Word]:
    """Take one option from the front; return what is left."""
    word, rest = words[0], list(words[1:])
    name, equals, value = word.text.partition("=")
    if equals and name.startswith("--"):
        options.append((name, Word(value, word.line)))
    elif name in SWITCHES or (not name.startswith("--") and set(name[1:]) <= SHORT_SWITCHES):
        options.append((name, Word("", word.line)))
    elif not name.startswith("--") and len(word.text) > 2:  # -p8080:80
        options.append((word.text[:2], Word(word.text[2:], word.line)))
    elif rest:
        options.append((name, rest.pop(0)))
    return rest


def _docker(run: DockerRun, file: str, variables: Variables) -> Launch:
    place = Place(file, run.image.line)
    environment = run.values("-e", "--env")
    bare = [word for word in environment if "=" not in word.text]  # the value is taken from our own environment
    settings = _variables([word for word in environment if "=" in word.text], file)
    for word in bare:
        known = variables.known.get(word.text)
        value = f"${{{word.text}}}" if known is None else known
        settings.append(variable_setting(word.text, value, Place(file, word.line)))
    arguments = launcher_arguments(run.values("--entrypoint"), run.arguments, variables)
    notes = [
        Note(Place(file, word.line), f"--env-file {word.text} is not read; give it by --env", True)
        for word in run.values("--env-file")
    ]
    if arguments is None:
        notes.append(Note(place, UNKNOWN_PROGRAM, True))
    settings += flag_settings(arguments or [], file)
    name = next((word.text for word in run.values("--name")), "tgi")
    launch = Launch(name, "docker", place, run.image.text, settings, gpus=_gpus(run, settings), source=run, notes=notes)
    launch.published = _published(run)
    launch.host_network = "host" in [word.text for word in run.values("--network", "--net")]
    return launch


def _published(run: DockerRun) -> dict[str, str]:
    """Return the host's port for each of the container's."""
    pairs = (word.text.rpartition(":") for word in run.values("-p", "--publish"))
    return {inside.partition("/")[0]: outside.rpartition(":")[2] for outside, _, inside in pairs}


def _gpus(run: DockerRun, settings: Sequence[LaunchSetting]) -> int | None:
    visible = {setting.name: setting.value for setting in settings}
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        if (count := device_count(visible.get(name, ""))) is not None:
            return count
    asked = next((word.text.strip("'\"") for word in run.values("--gpus")), "")
    if asked.isdecimal():
        return int(asked)
    devices = asked.partition("device=")[2].strip("'\"")
    return device_count(devices)
