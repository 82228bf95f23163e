"""A workload of vLLM and its Service beside the old ones.

Each label that the old Service may select by gets another value, so that it does not send TGI's clients to vLLM.
"""

import copy
from collections.abc import Sequence
from typing import Any

from gateway.cli.migrate.plan import VllmPlan
from gateway.cli.migrate.writers.parts import STARTUP, grace, heading
from gateway.cli.migrate.yaml_nodes import yaml_text

NAME = "vllm.yaml"
PERIOD = 10  # seconds between two questions of the startup probe
OF_THE_CLUSTER = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences")


def write(plans: Sequence[VllmPlan]) -> dict[str, str]:
    """Return the manifest."""
    comments = [line for plan in plans for line in heading(plan)]
    documents = [document for plan in plans for document in (_workload(plan), _service(plan))]
    text = yaml_text(documents)
    return {NAME: "\n".join([*comments, text])}


def _workload(plan: VllmPlan) -> dict[str, Any]:
    workload: dict[str, Any] = copy.deepcopy(plan.launch.source["workload"])
    workload.pop("status", None)
    _rename(workload, plan.name)
    spec = workload.get("spec") or {}
    pod = spec.get("template", workload)
    labels = pod.setdefault("metadata", {}).get("labels") or {}
    pod["metadata"]["labels"] = _other(labels)
    if "selector" in spec:
        spec["selector"]["matchLabels"] = _other((spec["selector"] or {}).get("matchLabels") or {})
    if "serviceName" in spec:
        spec["serviceName"] = plan.name
    if seconds := grace(plan):
        pod["spec"]["terminationGracePeriodSeconds"] = max(seconds, pod["spec"].get("terminationGracePeriodSeconds", 0))
    for container in pod["spec"]["containers"]:
        if container.get("name", "") == plan.launch.source["container"]:
            _fill(container, plan)
    return workload


def _fill(container: dict[str, Any], plan: VllmPlan) -> None:
    """Make TGI's container one of vLLM's."""
    container |= {"image": plan.image, "command": ["vllm", "serve"], "args": list(plan.arguments)}
    container["env"] = [
        {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
        for name, value in plan.environment.items()
    ]
    references = [value for value in plan.environment.values() if isinstance(value, dict)]
    known = {one.get("configMapKeyRef", {}).get("name") for one in references}  # what they set is in `env`
    container["envFrom"] = [
        one for one in container.get("envFrom") or [] if (one.get("configMapRef") or {}).get("name", "") not in known
    ]
    if not container["envFrom"]:
        del container["envFrom"]
    probe = {"path": "/health", "port": _port_number(plan.port)}
    container["startupProbe"] = {"httpGet": probe, "periodSeconds": PERIOD, "failureThreshold": STARTUP // PERIOD}


def _service(plan: VllmPlan) -> dict[str, Any]:
    found = copy.deepcopy(plan.launch.source["service"])
    if not found:
        workload = plan.launch.source["workload"]
        pod = (workload.get("spec") or {}).get("template", workload)
        labels = (pod.get("metadata") or {}).get("labels") or {}
        metadata = {key: value for key, value in (workload.get("metadata") or {}).items() if key == "namespace"}
        ports = [{"name": "http", "port": _port_number(plan.port), "targetPort": _port_number(plan.port)}]
        spec = {"selector": labels, "ports": ports}
        found = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    found.pop("status", None)
    _rename(found, service_name(plan))
    ports = found["spec"].get("ports") or []
    for port in ports:
        port.pop("nodePort", None)
    # Reached by the gateway alone: no load balancer, no port of the nodes.
    found["spec"] = {"selector": _other(found["spec"].get("selector") or {}), "ports": ports}
    return dict(found)


def service_name(plan: VllmPlan) -> str:
    """Return the name of the new Service."""
    return f"{plan.launch.address.partition('.')[0]}-vllm"


def _rename(thing: dict[str, Any], name: str) -> None:
    metadata = thing.setdefault("metadata", {})
    for key in OF_THE_CLUSTER:
        metadata.pop(key, None)
    (metadata.get("annotations") or {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    metadata["name"] = name


def _other(labels: dict[str, Any]) -> dict[str, str]:
    return {key: f"{value}-vllm" for key, value in labels.items()}


def _port_number(port: str) -> int | str:
    return int(port) if port.isdecimal() else port
