"""A compose file with the new services alone, to be laid over the old file: `docker compose -f OLD -f NEW up`."""

from collections.abc import Sequence
from typing import Any

from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.writers.parts import STARTUP, grace, heading
from gateway.cli.migrate.yaml_nodes import yaml_text

NAME = "compose.vllm.yaml"


def write(plans: Sequence[VllmPlan]) -> dict[str, str]:
    """Return the file."""
    comments = [line for plan in plans for line in heading(plan)]
    document = {"services": {plan.name: _service(plan) for plan in plans}}
    text = yaml_text([document])
    return {NAME: "\n".join([*comments, text])}


def _service(plan: VllmPlan) -> dict[str, Any]:
    service = dict(plan.launch.source)
    for key in ("env_file", "build", "ports"):
        service.pop(key, None)
    service |= {"image": plan.image, "entrypoint": ["vllm", "serve"], "command": list(plan.arguments)}
    service["environment"] = {name: str(value) for name, value in plan.shown_environment.items()}
    if "container_name" in service:
        service["container_name"] = f"{service['container_name']}-vllm"
    if plan.host_port:
        service["ports"] = [f"{plan.host_port}:{plan.port}"]
    if seconds := grace(plan):
        service["stop_grace_period"] = f"{seconds}s"
    if "healthcheck" in service:
        service["healthcheck"] = _healthcheck(plan.port)
    return service


def _healthcheck(port: str) -> dict[str, Any]:
    asks = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/health', timeout=5)"
    return {"test": ["CMD", "python3", "-c", asks], "interval": "10s", "timeout": "10s", "start_period": f"{STARTUP}s"}
