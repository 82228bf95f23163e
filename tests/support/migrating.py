"""Translates a text as `pointsman migrate` does, without a command line or a disk."""

from typing import Any

from gateway.cli.migrate import dashboards, plan, writers
from gateway.cli.migrate.dashboards import NewWorkload
from gateway.cli.migrate.fates import Fate
from gateway.cli.migrate.plan import Target, VllmPlan
from gateway.cli.migrate.readers import ReadInput, read
from gateway.cli.migrate.readers.words import Variables

RUN = "docker run --gpus 1 ghcr.io/huggingface/text-generation-inference:3.3.4 --model-id m"


def read_text(text: str, beside: dict[str, str] | None = None, **known: str) -> ReadInput:
    """Read a text; `beside` are files that it may name, `known` the variables of `--env`."""
    return read(text, "in", Variables(known), (beside or {}).get)


def plans(text: str, target: Target | None = None, **known: str) -> list[VllmPlan]:
    """Return the plans for all launches of a text."""
    return plan.make_all(read_text(text, None, **known).launches, target or Target())


def one(text: str, target: Target | None = None, **known: str) -> VllmPlan:
    """Return the plan for the only launch of a text."""
    (found,) = plans(text, target, **known)
    return found


def flag(plan_: VllmPlan, name: str) -> str | None:
    """Return the value of a flag that was written, or None; a switch's is empty."""
    words = plan_.arguments
    if name not in words:
        return None
    at = words.index(name)
    return " ".join(word for word in words[at + 1 : at + 2] if not word.startswith("--"))


def fates(plan_: VllmPlan) -> dict[str, Fate]:
    """Return what became of each source, by the name of the flag or variable."""
    return {row.source.partition(" ")[0].partition("=")[0]: row.fate for row in plan_.rows}


def why(plan_: VllmPlan, source: str) -> str:
    """Return what the report says of a source, the target included."""
    return " ".join(f"{row.target} {row.why} {row.enforced_by}" for row in plan_.rows if row.source.startswith(source))


def files(text: str, target: Target | None = None) -> dict[str, str]:
    """Return the files that are written for a text."""
    found = read_text(text)
    made = plans(text, target)
    workloads = {each.launch.name: NewWorkload(each.name, each.model) for each in made}
    boards = dashboards.translate(found.metrics, workloads)
    return writers.write(made) | boards.files


def arguments_of(*flags: Any) -> str:
    """Return a docker run line with these arguments of the launcher."""
    return " ".join([RUN, *map(str, flags)])
