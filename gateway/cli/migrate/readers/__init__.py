"""Reads how TGI is launched, whatever the file: each reader of one form makes the same model of it (`migrate.launch`).

    command_line   `text-generation-launcher …`, `docker run …`, alone or in a script
    compose        services of a compose file
    kubernetes     Deployment, StatefulSet and other workloads; Helm charts as rendered
    sagemaker      the environment of SageMaker's container

What a file is, its content says. `arguments` and `words` are what several of them use.
"""

import json
import re
from collections.abc import Callable

from msgspec import Struct, field

from gateway.cli.migrate.launch import CannotRead, Launch, Note
from gateway.cli.migrate.readers import command_line, compose, kubernetes, sagemaker
from gateway.cli.migrate.readers.words import Variables
from gateway.cli.migrate.yaml_nodes import Documents

_STRUCTURED = re.compile(r"^((apiVersion|kind|services|groups|version)|[ \t]*HF_MODEL_ID)\s*:", re.MULTILINE)
_METRIC = re.compile(r"\btgi_(queue|batch|request)_[a-z]")


class MetricsFile(Struct, frozen=True):
    """A file that names TGI's metrics: a dashboard, rules of Prometheus, an autoscaler."""

    file: str
    text: str
    is_json: bool


class ReadInput(Struct):
    """What a file holds. `skipped` are containers of other images."""

    launches: list[Launch] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    metrics: list[MetricsFile] = field(default_factory=list)


def read(text: str, file: str, variables: Variables, read_beside: Callable[[str], str | None]) -> ReadInput:
    """Return what a file holds. Raises CannotRead if it is nothing that is known, with what was found instead."""
    found = ReadInput()
    is_json = _is_json(text)
    if is_json or _STRUCTURED.search(text):
        if _METRIC.search(text):
            found.metrics.append(MetricsFile(file, text, is_json))
        if not is_json or sagemaker.MODEL in text:
            _structured(Documents(text, file), variables, read_beside, found)
    elif sagemaker.is_environment(text):
        found.launches.append(sagemaker.read_lines(text, file))
    else:
        found.launches += command_line.read(text, file, variables, found.skipped)
    if not found.launches and not found.metrics:
        raise CannotRead(_nothing(file, found.skipped))
    return found


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _structured(
    documents: Documents, variables: Variables, read_beside: Callable[[str], str | None], found: ReadInput
) -> None:
    for node in documents.nodes:
        if "services" in (mapping := documents.mapping(node)) and "kind" not in mapping:
            found.launches += compose.read(documents, node, variables, read_beside, found.skipped)
    found.launches += kubernetes.read(documents, found.skipped)
    found.launches += sagemaker.read(documents, variables)


def _nothing(file: str, skipped: list[Note]) -> str:
    if skipped:
        return f"{file}: no TGI in it: " + "; ".join(f"{note.place}: {note.text}" for note in skipped)
    return (
        f"{file}: expected a launch of TGI (text-generation-launcher, docker run, compose, Kubernetes, SageMaker's "
        "environment) or something that names its metrics (tgi_…), and found neither"
    )
