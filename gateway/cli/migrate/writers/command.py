"""A shell script with `vllm serve …`, or with the same `docker run` and vLLM's image."""

import re
from collections.abc import Sequence

from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.readers.command_line import DockerRun
from gateway.cli.migrate.writers.parts import grace, groups, heading, shell

NOT_KEPT = frozenset({"-p", "--publish", "-e", "--env", "--name", "--entrypoint", "--stop-timeout"})


def write(plans: Sequence[VllmPlan]) -> dict[str, str]:
    """Return a script for each."""
    return {script_name(plan): _script(plan) for plan in plans}


def script_name(plan: VllmPlan) -> str:
    """Return the name of a launch's script; a container's name may hold variables, and a file's had better not."""
    return re.sub(r"[^\w.-]", "_", plan.name) + ".sh"


def _script(plan: VllmPlan) -> str:
    lines = _docker(plan, plan.launch.source) if isinstance(plan.launch.source, DockerRun) else _bare(plan)
    return "\n".join(["#!/bin/sh", *heading(plan), " \\\n    ".join(lines)]) + "\n"


def _bare(plan: VllmPlan) -> list[str]:
    prefix = [f"{name}={shell(str(value))}" for name, value in plan.shown_environment.items()]
    return [" ".join([*prefix, "vllm serve"]), *_grouped(plan.arguments)]


def _docker(plan: VllmPlan, run: DockerRun) -> list[str]:
    kept = [" ".join(filter(None, (name, shell(word.text) if word.text else "")))
            for name, word in run.options if name not in NOT_KEPT]  # fmt: skip
    options = [f"--name {shell(plan.name)}"]
    options += [f"-p {plan.host_port}:{plan.port}"] if plan.host_port else []
    options += [f"--stop-timeout {seconds}"] if (seconds := grace(plan)) else []
    options += [_variable(name, str(value)) for name, value in plan.shown_environment.items()]
    started = f"--entrypoint vllm {shell(plan.image)} serve"
    return [f"{run.program} run", *kept, *options, started, *_grouped(plan.arguments)]


def _variable(name: str, value: str) -> str:
    """Return the option for a variable; one that is handed through from outside needs no value."""
    return f"-e {name}" if value in (f"${name}", f"${{{name}}}") else f"-e {name}={shell(value)}"


def _grouped(arguments: Sequence[str]) -> list[str]:
    return [" ".join(map(shell, group)) for group in groups(arguments)]
