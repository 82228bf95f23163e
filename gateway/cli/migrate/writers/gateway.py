"""`pointsman.toml`: TGI and vLLM as deployments of one model, all traffic at TGI, and the limits that vLLM lost."""

from collections.abc import Sequence
from typing import Any

import tomli_w

from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.translations.model import adapters
from gateway.cli.migrate.writers.kubernetes import service_name

HEADING = """\
# Both engines behind one model, made by pointsman migrate: all requests go to TGI until the weights say otherwise.
# pointsman check --config {name}; pointsman serve --config {name}
"""
OF_HOSTS = {
    "compose": "# The addresses are those inside the compose network: run the gateway as a service there.\n",
    "kubernetes": "# The addresses are those inside the cluster: run the gateway there.\n",
    "sagemaker": "# A SageMaker endpoint wants AWS's signatures, which the gateway does not make: write the address\n"
    "# of a proxy that signs, or of the containers where they are reached by plain HTTP.\n",
}


def write(plans: Sequence[VllmPlan]) -> str:
    """Return the text."""
    models = _models(plans)
    server: dict[str, Any] = {}
    if bodies := [int(plan.limits["max_body"]) for plan in plans if str(plan.limits.get("max_body", "")).isdecimal()]:
        server["max_body"] = f"{max(bodies)}B"
    if origins := [origin for plan in plans for origin in plan.limits.get("cors_origins", [])]:
        server["cors_origins"] = list(dict.fromkeys(origins))
    if len(models) > 1:
        server["tgi_model"] = models[0]["name"]
    notes = [text for form, text in OF_HOSTS.items() if any(plan.launch.form == form for plan in plans)]
    document = {"server": server, "models": models}
    return HEADING.format(name="pointsman.toml") + "".join(notes) + "\n" + tomli_w.dumps(document)


def _models(plans: Sequence[VllmPlan]) -> list[dict[str, Any]]:
    """Return a model for each that is served, adapters included; launches of the same model are deployments of one."""
    found: dict[str, list[dict[str, Any]]] = {}
    taken: list[str] = []
    for plan in plans:
        listed = [name for name, _, _ in adapters(plan.adapters)]
        for model in (plan.model, *listed):
            suffix = "" if model == plan.model else f"-{model}"
            found.setdefault(model, []).extend(_pair(plan, model, suffix, bool(listed), taken))
    first = next(iter(found))
    aliases = {first: ["tgi"]} if len(found) > 1 else {}
    return [{"name": name, "aliases": aliases.get(name, []), "deployments": some} for name, some in found.items()]


def _pair(plan: VllmPlan, model: str, suffix: str, by_name: bool, taken: list[str]) -> list[dict[str, Any]]:
    """Return TGI's deployment and vLLM's; `by_name` says that the engines serve several models."""
    both = []
    for engine, weight in (("tgi", 100), ("vllm", 0)):
        name = plan.launch.name if engine == "tgi" else plan.name
        deployment: dict[str, Any] = {"name": _free(name + suffix, taken), "engine": engine}
        deployment |= {"url": _url(plan, engine), "weight": weight}
        if by_name and (engine == "vllm" or suffix):
            deployment["model"] = model
        deployment |= {key: plan.limits[key] for key in ("max_in_flight", "slots") if key in plan.limits}
        if plan.limits.get("api_key"):
            deployment["api_key_env"] = f"POINTSMAN_{engine.upper()}_API_KEY"
        both.append(deployment)
    return both


def _free(name: str, taken: list[str]) -> str:
    """Return a name for a deployment that no other has, in ASCII, as it goes into a header."""
    base = name = "".join(letter if letter.isascii() and letter.isprintable() else "_" for letter in name)
    number = 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.append(name)
    return name


def _url(plan: VllmPlan, engine: str) -> str:
    launch = plan.launch
    port = plan.old_port if engine == "tgi" else plan.port
    if launch.host_network:
        return f"http://127.0.0.1:{port}"
    if launch.form == "docker":
        port = launch.published.get(plan.old_port, port) if engine == "tgi" else plan.host_port or port
    if launch.form == "kubernetes":
        host, dot, namespace = launch.address.partition(".")
        host = host if engine == "tgi" else service_name(plan)
        return f"http://{host}{dot}{namespace}:{launch.service_port or port}"
    if launch.form == "compose":
        return f"http://{launch.address if engine == 'tgi' else plan.name}:{port}"
    host = f"{engine}.invalid" if launch.form == "sagemaker" else launch.address
    return f"http://{host}:{port}"
