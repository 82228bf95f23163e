"""What several writers use: arguments in groups, words for a shell, times, and what to say at the top of a file."""

import shlex
from collections.abc import Sequence

from gateway.cli.migrate.launch import unresolved
from gateway.cli.migrate.plan import VllmPlan

STARTUP = 1800  # seconds that vLLM may take to load and compile a model; more than TGI needs
SPARE = 15  # seconds that a container has beyond what the engine may take to finish its requests


def groups(arguments: Sequence[str]) -> list[list[str]]:
    """Return the arguments with each flag's values beside it; the model, which has no flag, is the first group."""
    found: list[list[str]] = []
    for word in arguments:
        if word.startswith("--") or not found or (len(found) == 1 and not found[0][0].startswith("--")):
            found.append([word])
        else:
            found[-1].append(word)
    return found


def shell(word: str) -> str:
    """Return a word for a shell; variables stay variables."""
    if not unresolved(word):
        return shlex.quote(word)
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`") + '"'


def heading(plan: VllmPlan) -> list[str]:
    """Return the comment that opens a file, a line each."""
    lines = [f"# vLLM in the place of the TGI at {plan.launch.place}, to run beside it. Made by pointsman migrate."]
    return lines + [f"# BLOCKED: {row.source} ({row.place}): {row.why}" for row in plan.blocked]


def grace(plan: VllmPlan) -> int | None:
    """Return the seconds that the container gets to stop, or None where that is not known."""
    given = str(plan.limits.get("termination", ""))
    return int(given) + SPARE if given.isdecimal() else None
