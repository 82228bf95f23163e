"""The environment of SageMaker's vLLM container: its entry point makes a flag of each `SM_VLLM_*` (AWS deep learning
containers, "vLLM"; `true` is a flag without a value). It gives the port itself."""

import json
from collections.abc import Sequence

from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.writers.parts import groups

PREFIX = "SM_VLLM_"


def write(plans: Sequence[VllmPlan]) -> dict[str, str]:
    """Return an environment for each, as JSON."""
    found = {}
    for place, plan in enumerate(plans):
        name = plan.name if len(plans) == 1 else f"{plan.name}-{place + 1}"
        found[f"{name}.env.json"] = json.dumps(environment(plan), indent=2) + "\n"
    return found


def environment(plan: VllmPlan) -> dict[str, str]:
    """Return the container's environment."""
    (model,), *flags = groups(plan.arguments)
    found = {f"{PREFIX}MODEL": model}
    for flag, *values in flags:
        if flag not in ("--port", "--host"):
            found[PREFIX + flag.removeprefix("--").replace("-", "_").upper()] = _value(flag, values)
    return found | {name: str(value) for name, value in plan.shown_environment.items()}


def _value(flag: str, values: list[str]) -> str:
    """Return a flag's value as one word; adapters are JSON, as they are several."""
    if flag == "--lora-modules":
        pairs = [value.partition("=") for value in values]
        return json.dumps([{"name": name, "path": path} for name, _, path in pairs])
    return " ".join(values) if values else "true"
