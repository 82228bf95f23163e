"""No flag vanishes unnamed, whatever is on the line: in any order, twice, misspelt, nonsense, variables."""

import shlex
from contextlib import suppress
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from backends.tgi.launcher_flags import LAUNCHER_FLAGS, LauncherFlag
from gateway.cli.migrate.fates import Fate
from gateway.cli.migrate.launch import CannotRead
from tests.support.migrating import files, one

NAMES = [flag.name for flag in LAUNCHER_FLAGS]
WORDS = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
VALUES = st.one_of(
    WORDS,
    st.sampled_from(["true", "false", "0", "1", "16", "2.5", "1,2,4", "awq", "exl2", "float16", "on", "dynamic", ""]),
    st.sampled_from(["${X}", "$Y", "{{ .Values.z }}", "$(cat f)", "a=b", "a@c", "--port"]),
)


@st.composite
def argument(draw: st.DrawFn) -> str:
    """Draw a flag with a value or without, with a blank or an equals sign, sometimes none of TGI's."""
    name = draw(
        st.one_of(st.sampled_from(NAMES), WORDS.map(lambda word: f"--{word}"), st.sampled_from(["-p", "-z", "x"]))
    )
    value = draw(st.none() | VALUES)
    if value is None:
        return name
    return f"{name}={quoted(value)}" if draw(st.booleans()) else f"{name} {quoted(value)}"


def quoted(value: str) -> str:
    return f'"{value}"' if set(value) & set("${") else shlex.quote(value)


VARIABLES = [flag.variable for flag in LAUNCHER_FLAGS if flag.variable]
VARIABLE = st.tuples(st.one_of(st.sampled_from(VARIABLES), WORDS), VALUES)


@given(st.lists(argument(), max_size=8), st.lists(VARIABLE, max_size=5))
@example(["--model-id", "--0"], [])  # what begins with two hyphens is no value
@example([], [("PAYLOAD_LIMIT", "1")])
def test_every_line_of_a_launch_is_in_the_report(arguments: list[str], variables: list[tuple[str, str]]) -> None:
    """Each flag and each variable stands on a line of its own: each of the lines has to be named."""
    options = [f"-e {name}={quoted(value)}" for name, value in variables]
    lines = ["docker run --gpus 1", *options, "ghcr.io/huggingface/text-generation-inference:3", *arguments]
    made = one(" \\\n".join(lines))
    named = {row.place.line for row in made.rows}
    taken = set(range(2, len(lines) + 1))
    # A line may be the value of the flag before it, as `--port \\\n 80` is.
    values = {place for place in taken if not lines[place - 1].startswith("-") and place > len(options) + 2}
    assert taken - values <= named
    assert all(row.why for row in made.rows if row.fate in (Fate.DROPPED, Fate.LOST, Fate.BLOCKED))


@given(st.sampled_from(LAUNCHER_FLAGS), WORDS)
def test_a_flag_and_its_variable_are_one_setting_and_the_flag_wins(flag: LauncherFlag, word: str) -> None:
    """Both are named in the report, and what is written is what the flag alone would write."""
    if flag.kind == "switch" or not flag.variable:
        return
    given_ = {"whole": "7", "wholes": "1,2", "number": "0.5", "boolean": "true"}.get(flag.kind, word)
    value = flag.choices[0] if flag.choices else given_
    image = "ghcr.io/huggingface/text-generation-inference:3"
    alone = one(f"docker run --gpus 2 {image} {flag.name} {value}")
    both = one(f"docker run --gpus 2 -e {flag.variable}={value}x {image} {flag.name} {value}")
    assert both.arguments == alone.arguments
    sources = [row.source for row in both.rows if row.source.startswith((flag.variable, flag.name))]
    assert len(sources) == 2


CASES = sorted(Path(__file__).with_name("cases").iterdir())
PUT = st.sampled_from(["", "\n", "'", "${X", "{{", ": ", "- "])


@given(st.sampled_from(CASES), st.floats(0, 1), st.integers(0, 80), PUT)
@settings(max_examples=60)
def test_a_damaged_file_is_translated_or_refused_in_words(case: Path, at: float, length: int, put: str) -> None:
    """A piece of a file is taken out, and something put there: nothing but CannotRead is raised."""
    text = case.read_text()
    place = int(at * len(text))
    with suppress(CannotRead):
        files(text[:place] + put + text[place + length :])
